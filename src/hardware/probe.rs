//! Finds out which machine this is: the only I/O of this layer. What the files mean is `parse`'s.
//!
//! A probe never fails: what cannot be read is absent, and `Hardware::notes` says so where it
//! matters. The root folder is a parameter, so that recorded file trees can be probed too.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Bytes, Cpu, Gpu, Hardware, Jetson, Memory, Module, Sm, Software, parse};

/// No file that is read is longer; the package database of a Jetson has about 3 MB.
const MOST_BYTES: u64 = 32 << 20;

/// Probes this machine, NVML included.
pub fn probe() -> Hardware {
    let mut hardware = probe_files(Path::new("/"));
    match nvml() {
        Ok(Some((gpu, driver))) => {
            // A Jetson's own files know more than its NVML, which says "N/A" to most questions.
            if hardware.jetson.is_none() {
                hardware.gpu = Some(gpu);
            }
            hardware.software.driver = Some(driver);
        }
        Ok(None) => {}
        Err(problem) => hardware.notes.push(problem),
    }
    hardware
}

/// Probes the file tree under `root`: `/` for this machine, or a recording of another.
pub fn probe_files(root: &Path) -> Hardware {
    let tree = Tree { root };
    let mut hardware = Hardware {
        machine: tree.machine(),
        cpu: tree.cpu(),
        memory: tree.memory(),
        jetson: None,
        gpu: None,
        software: tree.software(),
        notes: Vec::new(),
    };
    if hardware.memory.total == Bytes(0) {
        hardware
            .notes
            .push("/proc/meminfo is not readable: the amount of memory is unknown".to_owned());
    }
    if let Some(jetson) = tree.jetson(&hardware) {
        if jetson.module.is_none() {
            hardware.notes.push(format!(
                "the module of `{}` is not known: its bandwidth and speed are unknown",
                hardware.machine
            ));
        }
        if jetson.l4t.is_none() {
            hardware.notes.push(
                "/etc/nv_tegra_release is not readable: mount it into the container, or the \
                 JetPack release stays unknown"
                    .to_owned(),
            );
        }
        hardware.gpu = Some(Gpu {
            name: "integrated".to_owned(),
            sm: jetson.sm(),
            memory: None,
            free: None,
        });
        hardware.jetson = Some(jetson);
    }
    hardware
}

struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Opens a path below the root as if the root were `/`: where a host is mounted into a
    /// container, its links (`/usr/local/cuda` is one, and absolute) lead through the host's tree.
    fn open(&self, path: &str, flags: OFlags) -> Option<File> {
        let flags = flags | OFlags::CLOEXEC;
        if self.root == Path::new("/") {
            return Some(rustix::fs::open(path, flags, Mode::empty()).ok()?.into());
        }
        let root = File::open(self.root).ok()?;
        let below = path.trim_start_matches('/');
        let opened = rustix::fs::openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        match opened {
            Ok(file) => Some(file.into()),
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let file = rustix::fs::open(self.path(path), flags, Mode::empty());
                Some(file.ok()?.into())
            }
            Err(_) => None,
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH).is_some()
    }

    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        // A pipe or device in a recording must not block the probe.
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut content = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut content).ok()?;
        Some(content)
    }

    fn text(&self, path: &str) -> Option<String> {
        self.bytes(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn device_tree(&self, property: &str) -> Option<Vec<u8>> {
        self.bytes(&format!("/proc/device-tree/{property}"))
            .or_else(|| self.bytes(&format!("/sys/firmware/devicetree/base/{property}")))
    }

    /// The board's name, the product's, or where a container hides both, the processor's.
    fn machine(&self) -> String {
        let processor = || {
            let (model, _) = parse::cpuinfo(&self.text("/proc/cpuinfo")?);
            (!model.is_empty()).then_some(model)
        };
        self.device_tree("model")
            .and_then(|bytes| parse::device_tree_string(&bytes))
            .or_else(|| self.text("/sys/class/dmi/id/product_name"))
            .or_else(processor)
            .map_or_else(
                || "unknown machine".to_owned(),
                |text| text.trim().to_owned(),
            )
    }

    fn cpu(&self) -> Cpu {
        let (model, listed) = parse::cpuinfo(&self.text("/proc/cpuinfo").unwrap_or_default());
        let allowed = self.text("/proc/self/status").and_then(|status| {
            let list = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            parse::cpu_list(list)
        });
        let architecture =
            if self.exists("/lib/aarch64-linux-gnu") || self.exists("/usr/lib/aarch64-linux-gnu") {
                "aarch64"
            } else if self.root == Path::new("/") {
                std::env::consts::ARCH
            } else {
                "x86_64"
            };
        Cpu {
            model,
            architecture: architecture.to_owned(),
            cores: allowed.map_or(listed, |allowed| allowed.min(listed.max(1))),
        }
    }

    fn memory(&self) -> Memory {
        let text = self.text("/proc/meminfo").unwrap_or_default();
        let mut memory = Memory {
            total: parse::meminfo(&text, "MemTotal").unwrap_or_default(),
            available: parse::meminfo(&text, "MemAvailable"),
            swap: parse::meminfo(&text, "SwapTotal").unwrap_or_default(),
        };
        // In a container the limit counts, not the node.
        let number = |path: &str| -> Option<u64> { self.text(path)?.trim().parse().ok() };
        if let Some(limit) = number("/sys/fs/cgroup/memory.max")
            && Bytes(limit) < memory.total
        {
            memory.total = Bytes(limit);
            let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
            let left = Bytes(limit.saturating_sub(used));
            memory.available = Some(memory.available.map_or(left, |node| node.min(left)));
        }
        memory
    }

    fn software(&self) -> Software {
        let packages = self.text("/var/lib/dpkg/status").unwrap_or_default();
        let runtime = ["/usr/local/nvidia/toolkit", "/usr/bin"]
            .iter()
            .any(|folder| self.exists(&format!("{folder}/nvidia-container-runtime")));
        Software {
            cuda: self
                .text("/usr/local/cuda/version.json")
                .and_then(|text| parse::cuda_version(&text)),
            tensorrt: parse::dpkg_version(&packages, "libnvinfer10")
                .or_else(|| parse::dpkg_version(&packages, "libnvinfer8"))
                .or_else(|| self.tensorrt_by_name()),
            driver: None,
            container_runtime: Some(runtime),
            k3s: Some(self.exists("/usr/local/bin/k3s") || self.exists("/var/lib/rancher/k3s")),
        }
    }

    /// From `libnvinfer.so.10.3.0`, without the build number.
    fn tensorrt_by_name(&self) -> Option<String> {
        let folder = self.path("/usr/lib/aarch64-linux-gnu");
        std::fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix("libnvinfer.so.").map(str::to_owned))
            .filter(|version| version.contains('.'))
            .max()
    }

    fn jetson(&self, hardware: &Hardware) -> Option<Jetson> {
        let release = self.text("/etc/nv_tegra_release");
        let compatible = self.device_tree("compatible").unwrap_or_default();
        let (part, soc) = parse::device_tree_compatible(&compatible);
        if release.is_none() && soc.is_none() {
            return None;
        }
        let by_part = part.as_deref().and_then(Module::from_part);
        let power_mode = self
            .text("/var/lib/nvpmodel/status")
            .and_then(|text| parse::nvpmodel_status(&text))
            .and_then(|id| parse::nvpmodel_conf(&self.text("/etc/nvpmodel.conf")?, id));
        Some(Jetson {
            module: by_part
                .or_else(|| Module::from_model(&hardware.machine, hardware.memory.total)),
            part,
            soc,
            l4t: release.and_then(|text| parse::nv_tegra_release(&text)),
            power_mode,
        })
    }
}

/// The first GPU that NVML knows, and the driver's version; `None` without NVML or a GPU.
fn nvml() -> Result<Option<(Gpu, String)>, String> {
    use nvml_wrapper::Nvml;
    use nvml_wrapper::error::NvmlError;

    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        // No library, or a library without a driver or GPU: a machine without an NVIDIA GPU.
        Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded | NvmlError::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("the NVIDIA driver cannot be asked: {error}")),
    };
    let failed = |error: NvmlError| format!("the NVIDIA driver does not tell its GPUs: {error}");
    if nvml.device_count().map_err(failed)? == 0 {
        return Ok(None);
    }
    let device = nvml.device_by_index(0).map_err(failed)?;
    let capability = device.cuda_compute_capability().ok();
    let memory = device.memory_info().ok();
    let gpu = Gpu {
        name: device.name().unwrap_or_else(|_| "NVIDIA GPU".to_owned()),
        sm: capability.and_then(|found| {
            Some(Sm::new(
                found.major.try_into().ok()?,
                found.minor.try_into().ok()?,
            ))
        }),
        memory: memory.as_ref().map(|memory| Bytes(memory.total)),
        free: memory.as_ref().map(|memory| Bytes(memory.free)),
    };
    Ok(Some((gpu, nvml.sys_driver_version().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The files of an Orin NX with JetPack 6.2, as documented.
    fn orin_nx(root: &Path) {
        write(
            root,
            "etc/nv_tegra_release",
            b"# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        );
        let model = b"NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super\0";
        write(root, "proc/device-tree/model", model);
        let compatible =
            b"nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234\0";
        write(root, "proc/device-tree/compatible", compatible);
        let meminfo = b"MemTotal: 16032084 kB\nMemAvailable: 14000000 kB\nSwapTotal: 8016036 kB\n";
        write(root, "proc/meminfo", meminfo);
        let cpuinfo = b"processor : 0\nprocessor : 1\nprocessor : 2\nprocessor : 3\n";
        write(root, "proc/cpuinfo", cpuinfo);
        write(root, "var/lib/nvpmodel/status", b"pmode:0001\n");
        write(
            root,
            "etc/nvpmodel.conf",
            b"< POWER_MODEL ID=1 NAME=10W >\nGPU MAX_FREQ 612000000\nEMC MAX_FREQ 2133000000\n",
        );
        write(
            root,
            "usr/local/cuda/version.json",
            br#"{"cuda":{"name":"CUDA SDK","version":"12.6.11"}}"#,
        );
        write(
            root,
            "var/lib/dpkg/status",
            b"Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n",
        );
        write(root, "usr/bin/nvidia-container-runtime", b"");
        write(root, "usr/lib/aarch64-linux-gnu/libc.so.6", b"");
    }

    #[test]
    fn the_files_of_an_orin_nx_are_understood() {
        let root = tempfile::tempdir().unwrap();
        orin_nx(root.path());
        let hardware = probe_files(root.path());
        let jetson = hardware.jetson.clone().unwrap();
        assert_eq!(jetson.module, Some(Module::OrinNx16));
        assert_eq!(jetson.part.as_deref(), Some("p3767-0000"));
        assert_eq!(jetson.l4t.unwrap().to_string(), "36.4.3");
        assert_eq!(jetson.power_mode.unwrap().gpu_mhz, Some(612));
        assert_eq!(hardware.sm(), Some(Sm::new(8, 7)));
        assert_eq!(hardware.software.tensorrt.as_deref(), Some("10.3.0.30"));
        assert_eq!(hardware.software.cuda.as_deref(), Some("12.6.11"));
        assert_eq!(hardware.software.container_runtime, Some(true));
        assert_eq!(hardware.memory.total, Bytes(16_032_084 * 1024));
        assert_eq!(
            (hardware.cpu.cores, hardware.cpu.architecture.as_str()),
            (4, "aarch64")
        );
        assert_eq!(hardware.notes, Vec::<String>::new());
    }

    #[test]
    fn a_container_without_the_release_file_says_what_to_mount() {
        let root = tempfile::tempdir().unwrap();
        orin_nx(root.path());
        std::fs::remove_file(root.path().join("etc/nv_tegra_release")).unwrap();
        let hardware = probe_files(root.path());
        assert_eq!(hardware.sm(), Some(Sm::new(8, 7)));
        assert!(
            hardware.notes[0].contains("mount it"),
            "{:?}",
            hardware.notes
        );
    }

    #[test]
    fn absolute_links_lead_through_the_tree_and_never_out_of_it() {
        let root = tempfile::tempdir().unwrap();
        orin_nx(root.path());
        let folder = root.path().join("usr/local");
        std::fs::rename(folder.join("cuda"), folder.join("cuda-12.6")).unwrap();
        std::os::unix::fs::symlink("/usr/local/cuda-12.6", folder.join("cuda")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(
            outside.path().join("release"),
            b"# R36 (release), REVISION: 5.0\n",
        )
        .unwrap();
        let release = root.path().join("etc/nv_tegra_release");
        std::fs::remove_file(&release).unwrap();
        std::os::unix::fs::symlink(outside.path().join("release"), &release).unwrap();

        let hardware = probe_files(root.path());
        assert_eq!(hardware.software.cuda.as_deref(), Some("12.6.11"));
        assert_eq!(hardware.jetson.unwrap().l4t, None);
    }

    #[test]
    fn an_empty_tree_is_a_machine_of_which_nothing_is_known() {
        let root = tempfile::tempdir().unwrap();
        let hardware = probe_files(root.path());
        assert_eq!((hardware.jetson, hardware.gpu), (None, None));
        assert!(hardware.notes[0].contains("/proc/meminfo"));
    }

    #[test]
    fn a_containers_memory_limit_wins_over_the_nodes_memory() {
        let root = tempfile::tempdir().unwrap();
        orin_nx(root.path());
        write(root.path(), "sys/fs/cgroup/memory.max", b"4294967296\n");
        write(root.path(), "sys/fs/cgroup/memory.current", b"1073741824\n");
        let memory = probe_files(root.path()).memory;
        assert_eq!(memory.total, Bytes(4 << 30));
        assert_eq!(memory.available, Some(Bytes(3 << 30)));
    }

    #[test]
    fn this_machine_has_memory_and_processors() {
        let hardware = probe();
        assert!(hardware.memory.total > Bytes(64 << 20));
        assert!(hardware.cpu.cores >= 1);
    }
}
