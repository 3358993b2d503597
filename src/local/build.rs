//! The build of a revision's engine: `enginewright engine build` as a child, in the revision's folder.
//!
//! A process of its own: what TensorRT loads and forgets must not stay in `run`, and a build that is
//! killed for its memory kills nothing else. Nothing is decided here: how it ended becomes a failure of the
//! revision or of the world, in the planner's words.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::config::Served;
use super::guard;
use super::model::Job;
use super::process::{self, Order};
use super::{TensorRt, tensorrt_arguments};
use crate::api::Reason;
use crate::planner::{Failure, failure, transient};

/// Between two looks whether the build moves.
const LOOK: Duration = Duration::from_secs(1);
/// Exit codes of `engine build`, see `cli::Exit`.
const BAD_INPUT: i32 = 1;
const NO_ROOM: i32 = 2;
const ENVIRONMENT: i32 = 4;
const STOPPED: i32 = 7;
/// What the kernel's memory killer sends.
const SIGKILL: i32 = 128 + 9;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Build {
    /// The model's file.
    pub model: PathBuf,
    /// What the engine is for.
    pub served: Served,
    /// Folder that gets the bundle.
    pub out: PathBuf,
    /// Folder of logs.
    pub logs: PathBuf,
    /// Where TensorRT is.
    pub tensorrt: TensorRt,
}

/// Builds; what moves is reported to the loop.
///
/// # Errors
/// A failure of the revision, or of the world.
pub async fn build(job: &Job, build: &Build) -> Result<(), Failure> {
    let log = build.logs.join(format!("build-{}.log", job.revision));
    let metrics = build.logs.join(format!("build-{}.prom", job.revision));
    let order = Order {
        program: None,
        arguments: arguments(build, &metrics),
        environment: Vec::new(),
        stdin: None,
        log: log.clone(),
        tree: false,
    };
    let mut running = process::start(order).map_err(|error| {
        let text = format!("The build cannot be started: {error}.");
        transient(Reason::EnvironmentError, &text)
    })?;
    let mut seen = String::new();
    let status = loop {
        tokio::select! {
            status = running.wait() => break status,
            () = tokio::time::sleep(LOOK) => {
                let now = std::fs::read_to_string(&metrics).unwrap_or_default();
                if let Some(percent) = moved(&seen, &now) {
                    job.report(percent, Some(100));
                }
                seen = now;
            }
        }
    };
    outcome(status, &process::last_words(&log).unwrap_or_default())
}

fn arguments(build: &Build, metrics: &Path) -> Vec<OsString> {
    let served = &build.served;
    let mut arguments: Vec<OsString> = ["engine", "build", "--model"].map(Into::into).into();
    arguments.push((&build.model).into());
    arguments.extend(["--out".into(), (&build.out).into()]);
    arguments.extend(["--metrics-file".into(), metrics.into()]);
    for (name, value) in [
        ("--slots", served.slots.to_string()),
        ("--max-input-tokens", served.max_input_tokens.to_string()),
        ("--max-output-tokens", served.max_output_tokens.to_string()),
        ("--precision", format!("{:?}", served.precision)),
    ] {
        arguments.extend([name.into(), value.into()]);
    }
    if let Some(sm) = build.tensorrt.sm {
        arguments.extend(["--sm".into(), sm.to_string().into()]);
    }
    arguments.extend(tensorrt_arguments(&build.tensorrt.search));
    arguments
}

/// The progress of the present stage in percent, when something has moved since the last look: the
/// time that has passed is no progress.
fn moved(before: &str, now: &str) -> Option<u64> {
    let progress = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("enginewright_build_progress_ratio"));
        line.map(str::to_owned)
    };
    let line = progress(now)?;
    if progress(before).as_ref() == Some(&line) {
        return None;
    }
    let ratio: f64 = line.rsplit(' ').next()?.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 100"
    )]
    let percent = (ratio.clamp(0.0, 1.0) * 100.0) as u64;
    Some(percent)
}

fn outcome(status: std::io::Result<ExitStatus>, words: &str) -> Result<(), Failure> {
    let code = status.ok().map(guard::exit_code);
    let text = match code {
        Some(code) if code > 128 => {
            format!("The build was killed by signal {}: {words}.", code - 128)
        }
        Some(code) => format!("The build ended with exit code {code}: {words}."),
        None => "The build is gone, nobody knows how.".to_owned(),
    };
    match code {
        Some(0) => Ok(()),
        code => Err(blame(code, &text)),
    }
}

/// Whose fault it is that `engine build` ended so.
pub fn blame(exit_code: Option<i32>, text: &str) -> Failure {
    let problem = match exit_code {
        Some(BAD_INPUT) => failure(Reason::ModelUnsupported, text),
        Some(NO_ROOM) => failure(Reason::InsufficientMemory, text),
        Some(ENVIRONMENT | STOPPED) => transient(Reason::EnvironmentError, text),
        Some(SIGKILL) => failure(Reason::BuildOutOfMemory, text),
        _ => failure(Reason::BuildFailed, text),
    };
    Failure {
        exit_code,
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[expect(
        clippy::unnecessary_wraps,
        reason = "as the wait for a process gives it"
    )]
    fn ended(code: i32) -> std::io::Result<ExitStatus> {
        Ok(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn only_what_is_the_revisions_own_fault_is_held_against_it() {
        assert!(outcome(ended(0), "").is_ok());
        for (code, reason, transient) in [
            (1, Reason::ModelUnsupported, false),
            (2, Reason::InsufficientMemory, false),
            (3, Reason::BuildFailed, false),
            (4, Reason::EnvironmentError, true),
            (137, Reason::BuildOutOfMemory, false),
        ] {
            let failure = outcome(ended(code), "words").unwrap_err();
            assert_eq!((failure.reason, failure.transient), (reason, transient));
            assert!(failure.message.contains("words"), "{}", failure.message);
            assert_eq!(failure.exit_code, Some(code));
        }
    }

    #[test]
    fn time_that_passes_is_no_progress() {
        let text = |ratio: f64, seconds: u32| {
            format!(
                "# HELP enginewright_build_progress_ratio x\n\
                 enginewright_build_progress_ratio{{stage=\"engine\"}} {ratio}\n\
                 enginewright_build_elapsed_seconds {seconds}\n"
            )
        };
        assert_eq!(moved("", &text(0.25, 1)), Some(25));
        assert_eq!(moved(&text(0.25, 1), &text(0.25, 9)), None);
        assert_eq!(moved(&text(0.25, 1), &text(0.5, 9)), Some(50));
        assert_eq!(moved(&text(0.25, 1), ""), None);
    }
}
