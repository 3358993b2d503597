//! Whether the machine holds back its speed now: the kernel's cooling devices say so, on a Jetson as
//! on a PC.

use std::path::Path;

/// Types of cooling devices that slow a processor down (a fan does not).
const SLOWING: [&str; 5] = ["cpufreq", "processor", "devfreq", "gpu", "cpu"];

/// Whether a cooling device of this machine slows a processor down now.
pub fn is_throttled() -> bool {
    is_throttled_at(Path::new("/sys/class/thermal"))
}

fn is_throttled_at(folder: &Path) -> bool {
    let devices = std::fs::read_dir(folder).into_iter().flatten().flatten();
    devices
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("cooling_device"))
        })
        .any(|device| slows(&device))
}

fn slows(device: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(device.join(name)).unwrap_or_default();
    let kind = read("type").to_lowercase();
    let state: i64 = read("cur_state").trim().parse().unwrap_or(0);
    state > 0 && SLOWING.iter().any(|slowing| kind.contains(slowing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(devices: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, (kind, state)) in devices.iter().enumerate() {
            let device = folder.path().join(format!("cooling_device{number}"));
            std::fs::create_dir(&device).unwrap();
            std::fs::write(device.join("type"), format!("{kind}\n")).unwrap();
            std::fs::write(device.join("cur_state"), format!("{state}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn a_processor_held_back_is_throttling_and_a_turning_fan_is_not() {
        for (devices, expected) in [
            (vec![("cpufreq-cpu0", "0"), ("pwm-fan", "3")], false),
            (vec![("cpufreq-cpu0", "2")], true),
            (vec![("17000000.gpu", "1")], true),
            (vec![("Processor", "1")], true),
            (vec![("Processor", "unknown")], false),
            (vec![], false),
        ] {
            assert_eq!(
                is_throttled_at(machine(&devices).path()),
                expected,
                "{devices:?}"
            );
        }
        assert!(!is_throttled_at(Path::new("/no/such/folder")));
    }
}
