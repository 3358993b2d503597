//! A real Kubernetes for tests. Two forms:
//!
//! - [`ControlPlane`]: etcd and kube-apiserver, and on demand the controller manager (garbage
//!   collection, namespaces, Deployments). Runs as any user; one is shared by all tests of a process,
//!   each test works in a namespace of its own.
//! - [`Node`]: a whole node with kubelet, containerd, network, storage, runtime class `nvidia` and an
//!   OCI registry. Needs root.
//!
//! The components are built by `scripts/tools cluster` (`cluster node` for a whole node); `KUBEBUILDER_ASSETS` is used where set. A
//! cluster that exists is used only where the user named it *for tests*: `ENGINEWRIGHT_TEST_KUBECONFIG`,
//! or `USE_EXISTING_CLUSTER=true` with `KUBECONFIG`. A bare `KUBECONFIG` is somebody's production.
//!
//! Nothing outlives the test process, however it ends (`janitor`).
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses the helpers it needs; together they need all"
)]

mod control_plane;
mod image;
mod janitor;
mod keys;
mod kstatus;
mod node;
mod node_files;
mod parts;

pub use control_plane::ControlPlane;
pub use image::Image;
pub use kstatus::{Kstatus, kstatus};
pub use node::{ADDRESS, NODE, Node, enginewright, ollama};
pub use parts::program;
