//! Numbers about rows of logits, and about this process.

use std::collections::BTreeMap;
use std::time::Duration;

/// ‖a − b‖ ÷ ‖b‖.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = a.iter().zip(b);
    let difference: f64 = pairs
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// The largest logit's token; the first of equals.
pub fn best(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    u32::try_from(best).unwrap_or(0)
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resident memory of this process in bytes.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Resident memory by what it is: bytes of `(anonymous, of files, shared)`.
pub fn resident_parts() -> (u64, u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    (field("RssAnon:"), field("RssFile:"), field("RssShmem:"))
}

/// Resident bytes by the name of the mapping, the empty name for anonymous ones, with their number.
pub fn maps() -> BTreeMap<String, (u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut maps: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if first == "Rss:" {
            let kib = words.next().and_then(|word| word.parse::<u64>().ok());
            let entry = maps.entry(name.clone()).or_default();
            entry.0 += kib.unwrap_or(0) << 10;
            entry.1 += 1;
        } else if !first.ends_with(':') {
            // Address, rights, offset, device, inode, name.
            words.nth(4).unwrap_or_default().clone_into(&mut name);
        }
    }
    maps
}

/// Processor time of this process, all its threads that still run.
pub fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let nanoseconds = tasks.flatten().map(|task| {
        let spent = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let spent = spent
            .split(' ')
            .next()
            .and_then(|spent| spent.parse::<u64>().ok());
        spent.unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}
