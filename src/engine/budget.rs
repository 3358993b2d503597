//! How much memory a machine has left for engines, builds and the fallback together.

use serde::Serialize;

use super::{Line, sum};
use crate::hardware::{Bytes, Hardware};

const MIB: u64 = 1 << 20;

/// Jetson Linux without a desktop: kernel, services, container runtime (a desktop takes about
/// 865 MB more, which a live probe sees in `MemAvailable`).
const JETSON_SYSTEM: u64 = 1024 * MIB;
/// Another Linux, where nothing was measured.
const OTHER_SYSTEM: u64 = 1024 * MIB;
/// k3s server with its database, containerd, name service, metrics and ingress.
const K3S: u64 = 800 * MIB;
/// Operator, agent and gateway.
const OURS: u64 = 128 * MIB;
/// The contiguous memory area (256 MiB) and fragmentation: L4T fails large allocations well before
/// the last page is used.
const JETSON_MARGIN: u64 = 512 * MIB;
const OTHER_MARGIN: u64 = 256 * MIB;

/// What a machine has, what others hold, and what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Whose memory is counted: `unified`, `gpu` or `main`.
    pub memory: &'static str,
    /// All of it.
    pub total: Bytes,
    /// What others hold or what is kept free.
    pub held: Vec<Line>,
    /// What engines, builds and the fallback may use together.
    pub left: Bytes,
}

/// Counts the memory of `hardware`: the GPU's own where `on_gpu` and it has some, else main memory.
/// Swap never counts: GPU memory is pinned, and a swapping CPU back end is no use.
pub fn budget(hardware: &Hardware, on_gpu: bool) -> Budget {
    if let Some(memory) = hardware.gpu.as_ref().and_then(|gpu| gpu.memory)
        && on_gpu
    {
        let free = hardware.gpu.as_ref().and_then(|gpu| gpu.free);
        return discrete(memory, free);
    }
    let jetson = hardware.jetson.is_some();
    let total = hardware.memory.total;
    let mut held = Vec::new();
    let system = if jetson { JETSON_SYSTEM } else { OTHER_SYSTEM };
    let k3s = hardware.software.k3s == Some(true);
    let expected = system + if k3s { K3S } else { 0 };
    let measured = hardware
        .memory
        .available
        .map(|available| total.0.saturating_sub(available.0));
    match measured {
        Some(in_use) if in_use >= expected || !jetson => held.push(Line::new(
            "in use now",
            in_use,
            "MemTotal - MemAvailable, as measured",
        )),
        _ => {
            let how = if jetson {
                "Jetson Linux without a desktop, estimated"
            } else {
                "Linux, estimated"
            };
            held.push(Line::new("operating system", system, how));
            if k3s {
                held.push(Line::new("k3s", K3S, "server and its add-ons, estimated"));
            }
        }
    }
    held.push(Line::new("operator, agent, gateway", OURS, "upper bound"));
    if jetson {
        let how = "contiguous area of 256 MiB and fragmentation";
        held.push(Line::new("kept free", JETSON_MARGIN, how));
    } else {
        held.push(Line::new("kept free", OTHER_MARGIN, "safety margin"));
    }
    let memory = if jetson { "unified" } else { "main" };
    finish(memory, total, held)
}

fn discrete(total: Bytes, free: Option<Bytes>) -> Budget {
    let in_use = free.map_or(0, |free| total.0.saturating_sub(free.0));
    let held = vec![
        Line::new("in use now", in_use, "as NVML says"),
        Line::new("kept free", OTHER_MARGIN, "safety margin"),
    ];
    finish("gpu", total, held)
}

fn finish(memory: &'static str, total: Bytes, held: Vec<Line>) -> Budget {
    let left = Bytes(total.0.saturating_sub(sum(&held)));
    Budget {
        memory,
        total,
        held,
        left,
    }
}
