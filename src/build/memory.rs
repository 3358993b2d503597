//! What a build needs before it starts, and what this process held while it ran.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::engine::{Format, build_bytes};
use crate::hardware::Bytes;

/// How often it is looked: short beside the phases of a build.
const INTERVAL: Duration = Duration::from_millis(50);
/// Plan, manifest and the rest beside the weights.
const DISK_MARGIN: u64 = 64 << 20;

/// Memory that may be taken and disk that is free, before a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory; `None`: not known.
    pub memory: Option<u64>,
    /// Most memory that the spec allows.
    pub limit: Option<u64>,
    /// Bytes of disk where the bundle shall be; `None`: not known.
    pub disk: Option<u64>,
}

/// Why a build would fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// Too little memory.
    #[error(
        "the build needs about {needed} of memory ({weights} of weights), but {available} are {whose}: \
         stop what else runs here, use fewer bits, or build on a machine with more memory"
    )]
    Memory {
        /// At its peak.
        needed: Bytes,
        /// Of the network.
        weights: Bytes,
        /// What there is.
        available: Bytes,
        /// `left here` or `allowed by engine.build.memoryLimit`.
        whose: &'static str,
    },
    /// Too little disk.
    #[error(
        "the build needs {needed} of disk in {place} (weights once for the time of the build, and the \
         plan), but {available} are free: free some space there, or choose another directory with --out"
    )]
    Disk {
        /// While it runs.
        needed: Bytes,
        /// Where.
        place: String,
        /// What there is.
        available: Bytes,
    },
}

/// Checks that a network with `weights` bytes can be built in `room`.
///
/// # Errors
/// What is too little, with the numbers.
pub fn check_room(
    weights: u64,
    format: Format,
    room: &Room,
    place: &Path,
) -> Result<(), RoomError> {
    let needed = build_bytes(weights, format);
    for (available, whose) in [
        (room.limit, "allowed by engine.build.memoryLimit"),
        (room.memory, "left here"),
    ] {
        if let Some(available) = available.filter(|available| *available < needed) {
            return Err(RoomError::Memory {
                needed: Bytes(needed),
                weights: Bytes(weights),
                available: Bytes(available),
                whose,
            });
        }
    }
    let needed = weights.saturating_mul(2).saturating_add(DISK_MARGIN);
    match room.disk {
        Some(available) if available < needed => Err(RoomError::Disk {
            needed: Bytes(needed),
            place: place.display().to_string(),
            available: Bytes(available),
        }),
        _ => Ok(()),
    }
}

/// Free bytes of the disk that `folder` is on, for this user.
pub fn free_disk(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// The most memory that this process held, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// All resident pages.
    pub resident: u64,
    /// Those that no file backs: they cannot be given back.
    pub anonymous: u64,
}

/// Runs `work` while a thread looks at this process's memory and calls `each_time`.
pub(super) fn watched<T>(each_time: &(dyn Fn() + Sync), work: impl FnOnce() -> T) -> (T, Peak) {
    let (resident, anonymous) = (AtomicU64::new(0), AtomicU64::new(0));
    let look = || {
        if let Some((all, own)) = held() {
            resident.fetch_max(all, Ordering::Relaxed);
            anonymous.fetch_max(own, Ordering::Relaxed);
        }
    };
    let result = std::thread::scope(|scope| {
        let (over, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = waiting.recv_timeout(INTERVAL) {
                look();
                each_time();
            }
        });
        let result = work();
        drop(over);
        result
    });
    let peak = Peak {
        resident: resident.load(Ordering::Relaxed),
        anonymous: anonymous.load(Ordering::Relaxed),
    };
    (result, peak)
}

/// Resident and anonymous bytes of this process.
fn held() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some((field(&status, "VmRSS:")?, field(&status, "RssAnon:")?))
}

/// A line of `/proc/PID/status`, kibibytes.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        memory: Some(8 << 30),
        limit: None,
        disk: Some(8 << 30),
    };

    #[test]
    fn a_build_that_cannot_work_is_refused_with_the_numbers() {
        let weights = 1 << 30;
        check_room(weights, Format::Fp16, &ROOM, Path::new("/x")).unwrap();
        let small = Room {
            memory: Some(1 << 30),
            ..ROOM
        };
        let text = check_room(weights, Format::Fp16, &small, Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("1.00 GiB of weights"), "{text}");
        assert!(text.contains("1.00 GiB are left here"), "{text}");
        let limited = Room {
            limit: Some(1 << 30),
            ..ROOM
        };
        let text = check_room(weights, Format::Fp16, &limited, Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("engine.build.memoryLimit"), "{text}");
        let full = Room {
            disk: Some(2 << 30),
            ..ROOM
        };
        let text = check_room(weights, Format::Fp16, &full, Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("2.06 GiB of disk in /x"), "{text}");
    }

    #[test]
    fn what_is_not_known_does_not_refuse() {
        let unknown = Room {
            memory: None,
            limit: None,
            disk: None,
        };
        check_room(u64::MAX / 8, Format::Int4, &unknown, Path::new("/x")).unwrap();
    }

    #[test]
    fn the_peak_is_seen_also_when_it_is_over() {
        let size = 64 << 20;
        let ((), peak) = watched(&|| {}, || {
            let block = std::hint::black_box(vec![1_u8; size]);
            let start = std::time::Instant::now();
            while start.elapsed() < INTERVAL * 4 {
                std::hint::black_box(&block);
            }
        });
        assert!(peak.anonymous >= size as u64, "{peak:?}");
        assert!(peak.resident >= peak.anonymous, "{peak:?}");
    }

    #[test]
    fn the_kernels_table_is_read() {
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t    1024 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(2 << 20));
        assert_eq!(field(status, "RssAnon:"), Some(1 << 20));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
