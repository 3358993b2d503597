//! `enginewright engine` as a user runs it, on the real model.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::tools::{self, Process};

/// A build takes about 20 s on two processors that are free.
const LIMIT: Duration = Duration::from_mins(4);

fn command(out: &Path, more: &[&str]) -> Command {
    let mut command = tools::enginewright(["engine", "build"]);
    command
        .arg("--model")
        .arg(tools::model())
        .arg("--out")
        .arg(out)
        .args(more);
    command
}

fn build(out: &Path) -> Command {
    let shape = "--sm 8.9 --precision Fp16 --max-input-tokens 256 --max-output-tokens 64 --slots 1";
    let shape: Vec<&str> = shape.split(' ').collect();
    let mut command = command(out, &shape);
    command.arg("--shim").arg(tools::tensorrt());
    command
}

fn engine<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = tools::enginewright(["engine"]);
    command.args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn bundles(out: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path());
    names
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect()
}

fn leftovers(out: &Path) -> usize {
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"))
        .count()
}

fn verify(bundle: &Path) -> Output {
    let shim = tools::tensorrt();
    engine([
        OsStr::new("verify"),
        OsStr::new("--shim"),
        shim.as_os_str(),
        bundle.as_os_str(),
    ])
}

/// One pass of a life: killed at many moments, then built, inspected, verified, damaged.
#[test]
fn killed_at_any_moment_a_build_leaves_no_bundle_that_looks_whole_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engines");
    // From before the first write to about the end of a build.
    for milliseconds in [300, 1500, 4000, 9000] {
        let mut process = Process::start(build(&out));
        std::thread::sleep(Duration::from_millis(milliseconds));
        let early = process.is_running();
        process.signal(Signal::KILL);
        process.wait_for_exit(LIMIT);
        for bundle in bundles(&out) {
            assert!(!early, "a killed build has published {}", bundle.display());
            assert_eq!(verify(&bundle).status.code(), Some(0));
        }
    }
    let built = build(&out).output().unwrap();
    assert_eq!(built.status.code(), Some(0), "{}", text(&built));
    let path = PathBuf::from(String::from_utf8(built.stdout.clone()).unwrap().trim());
    assert_eq!(bundles(&out), std::slice::from_ref(&path));
    assert_eq!(leftovers(&out), 0, "what the killed builds left is gone");
    inspected(&path);
    let verified = verify(&path);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    assert!(
        text(&verified).contains("rtx-1.6.1.120, as here"),
        "{}",
        text(&verified)
    );
    // The key is that of the inputs: the second build finds the first one's engine.
    let again = build(&out).output().unwrap();
    assert_eq!(again.stdout, built.stdout, "{}", text(&again));
    assert!(
        text(&again).contains("was there already"),
        "{}",
        text(&again)
    );
    damaged(&path);
}

fn inspected(path: &Path) {
    let table = engine([OsStr::new("inspect"), path.as_os_str()]);
    let shown = text(&table);
    for part in [
        "KEY",
        "FP16",
        "rtx-1.6.1.120",
        "decode",
        "prefill",
        "engine.plan",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let json = engine([
        OsStr::new("inspect"),
        OsStr::new("-o"),
        OsStr::new("json"),
        path.as_os_str(),
    ]);
    let manifest: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(manifest["key"].as_str(), path.file_name().unwrap().to_str());
    assert_eq!(manifest["inputs"]["sm"], "8.9");
    assert_eq!(manifest["engine"]["attention"], "native");
}

/// A byte in every part of every file.
fn damaged(path: &Path) {
    for name in [
        "engine.plan",
        "tokenizer.json",
        "chat_template.jinja",
        "config.json",
        "manifest.json",
    ] {
        let file = path.join(name);
        let good = std::fs::read(&file).unwrap();
        let places = [
            0,
            1,
            good.len() / 7,
            good.len() / 3,
            good.len() / 2,
            good.len() - 1,
        ];
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            std::fs::write(&file, &bad).unwrap();
            let verified = verify(path);
            assert_eq!(
                verified.status.code(),
                Some(5),
                "byte {at} of {name}: {}",
                text(&verified)
            );
            assert!(text(&verified).contains(name), "{}", text(&verified));
        }
        std::fs::write(&file, &good).unwrap();
    }
    assert_eq!(verify(path).status.code(), Some(0));
}

#[test]
fn a_build_that_is_told_to_stop_ends_with_its_own_code_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engines");
    let mut process = Process::start(build(&out));
    process.wait_for_output("stage=\"engine\"", LIMIT);
    process.signal(Signal::TERM);
    let status = process.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(7), "{}", process.output());
    assert!(
        process.output().contains("nothing was left behind"),
        "{}",
        process.output()
    );
    assert!(bundles(&out).is_empty());
    assert_eq!(leftovers(&out), 0);
}

#[test]
fn bad_input_is_an_error_with_a_remedy_and_a_stable_code() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let none = out.join("none");
    let shim = tools::tensorrt().display().to_string();
    let run = |more: &str| {
        let more: Vec<&str> = more.split(' ').collect();
        command(out, &more).output().unwrap()
    };
    for (more, code, part) in [
        (
            format!("--shim {shim} --sm 8.9 --max-input-tokens 131072"),
            1,
            "was trained for 8192",
        ),
        (
            format!("--shim {shim} --sm 5.0"),
            1,
            "does not exist on SM 5.0",
        ),
        (
            format!("--shim {shim} --tensorrt /nowhere/libnvinfer.so"),
            4,
            "/nowhere/libnvinfer.so",
        ),
        ("--shim /nowhere --sm 8.9".to_owned(), 4, "make shim"),
    ] {
        let output = run(&more);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{more:?}: {}",
            text(&output)
        );
        assert!(text(&output).contains(part), "{more:?}: {}", text(&output));
    }
    for arguments in [["inspect"], ["verify"]] {
        let arguments = arguments
            .map(OsStr::new)
            .into_iter()
            .chain([none.as_os_str()]);
        let output = engine(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("no engine bundle"),
            "{}",
            text(&output)
        );
    }
    assert!(bundles(out).is_empty(), "nothing was written");
}
