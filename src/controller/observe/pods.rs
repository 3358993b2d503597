//! How a container stands, in a few words.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use crate::api::Reason;
use crate::planner::{Failure, failure, transient};

/// Longest quotation of a container's last words, in characters.
const WORDS: usize = 300;
/// Exit code of our programs when something on the node was in the way, see `cli::Exit`.
const EXIT_ENVIRONMENT: i32 = 4;

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not there yet, or starting.
    Coming,
    /// Has been ready at least once since its start.
    Started,
    /// It ended by itself, whether or not the kubelet starts it again.
    Ended(Failure),
    /// It cannot be started, and the kubelet goes on trying.
    Stuck(Failure),
}

/// The state of the container `name` and of the pod's init containers.
pub(super) fn standing(pod: &Pod, name: &str) -> Standing {
    let Some(status) = &pod.status else {
        return Standing::Coming;
    };
    let init = status.init_container_statuses.iter().flatten();
    let own = status.container_statuses.iter().flatten();
    for one in init {
        match of_container(one) {
            // An init container that came to its end in order.
            Standing::Ended(failure) if failure.exit_code == Some(0) => {}
            Standing::Started | Standing::Coming => {}
            standing => return standing,
        }
    }
    own.filter(|one| one.name == name)
        .map(of_container)
        .next()
        .unwrap_or(Standing::Coming)
}

fn of_container(status: &ContainerStatus) -> Standing {
    let last = status.last_state.as_ref();
    if let Some(ended) = terminated(status.state.as_ref()).or_else(|| terminated(last)) {
        return Standing::Ended(why(ended));
    }
    let waiting = status.state.as_ref().and_then(|it| it.waiting.as_ref());
    if let Some(waiting) = waiting
        && let Some(reason) = waiting.reason.as_deref()
    {
        let said = waiting.message.as_deref().unwrap_or_default();
        let text = format!("{} cannot start: {reason}: {}", status.name, cut(said));
        match reason {
            // The registry may come back; the name may be wrong: nobody here can tell.
            "ImagePullBackOff" | "ErrImagePull" => {
                return Standing::Stuck(transient(Reason::EnvironmentError, &text));
            }
            "InvalidImageName"
            | "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "ErrImageNeverPull" => {
                return Standing::Stuck(failure(Reason::StartFailed, &text));
            }
            _ => {}
        }
    }
    if status.started == Some(true) && status.state.as_ref().is_some_and(|it| it.running.is_some())
    {
        return Standing::Started;
    }
    Standing::Coming
}

/// The end of a container, unless it was the end of the whole node: that is nobody's fault.
fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    let ended = state?.terminated.as_ref()?;
    let with_node = ended.exit_code == 255 && ended.reason.as_deref() == Some("Unknown");
    (!with_node).then_some(ended)
}

fn why(ended: &ContainerStateTerminated) -> Failure {
    let code = ended.exit_code;
    let words = ended.message.as_deref().unwrap_or_default();
    let how = match (ended.reason.as_deref(), code) {
        (Some("OOMKilled"), _) => "killed for memory".to_owned(),
        (_, code) if code > 128 => format!("killed by signal {}", code - 128),
        (_, code) => format!("exit code {code}"),
    };
    // Who was killed had no last words.
    let said = last_line(words).filter(|_| code <= 128);
    let said = said.map_or_else(String::new, |line| format!(": {line}"));
    let text = format!("The server ended ({how}){said}.");
    let failure = match (ended.reason.as_deref(), code) {
        (Some("OOMKilled"), _) => failure(Reason::EngineOutOfMemory, &text),
        (_, EXIT_ENVIRONMENT) => transient(Reason::EnvironmentError, &text),
        _ => failure(Reason::EngineCrashed, &text),
    };
    Failure {
        exit_code: Some(code),
        ..failure
    }
}

fn last_line(words: &str) -> Option<String> {
    let line = words.lines().rev().find(|line| !line.trim().is_empty())?;
    // Our own logs are JSON: the message is what a person wants to read.
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let message = value
        .as_ref()
        .and_then(|value| value.get("message")?.as_str());
    Some(cut(message.unwrap_or(line)))
}

fn cut(text: &str) -> String {
    text.trim().chars().take(WORDS).collect()
}
