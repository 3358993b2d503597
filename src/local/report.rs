//! The report of `run`: what `kubectl get` and `kubectl describe` would say, in a file that
//! `enginewright status` reads.
//!
//! Written only when it changes; holds no value that changes by itself.

use serde::{Deserialize, Serialize};

use crate::api::InferenceEngineStatus;

/// Name of the file in the state directory.
pub const FILE: &str = "status.json";

/// The report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the resource.
    pub name: String,
    /// The YAML file.
    pub file: String,
    /// Where the model comes from.
    pub source: String,
    /// Process id of `run`.
    pub pid: u32,
    /// What `status` of the resource would be in a cluster.
    pub status: InferenceEngineStatus,
    /// The processes.
    pub processes: Vec<Process>,
    /// Why the file as it is now is not acted on; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_problem: Option<String>,
    /// Why nothing can be persisted now; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_problem: Option<String>,
}

/// A process of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// `gateway`, `engine` or `ollama`.
    pub role: String,
    /// What it is up to: `Starting`, `Ready`, …
    pub state: String,
    /// Process id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Why it does not run, where it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
