//! Why TensorRT cannot be had, or what it refused.

use std::path::PathBuf;

use super::{Flavour, Version};

/// Why a call to TensorRT, or to the shim in front of it, did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum TensorRtError {
    /// There is no shim.
    #[error(
        "libenginewright_trt.so was not found in {tried}: it belongs beside the program; make it \
         with `make shim` on a machine that has TensorRT's headers, or say where it is with --shim"
    )]
    NoShim {
        /// Where it was looked for.
        tried: String,
    },
    /// What was found is not the shim, or of another version of this program.
    #[error(
        "{} is not the shim of this program ({why}): make it again with `make shim`", .path.display()
    )]
    WrongShim {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no TensorRT.
    #[error(
        "{} was not found in {tried}: {}", .flavour.library(), remedy(*.flavour)
    )]
    NotFound {
        /// Which product the shim is for.
        flavour: Flavour,
        /// Where it was looked for, with what the dynamic linker said.
        tried: String,
    },
    /// TensorRT is another than the one the shim was compiled for.
    #[error(
        "{path} is {found}, but the shim was compiled for {expected}: TensorRT's interface differs \
         between builds, so this is refused; make the shim again with the headers of {found} \
         (`make shim`)"
    )]
    WrongVersion {
        /// The library.
        path: String,
        /// Its version.
        found: Version,
        /// The shim's.
        expected: Version,
    },
    /// The build was stopped through [`super::Progress::step`].
    #[error("the build was stopped")]
    Cancelled,
    /// This TensorRT has no such thing.
    #[error("{what} does not exist in this TensorRT: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// TensorRT's words.
        why: String,
    },
    /// TensorRT refused.
    #[error("{what}: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// TensorRT's words.
        why: String,
    },
    /// The plan, or what else TensorRT gave, could not be written.
    #[error("what TensorRT made could not be written: {0}")]
    Write(#[source] std::io::Error),
    /// No memory is left.
    #[error("{what}: no memory is left: stop what else runs here, or use a smaller model")]
    Memory {
        /// What was asked for.
        what: String,
    },
    /// A plan has not the digest that its manifest states.
    #[error(
        "the engine's plan has the digest {found}, its manifest states {stated}: build it again"
    )]
    Untrusted {
        /// Digest of the bytes.
        found: String,
        /// What the manifest says.
        stated: String,
    },
    /// A file cannot be mapped into memory.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn remedy(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Enterprise => {
            "on a Jetson, JetPack has it in /usr/lib/aarch64-linux-gnu (package libnvinfer10; in a \
             container, the nvidia runtime brings it); elsewhere say where it is with --tensorrt"
        }
        Flavour::Rtx => {
            "`scripts/tools trt` lays it into .tools/trt; or say where it is with --tensorrt"
        }
    }
}
