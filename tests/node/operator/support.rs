//! A node with the chart installed as a user installs it, and what the tests of the operator ask for.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use enginewright::api::InferenceEngine;
use kube::Api;

use crate::agent;
use crate::cluster::{ADDRESS, Image, Node, enginewright, ollama};
use crate::operator::client::{self, Answer};
use crate::tools;

/// For anything that is awaited: a busy machine is no failure.
pub const LIMIT: Duration = Duration::from_mins(4);
/// Namespace of the operator.
const HOME: &str = "enginewright-system";
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce: restricted";

/// A server that is not ours, of an image that is not ours: Ollama's OpenAI API, with a shell.
fn other_server() -> Image {
    let image = ollama().named(OTHER);
    let tools = ["sh", "ln", "mkdir", "sha256sum", "sleep", "httpd"];
    tools.iter().fold(image, |image, name| {
        image.file(&format!("bin/{name}"), "/bin/busybox")
    })
}

/// Its name on the node.
pub const OTHER: &str = "localhost/other:test";

/// Our program with TensorRT-RTX, as an image for GPU nodes has it with that of the node.
fn with_tensorrt() -> Image {
    let folder = tools::tensorrt();
    let library = "libtensorrt_rtx.so.1";
    enginewright()
        .named(TENSORRT)
        .program(&format!("usr/bin/{library}"), &folder.join(library))
        .file(
            "usr/bin/libenginewright_trt.so",
            folder.join("libenginewright_trt.so"),
        )
}

/// Its name on the node.
pub const TENSORRT: &str = "localhost/enginewright-trt:test";

/// A node with the operator and the agent on it; one for all tests of the operator.
pub struct Cluster {
    pub node: Node,
}

impl Cluster {
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let images: [Image; 4] = [enginewright(), ollama(), other_server(), with_tensorrt()];
        let begun = Instant::now();
        let cluster = Self {
            node: Node::bare(&images),
        };
        println!("node ready after {:?}", begun.elapsed());
        let begun = Instant::now();
        cluster.helm(&[
            "install",
            "enginewright",
            "charts/enginewright",
            "--create-namespace",
            "--set=image.repository=localhost/enginewright,image.tag=test",
            "--set=ollamaImage=localhost/ollama:test",
            "--set=allowedImages={localhost/engines/,10.244.0.1:5000/engines/}",
            "--wait",
            "--timeout=2m",
        ]);
        println!("chart installed after {:?}", begun.elapsed());
        let agent = agent::manifest();
        cluster.kubectl(&["apply", "--server-side", "-f", "-"], &agent);
        cluster
    }

    /// `helm upgrade` with one more value.
    pub fn upgrade(&self, value: &str) {
        let value = format!("--set={value}");
        let chart = [
            "upgrade",
            "enginewright",
            "charts/enginewright",
            "--reuse-values",
        ];
        self.helm(&[&chart[..], &[&value, "--wait", "--timeout=2m"]].concat());
    }

    /// Runs Helm in the operator's namespace; fails when it fails.
    pub fn helm(&self, arguments: &[&str]) -> String {
        let helm = tools::directory().join("bin/helm");
        assert!(helm.exists(), "run `scripts/tools helm` first");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let chart = root.join("charts/enginewright").display().to_string();
        let folder = self.node.folder().join("helm").display().to_string();
        let mut all = vec!["--namespace", HOME, "--repository-cache", &folder];
        all.extend(arguments.iter().map(|&one| match one {
            "charts/enginewright" => chart.as_str(),
            other => other,
        }));
        self.node
            .command(&helm, &all, "")
            .unwrap_or_else(|said| panic!("helm {arguments:?}: {said}\n{}", self.describe(HOME)))
    }

    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.node.kubectl(arguments, input)
    }

    /// What a person would look at after a failure.
    fn describe(&self, namespace: &str) -> String {
        let look = |arguments: &[&str]| {
            let said = self
                .node
                .command(&crate::cluster::program("kubectl"), arguments, "");
            said.unwrap_or_else(|said| said)
        };
        [
            look(&[
                "get",
                "ie,deploy,pods,jobs,pvc",
                "-n",
                namespace,
                "-o",
                "wide",
            ]),
            look(&["describe", "pods,pvc", "-n", namespace]),
            look(&[
                "logs",
                "-n",
                HOME,
                "deployment/enginewright-operator",
                "--tail=60",
            ]),
        ]
        .join("\n")
    }

    /// A namespace that enforces the restricted level, with the real model in the claim `models`.
    pub fn place(&'static self, name: &str) -> Place {
        let models = tools::model();
        let folder = models.parent().unwrap().display();
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{RESTRICTED}}}}}\n---\n\
             apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: models-{name}}}\nspec:\n  \
             capacity: {{storage: 1Gi}}\n  accessModes: [ReadOnlyMany]\n  storageClassName: \"\"\n  \
             persistentVolumeReclaimPolicy: Retain\n  hostPath: {{path: {folder}}}\n  \
             claimRef: {{namespace: {name}, name: models}}\n---\n\
             apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: models, namespace: {name}}}\nspec:\n  \
             accessModes: [ReadOnlyMany]\n  storageClassName: \"\"\n  volumeName: models-{name}\n  \
             resources: {{requests: {{storage: 1Gi}}}}\n"
        );
        self.kubectl(&["apply", "-f", "-"], &manifest);
        Place {
            cluster: self,
            namespace: name.to_owned(),
        }
    }

    /// Pushes an image that the node has to the registry; the reference by which pods pull it.
    pub fn push(&self, image: &str, repository: &str) -> String {
        let socket = self.node.folder().join("containerd.sock");
        let socket = socket.display().to_string();
        let ctr = |arguments: &[&str]| {
            let all = [&["-a", &socket, "-n", "k8s.io", "images"], arguments].concat();
            let said = self.node.command(Path::new("ctr"), &all, "");
            said.unwrap_or_else(|said| panic!("ctr {arguments:?}: {said}"))
        };
        let target = format!("{ADDRESS}:5000/{repository}:pushed");
        ctr(&["push", "--plain-http", &target, image]);
        let listed = ctr(&["ls", &format!("name=={image}")]);
        let digest = listed
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"));
        format!("{ADDRESS}:5000/{repository}@{}", digest.unwrap())
    }

    /// Sum of the operator's metrics whose lines `wanted` names.
    pub fn count(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let address = self.kubectl(
            &[
                "get",
                "pods",
                "-n",
                HOME,
                "-l=app.kubernetes.io/component=operator",
                "-o=jsonpath={.items[0].status.podIP}",
            ],
            "",
        );
        let url = format!("http://{address}:8081/metrics");
        let text = self.node.run(async |_| {
            let response = reqwest::get(&url).await.unwrap();
            response.text().await.unwrap()
        });
        text.lines()
            .filter(|line| wanted(line))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Another operator process takes over.
    pub fn restart_operator(&self) {
        let deployment = "deployment/enginewright-operator";
        self.kubectl(&["rollout", "restart", "-n", HOME, deployment], "");
        let status = [
            "rollout",
            "status",
            "-n",
            HOME,
            deployment,
            "--timeout=120s",
        ];
        self.kubectl(&status, "");
    }

    /// Memory of the processes with these words in their command line, in KiB: resident, and of that
    /// their own (not pages of the program's file, of which a test build has many).
    pub fn resident(&self, words: &str) -> Vec<(u64, u64)> {
        let of = |id: u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse().ok()
            };
            Some((field("VmRSS:")?, field("RssAnon:")?))
        };
        self.node
            .processes(words)
            .into_iter()
            .filter_map(of)
            .collect()
    }
}

/// One namespace of one test.
pub struct Place {
    pub cluster: &'static Cluster,
    pub namespace: String,
}

impl Place {
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let all = [&["-n", &self.namespace], arguments].concat();
        self.cluster.kubectl(&all, input)
    }

    /// Writes a resource as a user does.
    pub fn apply(&self, name: &str, spec: &str) {
        let spec = spec.replace('\n', "\n  ");
        let manifest = format!(
            "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\n\
             metadata: {{name: {name}}}\nspec:\n  {spec}\n"
        );
        self.kubectl(&["apply", "-f", "-"], &manifest);
    }

    pub fn get(&self, name: &str) -> Option<InferenceEngine> {
        let namespace = &self.namespace;
        self.cluster.node.run(async |client| {
            let api = Api::<InferenceEngine>::namespaced(client, namespace);
            api.get_opt(name).await.ok()?
        })
    }

    /// Waits until a resource is as `wanted` says.
    pub fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&InferenceEngine) -> bool,
    ) -> InferenceEngine {
        let begun = Instant::now();
        loop {
            let found = self.get(name);
            if let Some(found) = found.as_ref().filter(|one| wanted(one)) {
                return found.clone();
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{what} does not come: {:#?}\n{}",
                found.and_then(|one| one.status),
                self.cluster.describe(&self.namespace)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Where clients reach a resource: its Service.
    pub fn origin(&self, name: &str) -> String {
        let address = tools::wait_for("the endpoint's Service", LIMIT, || {
            let arguments = ["get", "service", name, "-o=jsonpath={.spec.clusterIP}"];
            let all = [&["-n", &self.namespace], &arguments[..]].concat();
            let program = crate::cluster::program("kubectl");
            self.cluster.node.command(&program, &all, "").ok()
        });
        format!("http://{address}:8080")
    }

    /// One streamed answer through the Service.
    pub fn chat(&self, name: &str) -> Answer {
        let origin = self.origin(name);
        let answer = self
            .cluster
            .node
            .run(async |_| client::stream(&client::new(), &origin, name, 16).await);
        answer.unwrap_or_else(|problem| {
            panic!("{problem}\n{}", self.cluster.describe(&self.namespace))
        })
    }

    /// Asks from the beginning on, until there is a first answer, and says when its first token was
    /// there; prints why there was none before.
    pub fn first_answer(&self, name: &str, begun: Instant) -> (Answer, Duration) {
        let origin = self.origin(name);
        self.cluster.node.run(async |_| {
            let (client, mut said) = (client::new(), String::new());
            loop {
                let asked = begun.elapsed();
                match client::stream(&client, &origin, name, 16).await {
                    Ok(answer) => {
                        let first = asked + answer.first;
                        return (answer, first);
                    }
                    Err(problem) => {
                        assert!(begun.elapsed() < LIMIT, "{problem}");
                        if problem != said {
                            println!("{asked:?} to {:?}: {problem}", begun.elapsed());
                            said = problem;
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }

    /// Everything goes, and it is looked at that it has gone.
    pub fn leave(self) {
        self.kubectl(&["delete", "ie", "--all", "--timeout=120s"], "");
        tools::wait_for("everything of ours to go", LIMIT, || {
            let kinds = "all,cm,pvc,netpol,pdb";
            let ours = "-l=app.kubernetes.io/managed-by=enginewright";
            let left = self.kubectl(&["get", kinds, ours, "-o=name"], "");
            left.is_empty().then_some(())
        });
        let volumes = self.cluster.kubectl(&["get", "pv", "-o=name"], "");
        self.cluster.kubectl(
            &["delete", "namespace", &self.namespace, "--timeout=120s"],
            "",
        );
        let volume = format!("models-{}", self.namespace);
        self.cluster.kubectl(&["delete", "pv", &volume], "");
        println!("left: volumes before {}", volumes.replace('\n', " "));
    }
}

/// A condition's status and reason.
pub fn word(engine: &InferenceEngine, kind: &str) -> Option<(String, String)> {
    let conditions = &engine.status.as_ref()?.conditions;
    let one = conditions.iter().find(|one| one.kind.as_str() == kind)?;
    Some((one.status.to_string(), one.reason.to_string()))
}

/// Whether a condition is `True`, said of the present spec.
pub fn holds(engine: &InferenceEngine, kind: &str) -> bool {
    let observed = engine.status.as_ref().and_then(|it| it.observed_generation);
    observed == engine.metadata.generation
        && word(engine, kind).is_some_and(|(status, _)| status == "True")
}
