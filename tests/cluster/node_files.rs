//! The configuration of a node's components.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::node::ADDRESS;

/// Writes all of them into the node's folder.
pub fn write(folder: &Path) {
    let path = folder.display();
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let files = [
        (
            "pki/tokens.csv",
            "admin-token,admin,admin,\"system:masters\"\n".to_owned(),
        ),
        ("kubeconfig", kubeconfig(folder)),
        ("containerd.toml", containerd(folder)),
        ("cni/10-bridge.conflist", network(folder)),
        ("kubelet.yaml", kubelet(folder, &name)),
        ("cluster.yaml", cluster(folder)),
        ("storage.json", storage(folder)),
        (
            "registry.yaml",
            format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {path}/registry}}, delete: {{enabled: true}}}}\n\
                 http: {{addr: \"0.0.0.0:5000\"}}\n"
            ),
        ),
        (
            "hosts/10.244.0.1:5000/hosts.toml",
            format!("[host.\"http://{ADDRESS}:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        ),
        // The runtime of a Jetson, here a wrapper that records its calls and runs runc: proves that
        // pods asked for it.
        (
            "bin/nvidia-container-runtime",
            format!("#!/bin/sh\necho \"$*\" >>{path}/log/nvidia-runtime\nexec runc \"$@\"\n"),
        ),
        // Run when all processes are gone: control groups outlive their processes.
        (
            "cleanup",
            format!(
                "n=0\nwhile [ $n -lt 200 ] && find /sys/fs/cgroup -maxdepth 2 -name {name} | grep -q .; do\n  \
                 find /sys/fs/cgroup -depth -type d -path '*/{name}*' -exec rmdir {{}} + 2>/dev/null\n  \
                 n=$((n + 1)); sleep 0.05\ndone\n"
            ),
        ),
    ];
    for (file, content) in files {
        let file = folder.join(file);
        std::fs::create_dir_all(file.parent().expect("a path in a folder")).expect("a folder");
        std::fs::write(&file, content).expect("a file in a new folder");
    }
    let runtime = folder.join("bin/nvidia-container-runtime");
    std::fs::set_permissions(runtime, PermissionsExt::from_mode(0o755)).expect("its owner");
    std::fs::create_dir(folder.join("storage")).expect("a folder");
}

fn kubeconfig(folder: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: test, cluster: {{server: \"https://{ADDRESS}:6443\", certificate-authority: \"{}/pki/ca.crt\"}}}}]\n\
         users: [{{name: admin, user: {{token: admin-token}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n\
         current-context: test\n",
        folder.display()
    )
}

fn containerd(folder: &Path) -> String {
    let path = folder.display();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut text = format!(
        "version = 2\nroot = \"{path}/containerd\"\nstate = \"{path}/state\"\n\
         [grpc]\n  address = \"{path}/containerd.sock\"\n\
         [{cri}]\n  sandbox_image = \"localhost/pause:3.10\"\n  restrict_oom_score_adj = true\n\
         [{cri}.cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"{path}/cni\"\n\
         [{cri}.registry]\n  config_path = \"{path}/hosts\"\n"
    );
    for (name, program) in [
        ("runc", "runc".to_owned()),
        ("nvidia", format!("{path}/bin/nvidia-container-runtime")),
    ] {
        write!(
            text,
            "[{cri}.containerd.runtimes.{name}]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.containerd.runtimes.{name}.options]\n  BinaryName = \"{program}\"\n"
        )
        .expect("text grows");
    }
    text
}

fn network(folder: &Path) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "bridge",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "dataDir": folder.join("ipam"),
                "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn kubelet(folder: &Path, control_group: &str) -> String {
    let path = folder.display();
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: \"{path}/pki/ca.crt\"}}}}\n\
         authorization: {{mode: Webhook}}\n\
         cgroupDriver: cgroupfs\ncgroupRoot: /{control_group}\n\
         failSwapOn: false\nfailCgroupV1: false\n\
         containerRuntimeEndpoint: \"unix://{path}/containerd.sock\"\n\
         address: {ADDRESS}\nhealthzBindAddress: 127.0.0.1\nresolvConf: \"\"\n\
         evictionHard: {{memory.available: 100Mi, nodefs.available: \"1%\", imagefs.available: \"1%\", nodefs.inodesFree: \"1%\"}}\n\
         imageGCHighThresholdPercent: 100\nnodeStatusUpdateFrequency: 1s\n\
         podLogsDir: {path}/pods\nvolumePluginDir: {path}/volume-plugins\n"
    )
}

fn storage(folder: &Path) -> String {
    serde_json::json!({"nodePathMap": [
        {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [folder.join("storage")]}
    ]})
    .to_string()
}

/// The objects that k3s has, too: the runtime class and the default storage class.
fn cluster(folder: &Path) -> String {
    let config = storage(folder);
    format!(
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: nvidia}}\nhandler: nvidia\n---\n\
         apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: local-path\n  annotations: {{storageclass.kubernetes.io/is-default-class: \"true\"}}\n\
         provisioner: rancher.io/local-path\nvolumeBindingMode: WaitForFirstConsumer\nreclaimPolicy: Delete\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: local-path-config, namespace: kube-system}}\ndata:\n  \
         config.json: '{config}'\n  \
         setup: |\n    #!/bin/sh\n    mkdir -m 0777 -p \"$VOL_DIR\"\n  \
         teardown: |\n    #!/bin/sh\n    rm -rf \"$VOL_DIR\"\n  \
         helperPod.yaml: |\n    apiVersion: v1\n    kind: Pod\n    metadata: {{name: helper-pod}}\n    spec:\n      \
         priorityClassName: system-node-critical\n      securityContext: {{runAsUser: 0}}\n      \
         containers: [{{name: helper-pod, image: \"localhost/busybox:1\", imagePullPolicy: Never}}]\n"
    )
}
