//! The node itself: it runs pods as a Jetson with k3s does, and nothing of it is left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{ADDRESS, NODE, Node, enginewright};
use crate::tools;

/// Set in the process that is killed below.
const VICTIM: &str = "ENGINEWRIGHT_TEST_VICTIM";
const FOLDER: &str = "cluster-folder:";
const LIMIT: Duration = Duration::from_mins(2);

/// A pod under Pod Security *restricted*, with the GPU's runtime class and a volume of the default
/// storage class: our program writes into the volume, a web server serves it.
const WORKLOAD: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: nvidia
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      initContainers:
      - name: write
        image: localhost/enginewright:test
        args: [crds, --dir, /data]
        securityContext: &secure {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: &volumes [{name: data, mountPath: /data}]
      containers:
      - name: serve
        image: localhost/busybox:1
        args: [httpd, -f, -p, "8080", -h, /data]
        readinessProbe: {httpGet: {path: /inferenceengines.enginewright.dev.yaml, port: 8080}, periodSeconds: 1}
        securityContext: *secure
        volumeMounts: *volumes
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, clusterIP: 10.96.7.7, ports: [{port: 80, targetPort: 8080}]}
"#;

/// Asks until there is an answer: kube-proxy learns of a ready pod a moment after the Deployment.
fn get(node: &Node, url: &str) -> String {
    tools::wait_for(url, LIMIT, || {
        node.run(async |_| {
            let answer = reqwest::get(url).await.ok()?;
            answer.error_for_status().ok()?.text().await.ok()
        })
    })
}

#[test]
fn a_restricted_pod_runs_with_the_gpus_runtime_class_storage_and_a_service() {
    let begin = Instant::now();
    let node = Node::start(&[enginewright()]);
    println!("node ready after {:?}", begin.elapsed());
    let begin = Instant::now();
    node.kubectl(&["apply", "-f", "-"], WORKLOAD);
    let ready = [
        "wait",
        "-n",
        "shop",
        "deployment/web",
        "--for=condition=Available",
    ];
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        node.kubectl(&[&ready[..], &["--timeout=90s"]].concat(), "");
    }));
    if waited.is_err() {
        let pods = node.kubectl(&["describe", "pods,pvc", "-A"], "");
        panic!(
            "{pods}\n{}\n{}",
            node.log("kubelet"),
            node.log("local-path-provisioner")
        );
    }
    println!("workload available after {:?}", begin.elapsed());

    let served = get(
        &node,
        "http://10.96.7.7/inferenceengines.enginewright.dev.yaml",
    );
    let committed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crds/inferenceengines.enginewright.dev.yaml"
    );
    assert_eq!(served, std::fs::read_to_string(committed).unwrap());
    let calls = node.nvidia_calls();
    assert!(
        calls.contains(" create "),
        "the runtime nvidia was not asked: {calls}"
    );
    let pods = [
        "get",
        "pods",
        "-n",
        "shop",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ];
    assert_eq!(node.kubectl(&pods, ""), NODE);
    let logs = node.kubectl(
        &["logs", "-n", "shop", "deployment/web", "--all-containers"],
        "",
    );
    assert_eq!(logs, "");
    let text = node.kubectl(
        &[
            "exec",
            "-n",
            "shop",
            "deployment/web",
            "--",
            "/bin/busybox",
            "id",
            "-u",
        ],
        "",
    );
    assert_eq!(text.trim(), "65532");
    assert_eq!(get(&node, &format!("http://{ADDRESS}:5000/v2/")), "{}");
}

/// Whatever on this machine names the folder: processes, mounts, control groups.
fn traces_of(folder: &str) -> Vec<String> {
    let name = Path::new(folder).file_name().unwrap().to_str().unwrap();
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .map(tools::command_line)
        .filter(|line| line.contains(folder) && !line.contains("janitor.sh"));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let groups = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", name])
        .output()
        .unwrap();
    let groups = String::from_utf8_lossy(&groups.stdout).into_owned();
    let mounts = mounts.lines().filter(|line| line.contains(folder));
    let lines = mounts.chain(groups.lines()).map(str::to_owned);
    let mut found: Vec<String> = processes.chain(lines).collect();
    found.extend(Path::new(folder).exists().then(|| folder.to_owned()));
    found
}

#[test]
fn nothing_is_left_of_a_node_whose_test_process_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        let node = Node::start(&[enginewright()]);
        node.kubectl(&["apply", "-f", "-"], WORKLOAD);
        let ready = [
            "wait",
            "-n",
            "shop",
            "deployment/web",
            "--for=condition=Available",
            "--timeout=90s",
        ];
        node.kubectl(&ready, "");
        println!("{FOLDER}{}", node.folder().display());
        loop {
            std::thread::park();
        }
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "life::nothing_is_left_of_a_node_whose_test_process_is_killed",
            "--nocapture",
        ])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| Some(line.ok()?.split_once(FOLDER)?.1.to_owned()))
        .expect("the victim starts a node");
    assert!(traces_of(&folder).len() > 10, "{:?}", traces_of(&folder));
    kill_process(Pid::from_child(&victim), Signal::KILL).unwrap();
    victim.wait().unwrap();
    tools::wait_for("all traces to go", LIMIT, || {
        traces_of(&folder).is_empty().then_some(())
    });
}
