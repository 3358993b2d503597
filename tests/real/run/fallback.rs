//! An Ollama that is missing, too old, hangs or talks nonsense: said with what to do, and the engine
//! serves all the same.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{LIMIT, Setup, WITH_OLLAMA, text, yaml};
use crate::tools::{Process, free_port, model, ollama, python};

/// A program that is started as `ollama serve` and answers every request with `answer`; `None`: it
/// accepts connections and says nothing.
fn pretender(folder: &Path, answer: Option<&str>) -> PathBuf {
    let path = folder.join("ollama");
    let reply = answer.map_or_else(
        || "time.sleep(1000)".to_owned(),
        |answer| {
            format!(
                "self.send_response(200); self.end_headers(); self.wfile.write({answer:?}.encode())"
            )
        },
    );
    let script = format!(
        "#!{}\n\
         import http.server, os, time\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       {reply}\n\
         \x20   do_POST = do_GET\n\
         host, port = os.environ['OLLAMA_HOST'].split(':')\n\
         http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()\n",
        python().display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn problem(report: &Value) -> String {
    let processes = report.get("processes").and_then(Value::as_array);
    processes
        .into_iter()
        .flatten()
        .find(|one| text(one, "/role") == "ollama")
        .map(|one| text(one, "/problem"))
        .unwrap_or_default()
}

async fn serves_without(setup: Setup, says: &str) {
    let mut run = setup.start();
    let report = run
        .wait_for(&format!("{says:?}"), |report| {
            problem(report).contains(says)
        })
        .await;
    assert!(problem(&report).ends_with('.'), "{}", problem(&report));
    run.wait_for_backend("Cpu").await;
    let chat = run
        .chat("What is the capital of France?", 16)
        .await
        .unwrap();
    assert_eq!((chat.status, chat.backend.as_str()), (200, "Cpu"));
}

#[tokio::test]
async fn without_an_ollama_the_engine_serves_and_the_report_says_how_to_get_one() {
    serves_without(Setup::new(WITH_OLLAMA), "https://ollama.com").await;
}

#[tokio::test]
async fn an_ollama_that_is_too_old_is_said_with_the_oldest_that_will_do() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = pretender(setup.folder.path(), Some(r#"{"version": "0.1.20"}"#));
    serves_without(setup, "0.1.20, too old: install 0.6.5 or newer").await;
}

#[tokio::test]
async fn an_ollama_that_talks_nonsense_is_said() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = pretender(setup.folder.path(), Some("<html>Welcome to nginx!</html>"));
    serves_without(setup, "nonsense").await;
}

#[tokio::test]
async fn an_ollama_that_hangs_is_said() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = pretender(setup.folder.path(), None);
    serves_without(setup, "did not answer").await;
}

#[tokio::test]
async fn an_ollama_that_ends_at_once_is_said_with_its_last_words() {
    let mut setup = Setup::new(WITH_OLLAMA);
    let path = setup.folder.path().join("ollama");
    std::fs::write(&path, "#!/bin/sh\necho out of luck\nexit 3\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    setup.ollama = path;
    serves_without(setup, "out of luck").await;
}

#[tokio::test]
async fn an_ollama_at_an_address_answers_until_the_engine_does_and_is_left_alone() {
    let port = free_port();
    let models = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(ollama());
    command
        .arg("serve")
        .env("OLLAMA_HOST", format!("127.0.0.1:{port}"))
        .env("OLLAMA_MODELS", models.path())
        .env("HOME", models.path());
    let mut theirs = Process::start(command);
    crate::tools::wait_for_port(([127, 0, 0, 1], port).into(), LIMIT);
    let setup = Setup::new("");
    setup.write(&yaml(
        &model(),
        &WITH_OLLAMA.replace(
            "order: [Ollama], residency: Warm",
            &format!(
                "order: [Ollama], ollama: {{ address: \"http://127.0.0.1:{port}\", model: theirs }}"
            ),
        ),
    ));
    let mut run = setup.start();
    // It does not have the model: that is said, and how to change it.
    run.wait_for("what is missing", |report| {
        problem(report).contains("ollama pull theirs")
    })
    .await;
    run.wait_for_backend("Cpu").await;
    let modelfile = models.path().join("Modelfile");
    std::fs::write(&modelfile, format!("FROM {}\n", model().display())).unwrap();
    let created = std::process::Command::new(ollama())
        .args(["create", "theirs", "-f"])
        .arg(&modelfile)
        .env("OLLAMA_HOST", format!("127.0.0.1:{port}"))
        .env("HOME", models.path())
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    run.wait_for("the fallback", |report| problem(report).is_empty())
        .await;
    drop(run);
    assert!(theirs.is_running(), "it is not ours to end");
}
