//! Which machine this is and what fits into it. Pure, but for `probe`, its only I/O.
//!
//! [`Hardware`] is what a probe finds and what a recorded machine (a YAML file) holds. What
//! follows from it (bandwidth, compute capability, how much memory is left) is computed, not
//! recorded, so that a better table improves old recordings too.

use serde::{Deserialize, Serialize};

mod bytes;
pub mod jetson;
pub mod parse;
pub mod probe;

pub use bytes::Bytes;
pub use jetson::{Jetson, L4t, Module, PowerMode};

/// CUDA compute capability, for example 8.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sm {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
}

impl Sm {
    /// Compute capability `major.minor`.
    pub const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }
}

impl std::fmt::Display for Sm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for Sm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self::new(major.parse().ok()?, minor.parse().ok()?)));
        parsed.ok_or_else(|| format!("`{text}` is no compute capability: write it as \"8.7\""))
    }
}

impl Serialize for Sm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A machine, as far as it matters for serving a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hardware {
    /// What the machine calls itself.
    pub machine: String,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// The GPU that would be used; a Jetson's is unified with main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Set on a Jetson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetson: Option<Jetson>,
    /// Libraries and runtimes.
    #[serde(default)]
    pub software: Software,
    /// What could not be read, and what is missing because of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu {
    /// Model name; empty where the kernel does not say.
    #[serde(default)]
    pub model: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// Logical processors that this process may use.
    pub cores: u32,
}

/// Main memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Memory {
    /// What the kernel manages (`MemTotal`), or the container's limit where that is lower.
    pub total: Bytes,
    /// What could be had without swapping (`MemAvailable`), when it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Bytes>,
    /// Swap, zram included. Never counts for a GPU: its memory is pinned.
    #[serde(default)]
    pub swap: Bytes,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Compute capability, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm: Option<Sm>,
    /// Memory of its own; absent when it shares main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Free memory of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Bytes>,
}

/// Libraries and runtimes that are installed; absent when not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Software {
    /// CUDA toolkit, for example `12.6.68`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
    /// TensorRT to the build number, for example `10.3.0.30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorrt: Option<String>,
    /// NVIDIA driver, where NVML tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether `nvidia-container-runtime` is where k3s looks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<bool>,
    /// Whether k3s is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k3s: Option<bool>,
}

/// What an engine was built for, besides versions: an engine for one runs on no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Platform {
    /// Jetson Linux on `aarch64`.
    L4t,
    /// Linux on `x86_64` with a discrete GPU.
    X86,
}

impl Hardware {
    /// Compute capability: the GPU's own word, else the module's.
    pub fn sm(&self) -> Option<Sm> {
        let told = self.gpu.as_ref().and_then(|gpu| gpu.sm);
        told.or_else(|| self.jetson.as_ref().and_then(Jetson::sm))
    }

    /// Platform of engines; `None` without a GPU.
    pub fn platform(&self) -> Option<Platform> {
        match (&self.jetson, &self.gpu) {
            (Some(_), _) => Some(Platform::L4t),
            (None, Some(_)) => Some(Platform::X86),
            (None, None) => None,
        }
    }

    /// Bytes per second between GPU and memory in the present power mode, where a table has it.
    pub fn gpu_bandwidth(&self) -> Option<f64> {
        self.jetson.as_ref().and_then(Jetson::bandwidth)
    }

    /// Dense 16-bit floating-point operations per second in the present power mode.
    pub fn gpu_flops(&self) -> Option<f64> {
        self.jetson.as_ref().and_then(Jetson::flops)
    }

    /// One line for people: `Jetson Orin NX 16GB, SM 8.7, JetPack 6.2 (L4T 36.4.3)`.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(jetson) = &self.jetson {
            parts.push(jetson.module.map_or_else(
                || format!("unknown Jetson ({})", self.machine),
                |module| format!("Jetson {}", module.spec().name),
            ));
        } else {
            parts.push(self.machine.clone());
            let name = self.gpu.as_ref().map(|gpu| gpu.name.clone());
            parts.push(name.unwrap_or_else(|| "no NVIDIA GPU".to_owned()));
        }
        parts.extend(self.sm().map(|sm| format!("SM {sm}")));
        if let Some(l4t) = self.jetson.as_ref().and_then(|jetson| jetson.l4t) {
            let jetpack = l4t.jetpack().unwrap_or("unknown JetPack");
            parts.push(format!("{jetpack} (L4T {l4t})"));
        }
        parts.push(format!("{} cores", self.cpu.cores));
        parts.push(format!("{} memory", self.memory.total));
        parts.retain(|part| !part.is_empty());
        parts.join(", ")
    }
}
