//! What Flux, kpt and `helm --wait` would say of an object: the real kstatus library.

use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::parts::program;

/// What the library says of one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Kstatus {
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// `Current`, `InProgress`, `Failed`, `Terminating`, `NotFound` or `Unknown`.
    pub status: String,
    /// Why.
    pub message: String,
}

/// Evaluates objects, in their order.
pub fn kstatus(objects: &[serde_json::Value]) -> Vec<Kstatus> {
    let mut child = Command::new(program("kstatus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kstatus starts");
    let mut input = child.stdin.take().expect("a pipe");
    for object in objects {
        writeln!(input, "{object}").expect("kstatus reads all objects");
    }
    drop(input);
    let output = child.wait_with_output().expect("kstatus ends");
    assert!(output.status.success(), "kstatus failed: {output:?}");
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("kstatus writes JSON")
}
