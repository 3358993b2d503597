//! Jetson modules: how they are told apart, and what their data sheets say.
//!
//! Sources: NVIDIA's module data sheets for memory, bandwidth and clocks; the device tree's part
//! numbers as used by `jetson_stats`; `JetPack` releases from NVIDIA's archive.

use serde::{Deserialize, Serialize};

use super::{Bytes, Sm};

/// Modules that are known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Module {
    /// Orin Nano 4 GB.
    OrinNano4,
    /// Orin Nano 8 GB, also the developer kit ("Super").
    OrinNano8,
    /// Orin NX 8 GB.
    OrinNx8,
    /// Orin NX 16 GB.
    OrinNx16,
    /// AGX Orin 32 GB.
    AgxOrin32,
    /// AGX Orin 64 GB.
    AgxOrin64,
    /// Thor T4000 64 GB.
    ThorT4000,
    /// Thor T5000 128 GB.
    ThorT5000,
}

/// What a data sheet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Product name.
    pub name: &'static str,
    /// Part numbers in the device tree.
    pub parts: &'static [&'static str],
    /// Compute capability.
    pub sm: Sm,
    /// Soldered memory, nominal; the kernel manages somewhat less.
    pub memory: Bytes,
    /// Width of the memory bus.
    pub bus_bits: u32,
    /// Highest memory clock (LPDDR5: two transfers per cycle).
    pub memory_mhz: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Highest GPU clock in the fastest power mode.
    pub gpu_mhz: u32,
    /// Dense 16-bit operations per clock and multiprocessor; `None` where no source was found.
    pub flop_per_clock: Option<u32>,
}

/// What the modules of a family have in common.
const ORIN: ModuleSpec = ModuleSpec {
    name: "",
    parts: &[],
    sm: Sm::new(8, 7),
    memory: Bytes(0),
    bus_bits: 256,
    memory_mhz: 3200,
    multiprocessors: 0,
    gpu_mhz: 0,
    flop_per_clock: Some(2048),
};
const THOR: ModuleSpec = ModuleSpec {
    sm: Sm::new(11, 0),
    memory_mhz: 4266,
    flop_per_clock: None,
    ..ORIN
};

impl Module {
    /// All modules.
    pub const ALL: [Self; 8] = [
        Self::OrinNano4,
        Self::OrinNano8,
        Self::OrinNx8,
        Self::OrinNx16,
        Self::AgxOrin32,
        Self::AgxOrin64,
        Self::ThorT4000,
        Self::ThorT5000,
    ];

    /// The data sheet.
    #[rustfmt::skip]
    pub const fn spec(self) -> ModuleSpec {
        match self {
            Self::OrinNano4 => ModuleSpec { name: "Orin Nano 4GB", parts: &["p3767-0004"],
                memory: Bytes(4 << 30), bus_bits: 64, multiprocessors: 4, gpu_mhz: 1020, ..ORIN },
            Self::OrinNano8 => ModuleSpec { name: "Orin Nano 8GB", parts: &["p3767-0003", "p3767-0005"],
                memory: Bytes(8 << 30), bus_bits: 128, multiprocessors: 8, gpu_mhz: 1020, ..ORIN },
            Self::OrinNx8 => ModuleSpec { name: "Orin NX 8GB", parts: &["p3767-0001"],
                memory: Bytes(8 << 30), bus_bits: 128, multiprocessors: 8, gpu_mhz: 1173, ..ORIN },
            Self::OrinNx16 => ModuleSpec { name: "Orin NX 16GB", parts: &["p3767-0000"],
                memory: Bytes(16 << 30), bus_bits: 128, multiprocessors: 8, gpu_mhz: 1173, ..ORIN },
            Self::AgxOrin32 => ModuleSpec { name: "AGX Orin 32GB", parts: &["p3701-0000", "p3701-0004"],
                memory: Bytes(32 << 30), multiprocessors: 14, gpu_mhz: 930, ..ORIN },
            Self::AgxOrin64 => ModuleSpec { name: "AGX Orin 64GB", parts: &["p3701-0005", "p3701-0008"],
                memory: Bytes(64 << 30), multiprocessors: 16, gpu_mhz: 1300, ..ORIN },
            Self::ThorT4000 => ModuleSpec { name: "Thor T4000 64GB", parts: &["p3834-0000"],
                memory: Bytes(64 << 30), multiprocessors: 12, gpu_mhz: 1530, ..THOR },
            Self::ThorT5000 => ModuleSpec { name: "Thor T5000 128GB", parts: &["p3834-0008"],
                memory: Bytes(128 << 30), multiprocessors: 20, gpu_mhz: 1575, ..THOR },
        }
    }

    /// The module with `part` in its device tree, for example `p3767-0000`.
    pub fn from_part(part: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|module| module.spec().parts.contains(&part))
    }

    /// The module that a device tree's model string and the amount of memory suggest: for carrier
    /// boards whose makers changed the part number.
    pub fn from_model(model: &str, total: Bytes) -> Option<Self> {
        let lower = model.to_lowercase();
        let has = |word: &str| lower.contains(word);
        let gib = |least: u64| total >= Bytes(least << 30);
        if has("thor") {
            Some(if gib(80) {
                Self::ThorT5000
            } else {
                Self::ThorT4000
            })
        } else if has("agx orin") {
            Some(if gib(40) {
                Self::AgxOrin64
            } else {
                Self::AgxOrin32
            })
        } else if has("orin nx") {
            Some(if gib(10) {
                Self::OrinNx16
            } else {
                Self::OrinNx8
            })
        } else if has("orin nano") {
            Some(if gib(5) {
                Self::OrinNano8
            } else {
                Self::OrinNano4
            })
        } else {
            None
        }
    }
}

/// What makes a machine a Jetson.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jetson {
    /// The module; absent when it is none that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<Module>,
    /// Part number from the device tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// System on chip: `tegra234` (Orin), `tegra264` (Thor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soc: Option<String>,
    /// Jetson Linux release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l4t: Option<L4t>,
    /// Present power mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<PowerMode>,
}

impl Jetson {
    /// Compute capability of the module, else of the system on chip.
    pub fn sm(&self) -> Option<Sm> {
        match (self.module, self.soc.as_deref()) {
            (Some(module), _) => Some(module.spec().sm),
            (None, Some("tegra234")) => Some(ORIN.sm),
            (None, Some("tegra264")) => Some(THOR.sm),
            _ => None,
        }
    }

    /// Bytes per second in the present power mode; the fastest mode's where none is known.
    pub fn bandwidth(&self) -> Option<f64> {
        let spec = self.module?.spec();
        let cap = self.power_mode.as_ref().and_then(|mode| mode.memory_mhz);
        let mhz = cap.map_or(spec.memory_mhz, |cap| cap.min(spec.memory_mhz));
        Some(f64::from(spec.bus_bits) / 8.0 * 2.0 * f64::from(mhz) * 1e6)
    }

    /// Dense 16-bit operations per second in the present power mode.
    pub fn flops(&self) -> Option<f64> {
        let spec = self.module?.spec();
        let cap = self.power_mode.as_ref().and_then(|mode| mode.gpu_mhz);
        let mhz = cap.map_or(spec.gpu_mhz, |cap| cap.min(spec.gpu_mhz));
        let per_clock = f64::from(spec.flop_per_clock?) * f64::from(spec.multiprocessors);
        Some(per_clock * f64::from(mhz) * 1e6)
    }
}

/// A power mode of `nvpmodel`; absent limits are the hardware's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PowerMode {
    /// Number for `nvpmodel -m`.
    pub id: u32,
    /// Name, for example `MAXN_SUPER`.
    pub name: String,
    /// Cap of the GPU's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_mhz: Option<u32>,
    /// Cap of the memory's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mhz: Option<u32>,
}

/// Jetson Linux release, for example 36.4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct L4t {
    /// Release line: 36 (Ubuntu 22.04), 38 and 39 (Ubuntu 24.04).
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl L4t {
    /// `JetPack` that ships this release.
    pub fn jetpack(self) -> Option<&'static str> {
        Some(match (self.major, self.minor, self.patch) {
            (36, 3, _) => "JetPack 6.0",
            (36, 4, 0..=2) => "JetPack 6.1",
            (36, 4, 3) => "JetPack 6.2",
            (36, 4, _) => "JetPack 6.2.1",
            (36, 5, _) => "JetPack 6.2.2",
            (38, 2, _) => "JetPack 7.0",
            (38, 4, _) => "JetPack 7.1",
            (39, 2, 0) => "JetPack 7.2",
            (39, 2, _) => "JetPack 7.2.1",
            _ => return None,
        })
    }
}

impl std::fmt::Display for L4t {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl std::str::FromStr for L4t {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(str::parse::<u32>);
        let mut next = || parts.next()?.ok();
        let release = next().zip(next()).map(|(major, minor)| Self {
            major,
            minor,
            patch: next().unwrap_or(0),
        });
        release.ok_or_else(|| format!("`{text}` is no L4T release: write it as \"36.4.3\""))
    }
}

impl Serialize for L4t {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for L4t {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "shape of the table")]
    fn module(module: Module, power_mode: Option<PowerMode>) -> Option<Jetson> {
        Some(Jetson {
            module: Some(module),
            power_mode,
            ..Jetson::default()
        })
    }

    #[test]
    fn bandwidths_are_those_of_the_data_sheets() {
        for (kind, gigabytes) in [
            (Module::OrinNano8, 102.4),
            (Module::OrinNx16, 102.4),
            (Module::AgxOrin64, 204.8),
            (Module::ThorT5000, 273.0),
        ] {
            let found = module(kind, None)
                .and_then(|jetson| jetson.bandwidth())
                .unwrap()
                / 1e9;
            assert!((found - gigabytes).abs() < 0.1, "{kind:?}: {found}");
        }
    }

    #[test]
    fn a_power_mode_lowers_bandwidth_and_speed() {
        let mode = PowerMode {
            id: 1,
            name: "10W".to_owned(),
            gpu_mhz: Some(612),
            memory_mhz: Some(2133),
        };
        let jetson = module(Module::OrinNx16, Some(mode)).unwrap();
        assert!((jetson.bandwidth().unwrap() / 1e9 - 68.3).abs() < 0.1);
        assert!((jetson.flops().unwrap() / 1e12 - 10.0).abs() < 0.1);
    }

    #[test]
    fn a_carrier_board_with_its_own_part_number_is_known_by_model_and_memory() {
        let nx = "Seeed reComputer J4012 (Jetson Orin NX)";
        let mib = |mib: u64| Bytes(mib << 20);
        assert_eq!(Module::from_model(nx, mib(15_656)), Some(Module::OrinNx16));
        assert_eq!(Module::from_model(nx, mib(7_445)), Some(Module::OrinNx8));
        assert_eq!(Module::from_model("Raspberry Pi 5", mib(8_000)), None);
    }

    #[test]
    fn releases_of_jetson_linux_name_their_jetpack() {
        for (l4t, jetpack) in [
            ("36.4.3", Some("JetPack 6.2")),
            ("36.4.7", Some("JetPack 6.2.1")),
            ("39.2.0", Some("JetPack 7.2")),
            ("35.1", None),
        ] {
            assert_eq!(l4t.parse::<L4t>().unwrap().jetpack(), jetpack, "{l4t}");
        }
        assert!("36".parse::<L4t>().is_err());
    }
}
