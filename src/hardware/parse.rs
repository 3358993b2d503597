//! What the files of a machine mean. Pure: text in, facts out; nothing is trusted to be there.

use super::{Bytes, L4t, PowerMode};

/// `/etc/nv_tegra_release`: `# R36 (release), REVISION: 4.3, GCID: …`.
pub fn nv_tegra_release(text: &str) -> Option<L4t> {
    let line = text.lines().find(|line| line.contains("REVISION"))?;
    let release = line.split_once('R')?.1;
    let major = release.split(|one: char| !one.is_ascii_digit()).next()?;
    let revision = line.split_once("REVISION:")?.1.split(',').next()?.trim();
    format!("{major}.{revision}").parse().ok()
}

/// A string property of the device tree: bytes up to the first NUL.
pub fn device_tree_string(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|&byte| byte == 0).next()?;
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The property `compatible`: part number of the module, and system on chip.
pub fn device_tree_compatible(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    let mut part = None;
    let mut soc = None;
    for entry in text.split('\0') {
        // "nvidia,p3768-0000+p3767-0000-super": the module stands after the carrier board.
        for word in entry.split(['+', ',']) {
            let known = word.get(..10).filter(|known| is_part(known));
            if let Some(known) = known
                && super::Module::from_part(known).is_some()
            {
                part.get_or_insert_with(|| known.to_owned());
            }
            if word.starts_with("tegra") {
                soc = Some(word.to_owned());
            }
        }
    }
    (part, soc)
}

/// `p3767-0000`
fn is_part(word: &str) -> bool {
    word.bytes().enumerate().all(|(at, byte)| match at {
        0 => byte == b'p',
        5 => byte == b'-',
        _ => byte.is_ascii_digit(),
    })
}

/// A line of `/proc/meminfo`: `MemTotal:  16032084 kB`.
pub fn meminfo(text: &str, field: &str) -> Option<Bytes> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kib.checked_mul(1024)?))
}

/// Model name and number of processors from `/proc/cpuinfo`.
pub fn cpuinfo(text: &str) -> (String, u32) {
    let value = |line: &str, name: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    let model = text
        .lines()
        .find_map(|line| value(line, "model name").or_else(|| value(line, "Model")))
        .unwrap_or_default();
    let cores = text
        .lines()
        .filter(|line| value(line, "processor").is_some())
        .count();
    (model, u32::try_from(cores).unwrap_or(u32::MAX))
}

/// Number of processors in a list like `0-3,6` (`Cpus_allowed_list` of `/proc/self/status`).
pub fn cpu_list(text: &str) -> Option<u32> {
    let mut count = 0_u32;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// `/var/lib/nvpmodel/status`: `pmode:0002`.
pub fn nvpmodel_status(text: &str) -> Option<u32> {
    text.trim().strip_prefix("pmode:")?.trim().parse().ok()
}

/// The mode `id` in `/etc/nvpmodel.conf`.
pub fn nvpmodel_conf(text: &str, id: u32) -> Option<PowerMode> {
    let mut mode: Option<PowerMode> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix("< POWER_MODEL ") {
            if mode.is_some() {
                break;
            }
            let field = |name: &str| {
                header
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            };
            if field("ID").and_then(|found| found.parse().ok()) == Some(id) {
                mode = Some(PowerMode {
                    id,
                    name: field("NAME").unwrap_or_default().to_owned(),
                    gpu_mhz: None,
                    memory_mhz: None,
                });
            }
        } else if line.starts_with('<') && mode.is_some() {
            break;
        } else if let Some(mode) = mode.as_mut() {
            let mhz = |text: &str| {
                // 0 and -1 mean: no limit.
                let hertz: u64 = text.trim().parse().ok()?;
                u32::try_from(hertz / 1_000_000).ok().filter(|&mhz| mhz > 0)
            };
            if let Some(text) = line.strip_prefix("GPU MAX_FREQ ") {
                mode.gpu_mhz = mhz(text);
            } else if let Some(text) = line.strip_prefix("EMC MAX_FREQ ") {
                mode.memory_mhz = mhz(text);
            }
        }
    }
    mode
}

/// `cuda.version` in `/usr/local/cuda/version.json`.
pub fn cuda_version(text: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let version = document.get("cuda")?.get("version")?.as_str()?;
    Some(version.to_owned())
}

/// Version of `package` in `/var/lib/dpkg/status`, up to the packaging's own suffix:
/// `10.3.0.30-1+cuda12.5` is `10.3.0.30`.
pub fn dpkg_version(text: &str, package: &str) -> Option<String> {
    let paragraph = text.split("\n\n").find(|paragraph| {
        let mut lines = paragraph.lines();
        lines.any(|line| line.strip_prefix("Package: ") == Some(package))
    })?;
    let installed = paragraph
        .lines()
        .any(|line| line.starts_with("Status: ") && line.ends_with(" installed"));
    let version = paragraph
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))?;
    let version = version.split(['-', '+']).next()?;
    (installed && !version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_line_becomes_a_version() {
        let line = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64";
        assert_eq!(nv_tegra_release(line).unwrap().to_string(), "36.4.3");
        let line = "# R39 (release), REVISION: 2.0, GCID: 1";
        assert_eq!(nv_tegra_release(line).unwrap().to_string(), "39.2.0");
        assert_eq!(nv_tegra_release("# Debian"), None);
    }

    #[test]
    fn the_module_is_found_behind_the_carrier_board() {
        let tree = b"nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234\0";
        let (part, soc) = device_tree_compatible(tree);
        assert_eq!(part.as_deref(), Some("p3767-0000"));
        assert_eq!(soc.as_deref(), Some("tegra234"));
        assert_eq!(device_tree_compatible(b"\xff\xfe,p37\0"), (None, None));
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let text = "MemTotal:       16032084 kB\nMemAvailable:   1 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(Bytes(16_032_084 * 1024)));
        assert_eq!(meminfo(text, "SwapTotal"), None);
    }

    #[test]
    fn processors_are_counted_as_allowed() {
        assert_eq!(cpu_list("0-3,6\n"), Some(5));
        assert_eq!(cpu_list("3-0"), None);
        let text = "processor\t: 0\nmodel name\t: ARMv8\nprocessor\t: 1\n";
        assert_eq!(cpuinfo(text), ("ARMv8".to_owned(), 2));
    }

    #[test]
    fn the_power_mode_comes_with_its_clock_caps() {
        let conf = "< POWER_MODEL ID=0 NAME=MAXN_SUPER >\nGPU MAX_FREQ -1\nEMC MAX_FREQ 0\n\
                    < POWER_MODEL ID=1 NAME=10W >\nGPU MAX_FREQ 612000000\nEMC MAX_FREQ \
                    2133000000\n< PM_CONFIG DEFAULT=2 >\nGPU MAX_FREQ 1000000\n";
        assert_eq!(nvpmodel_status("pmode:0001\n"), Some(1));
        let mode = nvpmodel_conf(conf, 1).unwrap();
        assert_eq!((mode.name.as_str(), mode.gpu_mhz), ("10W", Some(612)));
        assert_eq!(mode.memory_mhz, Some(2133));
        let mode = nvpmodel_conf(conf, 0).unwrap();
        assert_eq!((mode.gpu_mhz, mode.memory_mhz), (None, None));
        assert_eq!(nvpmodel_conf(conf, 7), None);
    }

    #[test]
    fn an_installed_package_tells_the_version_to_the_build() {
        let status = "Package: libnvinfer10\nStatus: install ok installed\nVersion: \
                      10.3.0.30-1+cuda12.5\n\nPackage: other\nStatus: deinstall ok \
                      config-files\nVersion: 1.0-1\n";
        assert_eq!(
            dpkg_version(status, "libnvinfer10").as_deref(),
            Some("10.3.0.30")
        );
        assert_eq!(dpkg_version(status, "other"), None);
        assert_eq!(dpkg_version(status, "libnvinfer"), None);
    }
}
