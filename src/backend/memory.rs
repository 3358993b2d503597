//! How much memory this process may still take, and whether a model fits into it: asked before
//! llama.cpp allocates, which ends the process (or has it killed) when there is not enough.

use std::path::Path;

const MIB: u64 = 1 << 20;

/// Left to the rest of the machine.
const RESERVE: u64 = 64 * MIB;

/// What a model needs on this device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Weights that are not mapped from the file, or must be resident to be of use.
    pub weights: u64,
    /// Keys and values of all slots.
    pub kv_cache: u64,
    /// Slots.
    pub slots: u32,
    /// Tokens per slot.
    pub context_tokens: u32,
    /// Activations and logits of one batch.
    pub compute: u64,
}

impl Need {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.weights
            .saturating_add(self.kv_cache)
            .saturating_add(self.compute)
    }

    /// Checks the need against what is there.
    ///
    /// # Errors
    /// The arithmetic, and what to change.
    pub fn check(&self, available: u64) -> Result<(), String> {
        let usable = available.saturating_sub(RESERVE);
        if self.total() <= usable {
            return Ok(());
        }
        let fixed = self.weights.saturating_add(self.compute);
        let per_token = self.kv_cache
            / u64::from(self.slots)
                .saturating_mul(u64::from(self.context_tokens))
                .max(1);
        let tokens = usable.saturating_sub(fixed) / per_token.max(1);
        let remedy = if tokens >= 256 {
            format!(
                "slots × context tokens must be at most {tokens}: lower one of them, or free memory"
            )
        } else {
            "even an empty context does not fit: use a smaller model, or free memory".to_owned()
        };
        Err(format!(
            "not enough memory: weights {} MiB + KV cache {} MiB ({} slots × {} tokens) + compute \
             {} MiB = {} MiB, but {} MiB are available; {remedy}",
            self.weights.div_ceil(MIB),
            self.kv_cache.div_ceil(MIB),
            self.slots,
            self.context_tokens,
            self.compute.div_ceil(MIB),
            self.total().div_ceil(MIB),
            usable / MIB,
        ))
    }
}

/// Bytes that can be allocated without swapping or breaking the control group's limit; `None` when
/// the system does not say.
pub fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| meminfo_available(&text));
    let group = group_available(Path::new("/sys/fs/cgroup"));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    }
}

/// `MemAvailable` in bytes.
fn meminfo_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// What the control group mounted at `root` leaves, version 2 or 1. A container sees its own group
/// there. Page cache counts as used in both, so the file pages that can be dropped are added back.
fn group_available(root: &Path) -> Option<u64> {
    let v2 = (
        root.join("memory.max"),
        root.join("memory.current"),
        root.join("memory.stat"),
    );
    let v1 = root.join("memory");
    let v1 = (
        v1.join("memory.limit_in_bytes"),
        v1.join("memory.usage_in_bytes"),
        v1.join("memory.stat"),
    );
    [v2, v1].into_iter().find_map(|(limit, used, stat)| {
        let number = |path| read(path)?.trim().parse::<u64>().ok();
        let droppable = read(stat).map_or(0, |stat| stat_file_bytes(&stat));
        Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(droppable)))
    })
}

fn stat_file_bytes(stat: &str) -> u64 {
    let value = |key: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    value("inactive_file ").unwrap_or(0) + value("active_file ").unwrap_or(0)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Processors this process may keep busy: those it is bound to, or the quota of its control group
/// where that is less.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Threads for llama.cpp: as many as are asked for, but never more than may run at the same time.
/// They wait for each other by spinning, so that one more than there are processors, or than a
/// container's limit lets run, costs not a share of the speed but most of it.
pub fn threads(asked: Option<u32>) -> u32 {
    let most = u32::try_from(processors()).unwrap_or(u32::MAX);
    asked.map_or_else(physical_cores, |asked| asked.clamp(1, most))
}

/// Physical cores this process may use: what llama.cpp is fastest with. Hyper-threads of one core
/// share the units that a matrix product needs.
pub fn physical_cores() -> u32 {
    let allowed = processors();
    let siblings = (0..4_096).map_while(|cpu| {
        read(format!(
            "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        ))
    });
    let cores = siblings.collect::<std::collections::BTreeSet<_>>().len();
    let cores = if cores == 0 {
        allowed
    } else {
        cores.min(allowed)
    };
    u32::try_from(cores).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need {
        weights: 1_000 * MIB,
        kv_cache: 4_096 * MIB,
        slots: 4,
        context_tokens: 8_192,
        compute: 100 * MIB,
    };

    #[test]
    fn what_fits_is_let_through_with_a_reserve() {
        assert_eq!(NEED.check(5_196 * MIB + RESERVE), Ok(()));
        assert!(NEED.check(5_196 * MIB + RESERVE - 1).is_err());
    }

    #[test]
    fn a_refusal_shows_the_arithmetic_and_the_largest_context_that_fits() {
        let error = NEED.check(3_148 * MIB + RESERVE).unwrap_err();
        for part in [
            "1000 MiB",
            "4096 MiB",
            "4 slots × 8192 tokens",
            "5196 MiB",
            "3148 MiB",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(error.contains("at most 16384"), "{error}");
    }

    #[test]
    fn a_model_too_large_by_itself_is_not_blamed_on_the_context() {
        let error = NEED.check(500 * MIB).unwrap_err();
        assert!(error.contains("use a smaller model"), "{error}");
    }

    #[test]
    fn available_memory_is_read_from_meminfo_and_the_control_group() {
        let text = "MemTotal:  100 kB\nMemAvailable:   2048 kB\nSwapFree: 1 kB\n";
        assert_eq!(meminfo_available(text), Some(2 * MIB));
        assert_eq!(meminfo_available("MemTotal: 1 kB"), None);

        let root = tempfile::tempdir().unwrap();
        assert_eq!(group_available(root.path()), None);
        let write =
            |name: &str, value: &str| std::fs::write(root.path().join(name), value).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(group_available(root.path()), None);
        write("memory.max", "1000\n");
        write(
            "memory.stat",
            "anon 300\nactive_file 100\ninactive_file 200\n",
        );
        assert_eq!(group_available(root.path()), Some(700));
    }

    #[test]
    fn this_machine_has_memory_and_cores() {
        assert!(available().is_some_and(|bytes| bytes > 0));
        assert!(physical_cores() >= 1);
    }

    #[test]
    fn never_more_threads_than_processors_are_kept_busy() {
        let most = u32::try_from(processors()).unwrap();
        assert_eq!(threads(Some(most + 5)), most);
        assert_eq!((threads(Some(0)), threads(Some(1))), (1, 1));
        assert_eq!(threads(None), physical_cores());
    }
}
