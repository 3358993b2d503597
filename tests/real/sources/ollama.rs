//! `ollama://`: what a real Ollama pushed arrives with all that belongs to it, and is used.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::proxy::Proxy;
use super::support::{Cache, LIMIT, block_on, digest, shared};
use crate::run::support::{Setup, WITH_OLLAMA, condition, text};
use crate::tools::{self, Process, enginewright, free_address, model, wait_for};

const TEMPLATE: &str = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n\
     {{ end }}<|im_start|>assistant\n";
const SYSTEM: &str =
    "You are a lighthouse keeper who answers in few words and never leaves the island.";
const LICENCE: &str = "Apache-2.0, said by the test.";

fn serve_ollama(store: &Path) -> (Process, SocketAddr) {
    let address = free_address();
    let mut command = Command::new(tools::ollama());
    command.arg("serve");
    command.env("OLLAMA_HOST", address.to_string());
    command.env("OLLAMA_MODELS", store).env("HOME", store);
    let process = Process::start(command);
    tools::wait_for_port(address, LIMIT);
    (process, address)
}

fn ollama(address: SocketAddr, arguments: &[&str], folder: &Path) {
    let output = Command::new(tools::ollama())
        .args(arguments)
        .env("OLLAMA_HOST", address.to_string())
        .env("HOME", folder)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ollama {arguments:?}: {said}");
}

/// A registry with `library/smol:q4`, pushed by Ollama.
fn pushed() -> SocketAddr {
    static PUSHED: OnceLock<SocketAddr> = OnceLock::new();
    *PUSHED.get_or_init(|| {
        let registry = shared();
        let folder = tempfile::tempdir().unwrap();
        let (_process, address) = serve_ollama(folder.path());
        let modelfile = format!(
            "FROM {}\nTEMPLATE \"\"\"{TEMPLATE}\"\"\"\nSYSTEM \"\"\"{SYSTEM}\"\"\"\n\
             PARAMETER num_predict 3\nPARAMETER temperature 0.5\nPARAMETER stop <|im_end|>\n\
             PARAMETER stop <|endoftext|>\nLICENSE \"\"\"{LICENCE}\"\"\"\n",
            model().display()
        );
        std::fs::write(folder.path().join("Modelfile"), modelfile).unwrap();
        let name = format!("{registry}/library/smol:q4");
        ollama(
            address,
            &["create", "smol", "-f", "Modelfile"],
            folder.path(),
        );
        ollama(address, &["cp", "smol", &name], folder.path());
        ollama(address, &["push", "--insecure", &name], folder.path());
        registry
    })
}

fn fetched(cache: &Cache) -> std::path::PathBuf {
    let endpoint = format!("http://{}", pushed());
    cache.fetched("ollama://smol:q4", "r1", &["--endpoint", &endpoint])
}

#[test]
fn a_model_that_ollama_pushed_arrives_with_what_belongs_to_it() {
    let cache = Cache::new();
    let model = fetched(&cache);
    let beside = std::fs::read(model.with_file_name("modelfile.json")).unwrap();
    let beside: Value = serde_json::from_slice(&beside).unwrap();
    assert_eq!(beside["template"], TEMPLATE);
    assert_eq!(beside["system"], SYSTEM);
    assert_eq!(beside["parameters"]["temperature"], 0.5);
    assert_eq!(
        beside["parameters"]["stop"],
        json!(["<|im_end|>", "<|endoftext|>"])
    );
    assert_eq!(beside["licences"], json!([LICENCE]));
}

#[test]
fn the_server_uses_what_came_with_the_model() {
    let cache = Cache::new();
    let model = fetched(&cache);
    let address = free_address();
    let mut command = enginewright(["serve", "--threads", "1", "--listen"]);
    command.arg(address.to_string()).arg("--model").arg(&model);
    let mut process = Process::start(command);
    process.wait_for_output("model loaded", LIMIT);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |path: &str, body: Value| -> Value {
        let request = client.post(format!("http://{address}{path}")).json(&body);
        block_on(async { request.send().await.unwrap().json().await.unwrap() })
    };
    let asked = json!([{"role": "user", "content": "Tell me a long story."}]);
    let own = json!([{"role": "system", "content": "x"}, {"role": "user", "content": "Tell me a long story."}]);
    let chat = |messages: &Value| {
        ask(
            "/api/chat",
            json!({"model": "model", "stream": false, "messages": messages}),
        )
    };
    let answer = chat(&asked);
    assert_eq!(answer["eval_count"], 3, "num_predict: {answer}");
    let longer = answer["prompt_eval_count"].as_u64().unwrap();
    let shorter = chat(&own)["prompt_eval_count"].as_u64().unwrap();
    assert!(
        longer > shorter + 5,
        "the system message: {longer} and {shorter} tokens"
    );
    let answer = ask("/v1/chat/completions", json!({"messages": asked}));
    assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
    assert_eq!(answer["usage"]["prompt_tokens"], longer, "{answer}");
    let parameters = ask("/api/show", json!({"model": "model"}))["parameters"].clone();
    assert!(
        parameters.as_str().unwrap().contains("<|im_end|>"),
        "{parameters}"
    );
}

#[test]
fn the_fallback_is_made_of_what_came_with_the_model() {
    let cache = Cache::new();
    let model = fetched(&cache);
    let store = cache.folder.path().join("ollama/models");
    let (_ollama, address) = serve_ollama(&store);
    let order = cache.folder.path().join("order");
    std::fs::write(&order, "standby").unwrap();
    let mut command = enginewright(["companion", "--model", "enginewright/test:imported"]);
    command.args(["--ollama", &format!("http://{address}")]);
    command.args(["--sha256", digest(), "--threads", "2"]);
    command.args(["--listen", &free_address().to_string()]);
    command.arg("--gguf").arg(&model).arg("--store").arg(&store);
    command.arg("--order").arg(&order);
    let mut companion = Process::start(command);
    companion.wait_for_output("carried out", LIMIT);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let show = || -> Value {
        let request = client
            .post(format!("http://{address}/api/show"))
            .json(&json!({"model": "enginewright/test:imported"}));
        block_on(async { request.send().await.unwrap().json().await.unwrap() })
    };
    let shown = show();
    assert_eq!(shown["template"], TEMPLATE);
    assert_eq!(shown["system"], SYSTEM);
    for part in ["num_thread", "num_predict", "<|endoftext|>", "0.5"] {
        assert!(
            shown["parameters"].as_str().unwrap().contains(part),
            "{shown}"
        );
    }
    // What is as wanted is not made again: the time of change stays.
    let before = shown["modified_at"].clone();
    std::fs::write(&order, "park").unwrap();
    companion.wait_for_output("order=\"park\"", LIMIT);
    assert_eq!(show()["modified_at"], before);
}

#[test]
fn a_name_that_the_registry_does_not_have_is_said() {
    let endpoint = format!("http://{}", pushed());
    let (reason, message) =
        Cache::new().refused("ollama://smol:q99", "r1", &["--endpoint", &endpoint]);
    assert_eq!(reason, "ModelNotFound", "{message}");
    assert!(
        message.contains("q99") && message.contains("404"),
        "{message}"
    );
}

#[test]
fn what_the_managed_ollama_of_the_cache_has_is_not_fetched_again() {
    let cache = Cache::new();
    let blobs = cache.folder.path().join("ollama/models/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join(format!("sha256-{}", digest()));
    std::fs::copy(model(), &blob).unwrap();
    let proxy = Proxy::new(pushed());
    let more = ["--endpoint", &proxy.url()];
    cache.fetched("ollama://smol:q4", "r1", &more);
    let model_asked = |proxy: &Proxy| {
        let files = proxy.files();
        files
            .iter()
            .filter(|one| one.path.contains(digest()))
            .count()
    };
    assert_eq!(model_asked(&proxy), 0);
    assert!(blob.is_file(), "Ollama's file stays");
    // A damaged one is noticed.
    std::fs::remove_dir_all(cache.revision("r1")).unwrap();
    std::fs::write(&blob, "damaged").unwrap();
    cache.fetched("ollama://smol:q4", "r2", &more);
    assert_eq!(model_asked(&proxy), 1);
    // And what another revision has is taken from there.
    cache.fetched("ollama://smol:q4", "r3", &more);
    assert_eq!(model_asked(&proxy), 1);
}

#[test]
fn run_serves_a_model_from_a_registry_and_its_fallback_has_the_same() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = tools::ollama();
    let file = std::fs::read_to_string(setup.file()).unwrap();
    let source = format!(
        "model: {{ source: \"ollama://smol:q4\", endpoint: \"http://{}\", servedName: smollm2 }}",
        pushed()
    );
    let lines: Vec<&str> = file
        .lines()
        .map(|line| {
            if line.contains("model: {") {
                source.as_str()
            } else {
                line
            }
        })
        .collect();
    let indented = lines.join("\n").replace("\nmodel:", "\n  model:");
    setup.write(&indented);
    let mut run = setup.start();
    block_on(async {
        let report = run.wait_for_condition("Ready", "True", "").await;
        assert_eq!(text(&report, "/status/activeBackend"), "Cpu", "{report}");
        let available = condition(&report, "Available").unwrap();
        assert_eq!(text(&available, "/status"), "True");
        let chat = run.chat("What is the capital of France?", 3).await.unwrap();
        assert_eq!(chat.status, 200);
    });
    let revisions = run.setup.state().join("revisions");
    let found = wait_for("the revision", LIMIT, || {
        let mut entries = std::fs::read_dir(&revisions).ok()?.flatten();
        entries.find(|one| one.path().join("modelfile.json").is_file())
    });
    assert!(found.path().join("model.gguf").is_file());
}
