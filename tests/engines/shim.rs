//! The shim itself: headers, sanitizers, the version gate.

use std::path::{Path, PathBuf};
use std::process::Command;

use enginewright::tensorrt::{Search, TensorRtError, Version, load};

use crate::tools;

fn source(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?} failed:\n{text}");
    text
}

fn compile(headers: &Path, out: &Path, flags: &[&str]) {
    succeed(
        Command::new(source("scripts/shim"))
            .arg(headers)
            .arg(out)
            .args(flags),
    );
}

/// A library that says it is TensorRT 10.3.0.99.
fn another_tensorrt(folder: &Path) -> PathBuf {
    let library = folder.join("libother.so");
    let source = source("tests/engines/shim/other.cpp");
    succeed(
        Command::new("c++")
            .args(["-shared", "-fPIC"])
            .arg(source)
            .arg("-o")
            .arg(&library),
    );
    library
}

#[test]
fn it_compiles_without_a_warning_against_the_headers_of_every_tensorrt() {
    let folder = tempfile::tempdir().unwrap();
    let headers = tools::trt_headers();
    let mut compiled = Vec::new();
    for entry in std::fs::read_dir(&headers).unwrap() {
        let path = entry.unwrap().path();
        if path.join("NvInfer.h").is_file() {
            // -Wall -Wextra -Werror are in the script; code is generated in another test.
            compile(&path, &folder.path().join("shim.so"), &["-O0"]);
            compiled.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for from_a_registry in ["10.16", "rtx-1.4", "rtx-1.6"] {
        assert!(
            compiled.iter().any(|one| one == from_a_registry),
            "only {compiled:?}"
        );
    }
}

#[test]
fn it_keeps_its_contract_under_address_and_undefined_behaviour_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let sanitize = [
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ];
    let shim = folder.path().join("libenginewright_trt.so");
    compile(&tools::trt_headers().join("rtx-1.6"), &shim, &sanitize);
    let program = folder.path().join("check");
    let rpath = format!("-Wl,-rpath,{}", folder.path().display());
    succeed(
        Command::new("c++")
            .args(["-std=c++17", "-Wall", "-Werror"])
            .args(sanitize)
            .arg(source("tests/engines/shim/check.cpp"))
            .arg(&shim)
            .arg(rpath)
            .arg("-o")
            .arg(&program),
    );
    let said = succeed(
        Command::new(&program)
            .arg(tools::tensorrt().join("libtensorrt_rtx.so.1"))
            .arg(another_tensorrt(folder.path()))
            .env("ASAN_OPTIONS", "detect_leaks=1"),
    );
    assert!(said.contains("as the header says"), "{said}");
}

#[test]
fn a_tensorrt_of_another_build_is_refused_before_anything_of_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let other = another_tensorrt(folder.path());
    let search = Search {
        shim: Some(tools::tensorrt()),
        tensorrt: Some(other.clone()),
    };
    let error = load(&search).unwrap_err();
    let TensorRtError::WrongVersion {
        found, expected, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (found, expected),
        (&Version([10, 3, 0, 99]), &Version([1, 6, 1, 120]))
    );
    assert!(error.to_string().contains("make shim"), "{error}");
}

#[test]
fn a_missing_tensorrt_is_a_message_with_the_places_and_a_library_that_is_none_too() {
    for file in ["libnone.so", "/usr/lib/x86_64-linux-gnu/libm.so.6"] {
        let search = Search {
            shim: Some(tools::tensorrt()),
            tensorrt: Some(PathBuf::from(file)),
        };
        let error = load(&search).unwrap_err();
        assert!(matches!(error, TensorRtError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(file), "{error}");
    }
}
