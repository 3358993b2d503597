//! `make demo`: the whole path on this machine, with times. Fails when one step does not happen, and
//! leaves no process behind.
//!
//! It drives the program as a user does: one `enginewright run`, HTTP to its endpoint, `enginewright
//! status`, and a SIGKILL to the engine in the middle of an answer.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use enginewright::local::guard::descendants;
use enginewright::wire::BACKEND_HEADER;
use enginewright::wire::sse::{DONE_DATA, Decoder, Event};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// For each step; a slow machine loads the model in seconds.
const LIMIT: Duration = Duration::from_mins(3);
const MODEL: &str = "smollm2";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // The client finds its TLS provider, as in the program itself.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let start = Instant::now();
    match demo(start).await {
        Ok(()) => {
            say(start, "done: every step happened, no process is left");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(start, &format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(start: Instant, text: &str) {
    print(&format!(
        "\n{:7.2} s  {text}\n",
        start.elapsed().as_secs_f64()
    ));
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away does not want to see more.
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn demo(start: Instant) -> Result<()> {
    let mut run = Run::start(start)?;
    let shown = show(&mut run, start).await;
    let ended = run.end(start).await;
    shown.and(ended)
}

async fn show(run: &mut Run, start: Instant) -> Result<()> {
    let question = "What is the capital of France?";
    let (backend, text) = run.first_answer(question).await?;
    say(
        start,
        &format!("the endpoint answers, from {backend}: {text:?}"),
    );
    ensure!(
        backend == "Ollama",
        "the first answer came from {backend}, not from Ollama"
    );

    run.wait_for_backend("Cpu").await?;
    let status = run.status().await?;
    say(
        start,
        &format!(
            "our server is loaded, proven and promoted: first token {}, {} tokens/s",
            field(&status, "/status/measured/firstToken"),
            field(&status, "/status/measured/tokensPerSecond"),
        ),
    );

    say(start, "a chat, streamed from it:");
    let answer = run.stream(question, 48, None).await?;
    answer.show();
    ensure!(answer.backend == "Cpu", "it came from {}", answer.backend);
    ensure!(answer.resumed.is_none(), "it was interrupted");

    let victim = run.engine_pid().await?;
    say(
        start,
        &format!("a longer one, and the engine (process {victim}) is killed in the middle:"),
    );
    let story = "Tell me a long story about a lighthouse keeper and the sea.";
    let answer = run.stream(story, 160, Some(victim)).await?;
    answer.show();
    ensure!(answer.backend == "Cpu", "it began on {}", answer.backend);
    ensure!(
        answer.killed,
        "the answer was complete before the engine could be killed"
    );
    let resumed = answer.resumed.context("the answer was not resumed")?;
    ensure!(!answer.after_kill.is_empty(), "nothing came after the kill");
    say(
        start,
        &format!(
            "the client read on: {} characters more, from {}",
            answer.after_kill.chars().count(),
            field(&resumed, "/backend"),
        ),
    );

    run.wait_for_new_engine(victim).await?;
    say(start, "the engine is restarted, proven and promoted back");
    let answer = run.stream(question, 24, None).await?;
    answer.show();
    ensure!(answer.backend == "Cpu", "it came from {}", answer.backend);

    say(start, "enginewright status:\n");
    print(&run.command(&["status"]).await?);
    Ok(())
}

fn field(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    }
}

/// A running `enginewright run`.
struct Run {
    child: Child,
    program: PathBuf,
    state: tempfile::TempDir,
    endpoint: String,
    client: reqwest::Client,
    processes: HashSet<Pid>,
}

impl Run {
    fn start(start: Instant) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = std::env::var_os("ENGINEWRIGHT_TOOLS")
            .map_or_else(|| root.join(".tools"), PathBuf::from);
        let program = own_folder()?.join("enginewright");
        ensure!(
            program.exists(),
            "{} is missing: cargo build --bins",
            program.display()
        );
        let state = tempfile::tempdir()?;
        let sample = root.join("manifests/samples/smollm2.yaml");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        say(
            start,
            &format!("enginewright run -f manifests/samples/smollm2.yaml --listen {listen}"),
        );
        let mut child = Command::new(&program)
            .args(["run", "--listen", &listen, "--log", "warn", "-f"])
            .arg(&sample)
            .arg("--state-dir")
            .arg(state.path())
            .arg("--ollama")
            .arg(tools.join("bin/ollama"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("no output")?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                print(&format!("           | {line}\n"));
            }
        });
        Ok(Self {
            child,
            program,
            state,
            endpoint: format!("http://{listen}"),
            client: reqwest::Client::builder().no_proxy().build()?,
            processes: HashSet::new(),
        })
    }

    /// Asks until somebody answers.
    async fn first_answer(&mut self, question: &str) -> Result<(String, String)> {
        let body = chat(question, 24, false);
        let asking = async {
            loop {
                let request = self.client.post(self.chat_url()).json(&body).send().await;
                if let Ok(response) = request
                    && response.status().is_success()
                {
                    let backend = backend(&response);
                    let answer: Value = response.json().await?;
                    return Ok((backend, field(&answer, "/choices/0/message/content")));
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("`enginewright run` ended: {status}");
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, asking).await.context("nobody answers")?
    }

    fn chat_url(&self) -> String {
        format!("{}/v1/chat/completions", self.endpoint)
    }

    /// Streams an answer; kills `victim` when a part of it has come.
    async fn stream(&self, question: &str, tokens: u32, victim: Option<Pid>) -> Result<Answer> {
        let streaming = self.stream_unbounded(question, tokens, victim);
        timeout(LIMIT, streaming)
            .await
            .context("the stream hangs")?
    }

    async fn stream_unbounded(
        &self,
        question: &str,
        tokens: u32,
        victim: Option<Pid>,
    ) -> Result<Answer> {
        let start = Instant::now();
        let body = chat(question, tokens, true);
        let mut response = self.client.post(self.chat_url()).json(&body).send().await?;
        ensure!(
            response.status().is_success(),
            "status {}",
            response.status()
        );
        let mut answer = Answer::new(backend(&response));
        let mut decoder = Decoder::new();
        while let Some(bytes) = response.chunk().await? {
            let mut events: Vec<Event> = Vec::new();
            decoder.push(&bytes, &mut events)?;
            for event in events {
                if event.data == DONE_DATA {
                    answer.seconds = start.elapsed().as_secs_f64();
                    return Ok(answer);
                }
                answer.take(&serde_json::from_str(&event.data)?, start.elapsed())?;
            }
            if let Some(victim) = victim
                && !answer.killed
                && answer.pieces >= 12
            {
                kill_process(victim, Signal::KILL)?;
                answer.killed = true;
            }
        }
        bail!("the stream ended without [DONE]")
    }

    async fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state.path())
            .output()
            .await?;
        ensure!(output.status.success(), "{arguments:?}: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.command(&["status", "-o", "json"]).await?,
        )?)
    }

    async fn wait_for_backend(&mut self, wanted: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            self.note_processes();
            let status = self.status().await?;
            if field(&status, "/status/activeBackend") == wanted {
                return Ok(());
            }
            ensure!(
                start.elapsed() < LIMIT,
                "{wanted} does not come to serve: {}",
                field(&status, "/status/conditions")
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn wait_for_new_engine(&mut self, old: Pid) -> Result<()> {
        let start = Instant::now();
        loop {
            self.wait_for_backend("Cpu").await?;
            if self.engine_pid().await.is_ok_and(|pid| pid != old) {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "the engine does not come back");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn engine_pid(&self) -> Result<Pid> {
        let status = self.status().await?;
        let processes = status.get("processes").and_then(Value::as_array);
        let engine = processes.into_iter().flatten().find(|process| {
            field(process, "/role").starts_with("engine") && field(process, "/state") == "Ready"
        });
        engine
            .and_then(|engine| engine.get("pid")?.as_i64())
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .context("no engine is ready")
    }

    /// Remembers every process there has been, to see at the end that none is left.
    fn note_processes(&mut self) {
        let own = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(own) = own.and_then(Pid::from_raw) {
            self.processes.insert(own);
            self.processes.extend(descendants(own));
        }
    }

    async fn end(mut self, start: Instant) -> Result<()> {
        self.note_processes();
        say(start, "SIGTERM");
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        {
            // One that ended by itself is reported below.
            let _gone = kill_process(pid, Signal::TERM);
        }
        let ended = timeout(LIMIT, self.child.wait()).await;
        let status = ended.context("`enginewright run` does not end")??;
        let left: Vec<i32> = self
            .processes
            .iter()
            .filter(|pid| test_kill_process(**pid).is_ok())
            .map(|pid| pid.as_raw_pid())
            .collect();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        ensure!(status.success(), "`enginewright run` ended with {status}");
        Ok(())
    }
}

/// The folder of the program beside this example.
fn own_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent);
    Ok(folder.context("no folder above this example")?.to_owned())
}

fn chat(question: &str, tokens: u32, stream: bool) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    })
}

fn backend(response: &reqwest::Response) -> String {
    let header = response.headers().get(BACKEND_HEADER);
    header
        .and_then(|value| value.to_str().ok())
        .unwrap_or("nobody")
        .to_owned()
}

/// A streamed answer as a client saw it.
struct Answer {
    backend: String,
    before: String,
    after_kill: String,
    pieces: u32,
    killed: bool,
    first_token: Option<Duration>,
    seconds: f64,
    resumed: Option<Value>,
}

impl Answer {
    fn new(backend: String) -> Self {
        Self {
            backend,
            before: String::new(),
            after_kill: String::new(),
            pieces: 0,
            killed: false,
            first_token: None,
            seconds: 0.0,
            resumed: None,
        }
    }

    fn take(&mut self, chunk: &Value, at: Duration) -> Result<()> {
        if let Some(error) = chunk.get("error") {
            bail!("the stream has an error: {error}");
        }
        if let Some(resumed) = chunk.pointer("/enginewright/resumed") {
            self.resumed = Some(resumed.clone());
        }
        let text = chunk
            .pointer("/choices/0/delta/content")
            .and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.first_token.get_or_insert(at);
            self.pieces += 1;
            if self.killed {
                self.after_kill.push_str(text);
            } else {
                self.before.push_str(text);
            }
        }
        Ok(())
    }

    fn show(&self) {
        print(&format!(
            "           > {}",
            self.before.replace('\n', "\n           > ")
        ));
        if self.killed {
            print(&format!(
                "\n           X SIGKILL\n           > {}",
                self.after_kill.replace('\n', "\n           > ")
            ));
        }
        let first = self.first_token.unwrap_or_default().as_secs_f64();
        print(&format!(
            "\n           = began on {}, first token after {first:.2} s, whole after {:.2} s\n",
            self.backend, self.seconds
        ));
    }
}
