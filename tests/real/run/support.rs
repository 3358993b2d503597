//! One `enginewright run` in a folder of its own, and a client of its endpoint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tools::{Process, descendants, enginewright, free_address, is_alive, model};

/// For what loads a model on a busy machine.
pub const LIMIT: Duration = Duration::from_mins(2);

/// The YAML of a resource: `model` as its source, `rest` as further fields of `spec`.
pub fn yaml(model: &Path, rest: &str) -> String {
    let indented = format!("  {}", rest.replace('\n', "\n  "));
    format!(
        "apiVersion: enginewright.dev/v1alpha1\n\
         kind: InferenceEngine\n\
         metadata: {{ name: test }}\n\
         spec:\n\
         \x20 model: {{ source: \"file://{}\", servedName: smollm2 }}\n\
         {}\n",
        model.display(),
        indented
    )
}

/// Small, quick to judge, and without an Ollama.
pub const ALONE: &str = "engine: { maxInputTokens: 512, maxOutputTokens: 256, slots: 2, policy: Never }\n\
    health: { probeInterval: 500ms, soak: 1s, probeTimeout: 60s }\n\
    fallback: { order: [LastGood] }\n\
    rollout: { retryLimit: 0, backoff: { initial: 100ms, max: 1s }, drainTimeout: 5s }";

/// The same with a managed Ollama that keeps the model loaded.
pub const WITH_OLLAMA: &str = "engine: { maxInputTokens: 512, maxOutputTokens: 256, slots: 2, policy: Never }\n\
    health: { probeInterval: 500ms, soak: 1s, probeTimeout: 60s }\n\
    fallback: { order: [Ollama], residency: Warm }\n\
    rollout: { backoff: { initial: 100ms, max: 1s }, drainTimeout: 5s }";

/// A folder with a YAML file and a state directory.
pub struct Setup {
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
    pub ollama: PathBuf,
}

impl Setup {
    /// With the real model, and no Ollama to be found.
    pub fn new(rest: &str) -> Self {
        let setup = Self {
            folder: tempfile::tempdir().unwrap(),
            address: free_address(),
            ollama: PathBuf::from("/no/such/ollama"),
        };
        setup.write(&yaml(&model(), rest));
        setup
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("engine.yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Replaces the YAML file as a whole.
    pub fn write(&self, yaml: &str) {
        let temporary = self.folder.path().join("engine.yaml.new");
        std::fs::write(&temporary, yaml).unwrap();
        std::fs::rename(temporary, self.file()).unwrap();
    }

    /// The command line of `run`.
    pub fn command(&self) -> Command {
        let mut command = enginewright(["run", "--log", "debug", "--listen"]);
        command.arg(self.address.to_string());
        command.arg("--file").arg(self.file());
        command.arg("--state-dir").arg(self.state());
        command.arg("--ollama").arg(&self.ollama);
        command
    }

    pub fn start(self) -> Run {
        let process = Process::start(self.command());
        Run {
            process,
            setup: self,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }
}

/// A running `run`.
pub struct Run {
    pub process: Process,
    pub setup: Setup,
    pub client: reqwest::Client,
}

/// What a chat came to.
#[derive(Clone, Debug)]
pub struct Chat {
    pub status: u16,
    pub backend: String,
    pub text: String,
}

impl Run {
    /// The report that `enginewright status` reads.
    pub fn report(&self) -> Option<Value> {
        let bytes = std::fs::read(self.setup.state().join("status.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Waits until `check` holds for the report.
    pub async fn wait_for(&mut self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            if let Some(report) = self.report()
                && check(&report)
            {
                return report;
            }
            assert!(
                self.process.is_running(),
                "ended before {what}:\n{}",
                self.process.output()
            );
            assert!(
                start.elapsed() < LIMIT,
                "waited {LIMIT:?} for {what}:\n{}\n{:#}",
                self.process.output(),
                self.report().unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a back end of this name answers, as the report says.
    pub async fn wait_for_backend(&mut self, backend: &str) -> Value {
        self.wait_for(&format!("{backend} to serve"), |report| {
            text(report, "/status/activeBackend") == backend
        })
        .await
    }

    /// Waits until the CPU engine serves from another process than `pid`.
    pub async fn wait_for_another_engine(&mut self, pid: u32) -> Value {
        self.wait_for("another engine", |report| {
            let ready = process(report, |role, state| {
                role.starts_with("engine") && state == "Ready"
            });
            text(report, "/status/activeBackend") == "Cpu" && ready.is_some_and(|now| now != pid)
        })
        .await
    }

    /// Waits until a condition has a status and a reason.
    pub async fn wait_for_condition(&mut self, kind: &str, status: &str, reason: &str) -> Value {
        self.wait_for(&format!("{kind}={status} {reason}"), |report| {
            condition(report, kind).is_some_and(|condition| {
                text(&condition, "/status") == status
                    && (reason.is_empty() || text(&condition, "/reason") == reason)
            })
        })
        .await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.setup.address)
    }

    pub async fn chat(&self, question: &str, tokens: u32) -> Result<Chat, reqwest::Error> {
        let response = self
            .client
            .post(self.url("/v1/chat/completions"))
            .json(&body(question, tokens, false))
            .timeout(LIMIT)
            .send()
            .await?;
        let status = response.status().as_u16();
        let backend = backend(&response);
        let body: Value = response.json().await?;
        Ok(Chat {
            status,
            backend,
            text: text(&body, "/choices/0/message/content"),
        })
    }

    /// Asks until it is answered.
    pub async fn wait_for_answer(&mut self) -> Chat {
        let start = Instant::now();
        loop {
            if let Ok(chat) = self.chat("What is the capital of France?", 16).await
                && chat.status == 200
            {
                return chat;
            }
            assert!(
                self.process.is_running() && start.elapsed() < LIMIT,
                "no answer:\n{}",
                self.process.output()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Process id of the engine that is ready.
    pub fn engine_pid(&self) -> Option<u32> {
        process(&self.report()?, |role, state| {
            role.starts_with("engine") && state == "Ready"
        })
    }

    /// Process id of what has this role.
    pub fn pid_of(&self, role: &str) -> Option<u32> {
        process(&self.report()?, |found, _| found == role)
    }

    /// Every process of it that lives now.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = descendants(self.process.pid());
        all.push(self.process.pid());
        all
    }

    /// What `enginewright status` prints.
    pub fn status(&self, arguments: &[&str]) -> (i32, String) {
        let output = enginewright(["status"])
            .args(arguments)
            .arg("--state-dir")
            .arg(self.setup.state())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }
}

pub fn body(question: &str, tokens: u32, stream: bool) -> Value {
    json!({
        "model": "smollm2",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    })
}

pub fn backend(response: &reqwest::Response) -> String {
    response
        .headers()
        .get("x-enginewright-backend")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

pub fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

pub fn condition(report: &Value, kind: &str) -> Option<Value> {
    report
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| text(condition, "/type") == kind)
        .cloned()
}

fn process(report: &Value, wanted: impl Fn(&str, &str) -> bool) -> Option<u32> {
    let processes = report.get("processes")?.as_array()?;
    let found = processes
        .iter()
        .find(|process| wanted(&text(process, "/role"), &text(process, "/state")))?;
    u32::try_from(found.get("pid")?.as_u64()?).ok()
}

/// Waits until none of them lives.
pub fn wait_until_gone(pids: &[u32]) {
    crate::tools::wait_for("every process to be gone", Duration::from_secs(20), || {
        let left: Vec<String> = pids
            .iter()
            .filter(|pid| is_alive(**pid))
            .map(|pid| crate::tools::command_line(*pid))
            .collect();
        left.is_empty().then_some(())
    });
}
