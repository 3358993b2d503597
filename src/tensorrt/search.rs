//! Where the shim and TensorRT may lie. Reads the file system and the program's own path.

use std::path::{Path, PathBuf};

use super::{Library, TensorRtError};

/// Name of the shim.
const SHIM: &str = "libenginewright_trt.so";
/// Where packages put it.
const SYSTEM: &[&str] = &["/usr/lib/enginewright", "/usr/local/lib/enginewright"];
/// Where `JetPack`, NVIDIA's container images and Debian packages have TensorRT.
const TENSORRT: &[&str] = &[
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/tensorrt/lib",
    "/usr/local/lib",
];

/// Where to look; `None` looks in the usual places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The shim: a file, or a folder with `libenginewright_trt.so`.
    pub shim: Option<PathBuf>,
    /// TensorRT: a file, or a folder with it.
    pub tensorrt: Option<PathBuf>,
}

/// Finds and opens the shim and the TensorRT that it was compiled for.
///
/// # Errors
/// When one is missing or of another version, with where it was looked for.
pub fn load(search: &Search) -> Result<Library, TensorRtError> {
    let shim = shim(search.shim.as_deref())?;
    let folder = shim.parent().unwrap_or_else(|| Path::new("."));
    let opened = Library::open_shim(&shim)?;
    let flavour = opened.flavour();
    let candidates = match &search.tensorrt {
        Some(path) if path.is_dir() => vec![path.join(flavour.library())],
        Some(path) => vec![path.clone()],
        // The dynamic linker's own places come first, as everywhere else.
        None => std::iter::once(PathBuf::from(flavour.library()))
            .chain(
                std::iter::once(folder)
                    .chain(TENSORRT.iter().map(Path::new))
                    .map(|folder| folder.join(flavour.library()))
                    .filter(|path| path.exists()),
            )
            .collect(),
    };
    opened.open_tensorrt(&candidates)
}

/// Whether there is a shim to load: without one nothing of TensorRT can be used here. Loads nothing.
pub fn is_installed(search: &Search) -> bool {
    shim(search.shim.as_deref()).is_ok()
}

fn shim(asked: Option<&Path>) -> Result<PathBuf, TensorRtError> {
    let candidates: Vec<PathBuf> = match asked {
        Some(path) if path.is_dir() => vec![path.join(SHIM)],
        Some(path) => vec![path.to_owned()],
        None => {
            let beside = std::env::current_exe().ok();
            let beside = beside.as_deref().and_then(Path::parent).map(Path::to_owned);
            let folders = beside.into_iter().chain(SYSTEM.iter().map(PathBuf::from));
            folders.map(|folder| folder.join(SHIM)).collect()
        }
    };
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| TensorRtError::NoShim {
        tried: list(&candidates),
    })
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
