//! Where the programs of the cluster are.

use std::path::PathBuf;

use crate::tools;

/// A program: a component of Kubernetes, `etcd`, `kubectl`, `kstatus`.
///
/// From `KUBEBUILDER_ASSETS` where that is set and has it, else from `scripts/tools cluster`.
pub fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
        let given = PathBuf::from(folder).join(name);
        if given.exists() {
            return given;
        }
    }
    let built = tools::directory().join("cluster/bin").join(name);
    assert!(
        built.exists(),
        "{} is missing: run `scripts/tools cluster` first",
        built.display()
    );
    built
}

/// The folder with all programs of a whole node; those of `KUBEBUILDER_ASSETS` are too few for one.
pub fn folder_of_programs() -> PathBuf {
    let folder = tools::directory().join("cluster/bin");
    for name in ["kubelet", "registry", "local-path-provisioner"] {
        assert!(
            folder.join(name).exists(),
            "{} is missing: run `scripts/tools cluster node` first",
            folder.join(name).display()
        );
    }
    folder
}
