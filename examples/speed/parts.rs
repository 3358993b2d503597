//! The processes that are measured, started on loopback and ended with this value.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A failure in a few words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the real parts are.
pub struct Parts {
    /// The program under test: the release build beside this one.
    pub program: PathBuf,
    /// The model: 135M parameters, `Q4_1`.
    pub model: PathBuf,
    /// Ollama 0.12.6.
    pub ollama: PathBuf,
    /// Logs and state of this run.
    pub folder: tempfile::TempDir,
}

impl Parts {
    /// Finds them where `make tools` and cargo put them.
    pub fn find() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = std::env::var_os("ENGINEWRIGHT_TOOLS")
            .map_or_else(|| root.join(".tools"), PathBuf::from);
        let program = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .ok_or("cannot tell where cargo put the program")?
            .join("enginewright");
        let parts = Self {
            program,
            model: tools.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ollama: tools.join("bin/ollama"),
            folder: tempfile::tempdir()?,
        };
        for path in [&parts.program, &parts.model, &parts.ollama] {
            if !path.exists() {
                return Err(
                    format!("{} is missing: run `make tools` first", path.display()).into(),
                );
            }
        }
        Ok(parts)
    }

    /// Starts a command whose output goes to a log in the folder of this run.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process, Failure> {
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Process { child })
    }

    /// `enginewright serve` on `port`, with further flags; returns once it is ready.
    pub async fn serve(&self, port: u16, flags: &[&str]) -> Result<Process, Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--served-name", "smollm2", "--model"])
            .arg(&self.model);
        command
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(flags);
        let process = self.start(&format!("serve-{port}"), &mut command)?;
        self.ready(&format!("serve-{port}"), port, "/readyz")
            .await?;
        Ok(process)
    }

    /// `enginewright gateway` on `port` with this route table; returns once it is ready.
    pub async fn gateway(
        &self,
        name: &str,
        port: u16,
        routes: &serde_json::Value,
    ) -> Result<Process, Failure> {
        let file = self.folder.path().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(routes)?)?;
        let mut command = Command::new(&self.program);
        command.arg("gateway").arg("--routes").arg(&file);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        let process = self.start(name, &mut command)?;
        self.ready(name, port, "/readyz").await?;
        Ok(process)
    }

    /// Waits until `path` answers 200, at most a minute.
    pub async fn ready(&self, name: &str, port: u16, path: &str) -> Result<(), Failure> {
        let http = enginewright::bench::client::http()?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_mins(1) {
            let answer = http
                .get(format!("http://127.0.0.1:{port}{path}"))
                .send()
                .await;
            if answer.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")));
        Err(format!(
            "{name} is not ready after 60 s; its log:\n{}",
            log.unwrap_or_default()
        )
        .into())
    }
}

/// A child that is killed when this value goes.
pub struct Process {
    child: Child,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has; needed where it has children of its own.
    pub async fn terminate(mut self, limit: Duration) -> Result<(), Failure> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("process {} did not end within {limit:?}", self.id()).into())
    }
}

/// Processor time that the threads of a process have used, without its children.
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let mut nanoseconds = 0_u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        let text = std::fs::read_to_string(&path)?;
        let used = text.split(' ').next().ok_or("an empty schedstat")?;
        nanoseconds += used.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// Resident memory of any process in MiB: all of it, and what is not the program's own file.
pub fn resident_mib(pid: u32) -> Result<(f64, f64), Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.map(|line| line.trim().trim_end_matches("kB").trim());
        let kib: f64 = kib.ok_or_else(|| format!("no {field}"))?.parse()?;
        Ok::<f64, Failure>(kib / 1024.0)
    };
    Ok((mib("VmRSS:")?, mib("RssAnon:")?))
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ollama, killed, would leave the runner behind that holds the model: it is asked first.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) && matches!(self.child.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        // It may have ended by itself; either way it is reaped here.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
