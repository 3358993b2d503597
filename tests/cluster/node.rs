//! A whole node: the control plane, a kubelet with containerd, kube-proxy, a network, the runtime
//! class `nvidia`, storage and an OCI registry, in process, mount and network namespaces of its own.
//! Needs root. Nothing of it is visible to the machine's own containers, and the kernel ends all of
//! it with its first process.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::control_plane::install_definitions;
use super::image::Image;
use super::janitor::Premises;
use super::parts::{folder_of_programs, program};
use super::{keys, node_files};
use crate::tools;

/// From nothing to a node that takes pods; 10 s on two idle cores.
const START: Duration = Duration::from_mins(4);

/// Name of the node.
pub const NODE: &str = "jetson-0";
/// Address of the node, where the API server and the registry are.
pub const ADDRESS: &str = "10.244.0.1";

/// A running node.
#[derive(Debug)]
pub struct Node {
    premises: Premises,
    network: File,
}

impl Node {
    /// Starts a node that has `images` and the project's definitions, and waits until it takes pods.
    pub fn start(images: &[Image]) -> Self {
        let node = Self::bare(images);
        node.run(async |client| install_definitions(&client).await);
        node
    }

    /// The same without the definitions: an installation brings its own.
    pub fn bare(images: &[Image]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "a whole node needs namespaces and control groups: run these tests as root"
        );
        let premises = Premises::new();
        prepare(&premises, images);
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child=KILL", "--mount", "--net"])
            .arg("bash")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/node/node.sh"))
            .arg(premises.folder())
            .arg(folder_of_programs());
        premises.start("node", command);
        let begin = Instant::now();
        let ready = premises.folder().join("ready");
        while !ready.exists() {
            assert!(
                premises.ended().is_none() && begin.elapsed() < START,
                "the node is not ready after {:?}\n{}",
                begin.elapsed(),
                ["node", "kube-apiserver", "containerd", "kubelet"]
                    .map(|name| premises.log(name))
                    .join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let init = std::fs::read_to_string(premises.folder().join("pid/init"))
            .expect("the first process writes its id");
        let network = File::open(format!("/proc/{}/ns/net", init.trim()))
            .expect("the namespace of a process that lives");
        Self { premises, network }
    }

    /// Runs `work` on a thread in the node's network, where its addresses can be reached.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let network = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(self.network.as_fd(), network)
                        .expect("root may enter a network");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` with a client that has all rights, in a runtime in the node's network.
    pub fn run<T: Send>(&self, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = self.config();
        self.inside(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(async { work(Client::try_from(config).expect("a client")).await })
        })
    }

    fn config(&self) -> Config {
        let read =
            Kubeconfig::read_from(self.premises.folder().join("kubeconfig")).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        futures::executor::block_on(Config::from_custom_kubeconfig(read, &options))
            .expect("a configuration")
    }

    /// Runs `kubectl` with `arguments` and, where it is not empty, `input`; fails when it fails.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.command(&program("kubectl"), arguments, input)
            .unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
    }

    /// Runs a program that speaks to the cluster; what it said when it fails.
    pub fn command(
        &self,
        program: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(input.as_bytes())
            .and_then(|()| file.rewind())
            .expect("the input is written");
        let output = self.inside(|| {
            Command::new(program)
                .args(arguments)
                .env("KUBECONFIG", self.premises.folder().join("kubeconfig"))
                .stdin(file)
                .output()
                .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Ids of the processes on this node whose command line contains `words`.
    pub fn processes(&self, words: &str) -> Vec<u32> {
        let name = self.premises.folder().file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|id| tools::command_line(*id).contains(words))
            .filter(|id| {
                let groups = std::fs::read_to_string(format!("/proc/{id}/cgroup"));
                groups.is_ok_and(|groups| groups.contains(&*name))
            })
            .collect()
    }

    /// What the runtime `nvidia` was called with: one line a call.
    pub fn nvidia_calls(&self) -> String {
        let log = self.premises.folder().join("log/nvidia-runtime");
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// The node's folder.
    pub fn folder(&self) -> &Path {
        self.premises.folder()
    }

    /// The end of a component's log.
    pub fn log(&self, component: &str) -> String {
        self.premises.log(component)
    }
}

/// Writes what the first process reads.
fn prepare(premises: &Premises, images: &[Image]) {
    let folder = premises.folder();
    let pki = folder.join("pki");
    keys::authority(&pki);
    let names = format!("IP:{ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes.default.svc");
    keys::certificate(&pki, "apiserver", "/CN=kube-apiserver", &names);
    keys::certificate(
        &pki,
        "kubelet-client",
        "/O=system:masters/CN=kubelet-client",
        "",
    );
    keys::token_key(&pki);
    node_files::write(folder);
    std::fs::create_dir(folder.join("images")).expect("a folder in a new folder");
    let pause = folder.join("pause");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/node/pause.c");
    let compiled = Command::new("cc")
        .args(["-static", "-Os", "-o"])
        .args([&pause, &source])
        .status()
        .expect("a C compiler");
    assert!(compiled.success(), "pause.c does not compile");
    let own = [
        Image::new("localhost/pause:3.10", &["/pause"]).file("pause", &pause),
        busybox(),
    ];
    for (number, image) in own.iter().chain(images).enumerate() {
        image.write(&folder.join(format!("images/{number}.tar")));
    }
}

/// `localhost/busybox:1`: a shell and a web server, for storage and for tests.
fn busybox() -> Image {
    let image = Image::new("localhost/busybox:1", &["/bin/busybox"]);
    ["busybox", "sh", "mkdir", "rm", "chmod", "httpd", "wget"]
        .iter()
        .fold(image, |image, name| {
            image.file(&format!("bin/{name}"), "/bin/busybox")
        })
}

/// Certificate authorities, which the published image has, too.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// `localhost/enginewright:test`: the program under test.
pub fn enginewright() -> Image {
    Image::new("localhost/enginewright:test", &["/usr/bin/enginewright"])
        .program("usr/bin/enginewright", tools::binary())
        .file(AUTHORITIES, AUTHORITIES)
}

/// `localhost/ollama:test`: a real Ollama.
pub fn ollama() -> Image {
    Image::new("localhost/ollama:test", &["/usr/bin/ollama"])
        .program("usr/bin/ollama", &tools::ollama())
}
