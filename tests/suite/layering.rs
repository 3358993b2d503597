//! The dependency rule of the architecture: pure layers import no client, no clock, no random
//! source and no environment. Checked on the source text, so that it fails where it is broken.

use std::path::{Path, PathBuf};

/// Layers that only decide, with the single file that is allowed to observe.
const PURE: [(&str, Option<&str>); 14] = [
    ("agent/decide", None),
    ("api", None),
    ("hardware", Some("probe.rs")),
    ("engine", None),
    ("network", None),
    ("planner", None),
    ("scheduler", None),
    ("sources/protocol", None),
    ("backend/tensorrt/plan", None),
    ("text", None),
    ("wire", None),
    ("controller/desired", None),
    ("controller/observe", None),
    ("controller/workloads", None),
];

/// What a pure layer must not name, and why.
const FORBIDDEN: [(&str, &str); 22] = [
    ("std::time::Instant", "a clock"),
    ("std::time::SystemTime", "a clock"),
    ("Instant::now", "a clock"),
    ("SystemTime::now", "a clock"),
    ("Timestamp::now", "a clock"),
    ("Zoned::now", "a clock"),
    ("std::env", "the environment"),
    ("env::var", "the environment"),
    ("std::fs", "the file system"),
    ("std::net", "the network"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("tokio", "a runtime"),
    ("reqwest", "a client"),
    ("hyper", "a client"),
    ("axum", "a server"),
    ("kube::Client", "a client"),
    ("kube::Api", "a client"),
    ("rand::rng", "a random source"),
    ("thread_rng", "a random source"),
    ("OsRng", "a random source"),
    ("from_os_rng", "a random source"),
];

/// Layers from the inside out: a layer imports only what stands in its row.
const ORDER: [(&str, &[&str]); 12] = [
    ("agent/decide", &["agent", "api", "hardware"]),
    ("api", &["api"]),
    ("hardware", &["api", "hardware", "model"]),
    ("engine", &["api", "hardware", "engine", "model"]),
    ("network", &["network", "model", "engine"]),
    ("weights", &["weights", "network", "model"]),
    ("planner", &["api", "hardware", "engine", "planner"]),
    ("scheduler", &["scheduler", "backend"]),
    ("sources/protocol", &["sources", "api", "model"]),
    ("backend/tensorrt/plan", &["backend"]),
    ("text", &["text", "model", "backend"]),
    ("wire", &["wire", "api"]),
];

pub(crate) fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn layer_files(layer: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(layer),
        &mut files,
    );
    assert!(!files.is_empty(), "no source in the layer {layer}");
    files
}

/// Code without comments, doc comments and what follows `#[cfg(test)]` at the end of a file.
fn code_lines(path: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(index, line)| {
            (
                index + 1,
                line.split("//").next().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

fn violations_in(layer: &str, allowed_file: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for path in layer_files(layer) {
        let exempt = allowed_file.is_some_and(|name| path.ends_with(name));
        if exempt || is_test_file(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap()) {
            continue;
        }
        for (number, line) in code_lines(&path) {
            for (word, what) in FORBIDDEN {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {what} (`{word}`)", path.display()));
                }
            }
        }
    }
    found
}

#[test]
fn pure_layers_name_no_client_clock_random_source_or_environment() {
    let found: Vec<String> = PURE
        .iter()
        .flat_map(|(layer, allowed)| violations_in(layer, *allowed))
        .collect();
    assert!(
        found.is_empty(),
        "pure layers must not observe or act:\n{}",
        found.join("\n")
    );
}

#[test]
fn layers_import_only_layers_further_in() {
    let mut found = Vec::new();
    for (layer, may) in ORDER {
        let files = layer_files(layer);
        let code = files
            .iter()
            .filter(|path| !is_test_file(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap()));
        for path in code {
            for (number, line) in code_lines(path) {
                let Some(rest) = line.split("crate::").nth(1) else {
                    continue;
                };
                let target: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if !may.contains(&target.as_str()) {
                    found.push(format!(
                        "{}:{number}: {layer} imports {target}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "imports against the order of layers:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_check_itself_sees_the_one_file_that_may_observe() {
    let probe = violations_in("hardware", None);
    assert!(
        probe.iter().any(|line| line.contains("probe.rs")),
        "hardware/probe.rs reads files; a check that does not see that checks nothing: {probe:?}"
    );
}
