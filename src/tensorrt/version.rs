//! Which TensorRT. Pure.

use serde::{Deserialize, Serialize};

/// A TensorRT to the build number: `10.3.0.26`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub [u32; 4]);

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self([major, minor, patch, build]) = self;
        write!(formatter, "{major}.{minor}.{patch}.{build}")
    }
}

/// The two products with this interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flavour {
    /// TensorRT, as in `JetPack`: kernels are chosen by measuring on the device.
    #[serde(rename = "TensorRT")]
    Enterprise,
    /// TensorRT-RTX: plans are made without a GPU, kernels are compiled where the plan runs.
    #[serde(rename = "TensorRT-RTX")]
    Rtx,
}

impl Flavour {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enterprise => "TensorRT",
            Self::Rtx => "TensorRT-RTX",
        }
    }

    /// File name of the library, as the dynamic linker knows it.
    pub fn library(self) -> &'static str {
        match self {
            Self::Enterprise => "libnvinfer.so.10",
            Self::Rtx => "libtensorrt_rtx.so.1",
        }
    }

    /// The version as an engine's key has it: two products may come to the same number.
    pub fn in_key(self, version: Version) -> String {
        match self {
            Self::Enterprise => version.to_string(),
            Self::Rtx => format!("rtx-{version}"),
        }
    }
}

/// What one TensorRT can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent features of a library"
)]
pub struct Capabilities {
    /// KV-cache update, attention and rotary embedding as layers (TensorRT 10.15, RTX).
    pub llm_layers: bool,
    /// The plan is written in pieces while it is made (TensorRT 10.13, RTX).
    pub stream_writer: bool,
    /// What was measured in one build helps the next (TensorRT).
    pub timing_cache: bool,
    /// Kernels compiled on the device can be kept (RTX).
    pub runtime_cache: bool,
    /// Engines can be built for a named compute capability and without a GPU (RTX).
    pub targets: bool,
}

impl Capabilities {
    /// From the bits of the shim's `EW_HAS_*`.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self {
            llm_layers: bits & 1 != 0,
            stream_writer: bits & 2 != 0,
            timing_cache: bits & 4 != 0,
            runtime_cache: bits & 8 != 0,
            targets: bits & 16 != 0,
        }
    }
}
