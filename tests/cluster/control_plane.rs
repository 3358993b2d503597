//! etcd and kube-apiserver, and on demand the controller manager, as any user on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config};

use super::janitor::Premises;
use super::keys;
use super::parts::program;
use crate::tools;

/// A cold start takes 3 s on two idle cores; a busy machine is no failure.
const START: Duration = Duration::from_mins(2);
/// For the controllers to do one thing.
const CONTROLLERS: Duration = Duration::from_mins(1);
/// A free port may be taken before it is used: so many tries.
const TRIES: u32 = 3;

/// A Kubernetes API with the project's definitions in it.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    /// `None`: a cluster that the user named for tests.
    own: Option<Premises>,
    controllers: OnceLock<()>,
    namespaces: AtomicU32,
}

impl ControlPlane {
    /// The control plane of this test process, started by whoever asks first.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| named_for_tests().map_or_else(Self::start, Self::existing))
    }

    /// A control plane of its own, ended when dropped.
    pub fn start() -> Self {
        for attempt in 1..=TRIES {
            match Self::try_start() {
                Ok(own) => return Self::with(own.folder().join("kubeconfig"), Some(own)),
                Err(log) if attempt == TRIES => panic!("the control plane does not start\n{log}"),
                Err(_) => {}
            }
        }
        unreachable!("the last try returns or panics")
    }

    fn existing(kubeconfig: PathBuf) -> Self {
        Self::with(kubeconfig, None)
    }

    fn with(kubeconfig: PathBuf, own: Option<Premises>) -> Self {
        let this = Self {
            kubeconfig,
            own,
            controllers: OnceLock::new(),
            namespaces: AtomicU32::new(0),
        };
        this.blocking(async |client| install_definitions(&client).await);
        this
    }

    fn try_start() -> Result<Premises, String> {
        let own = Premises::new();
        let pki = own.folder().join("pki");
        keys::authority(&pki);
        keys::certificate(
            &pki,
            "apiserver",
            "/CN=kube-apiserver",
            "IP:127.0.0.1,DNS:localhost",
        );
        keys::token_key(&pki);
        std::fs::write(
            pki.join("tokens.csv"),
            "admin-token,admin,admin,\"system:masters\"\n",
        )
        .expect("a file in a new folder");
        let port = tools::free_port();
        std::fs::write(own.folder().join("kubeconfig"), kubeconfig(&own, port))
            .expect("a file in a new folder");
        let etcd = format!("http://{}", tools::free_address());
        own.start("etcd", etcd_command(&own, &etcd));
        own.start("kube-apiserver", apiserver_command(&own, &etcd, port));
        wait_until_ready(&own)?;
        Ok(own)
    }

    /// Path of a kubeconfig with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The configuration of [`Self::kubeconfig`], for clients that are put together by hand.
    pub fn config(&self) -> Config {
        let read = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        // Reading it awaits nothing: all it names is in files.
        futures::executor::block_on(Config::from_custom_kubeconfig(
            read,
            &KubeConfigOptions::default(),
        ))
        .expect("a configuration")
    }

    /// A client with all rights. A client belongs to the runtime it is made in: each test makes its own.
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("a client")
    }

    /// A client with the rights of a service account, by a token as a pod of it would have.
    pub async fn client_as(&self, namespace: &str, service_account: &str) -> Client {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec::default()),
            ..TokenRequest::default()
        };
        self.client_with(namespace, service_account, request).await
    }

    /// A client by the token that `request` describes (audience, bound pod).
    pub async fn client_with(
        &self,
        namespace: &str,
        service_account: &str,
        request: TokenRequest,
    ) -> Client {
        let token = self.token(namespace, service_account, &request).await;
        let mut config = self.config();
        config.auth_info = kube::config::AuthInfo {
            token: Some(token.into()),
            ..kube::config::AuthInfo::default()
        };
        Client::try_from(config).expect("a client")
    }

    /// A token of a service account.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        request: &TokenRequest,
    ) -> String {
        Api::<ServiceAccount>::namespaced(self.client(), namespace)
            .create_token_request(service_account, &PostParams::default(), request)
            .await
            .expect("a token")
            .status
            .and_then(|status| status.token)
            .expect("a token has a status")
    }

    /// A kubeconfig for a process that has `token`; `name` names the file.
    pub fn kubeconfig_with(&self, name: &str, token: &str) -> PathBuf {
        let admin = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let path = self.folder().expect("a cluster of our own").join(name);
        std::fs::write(&path, admin.replace("admin-token", token)).expect("a file");
        path
    }

    /// `kubectl` on this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(program("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env_remove("KUBECONFIG");
        command
    }

    /// Runs `kubectl` with `arguments` and returns what it prints; fails when it fails.
    pub fn kubectl_says(&self, arguments: &[&str]) -> String {
        let output = self
            .kubectl()
            .args(arguments)
            .output()
            .expect("kubectl starts");
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A new namespace `LABEL-…` for one test.
    pub async fn namespace(&self, label: &str) -> String {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let name = format!("{label}-{}-{number}", std::process::id());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
        if self.own.is_none() || self.controllers.get().is_some() {
            self.service_account(&name).await;
        }
        name
    }

    /// Starts the controller manager unless it runs: a Deployment gets its `ReplicaSet` and that its
    /// pods (which nobody schedules), owned objects are collected, namespaces end.
    pub fn start_controllers(&self) {
        self.controllers.get_or_init(|| {
            if let Some(own) = &self.own {
                let mut command = Command::new(program("kube-controller-manager"));
                let kubeconfig = self.kubeconfig.display();
                command.args([
                    format!("--kubeconfig={kubeconfig}"),
                    format!("--authentication-kubeconfig={kubeconfig}"),
                    format!("--authorization-kubeconfig={kubeconfig}"),
                    format!(
                        "--service-account-private-key-file={}",
                        own.path("pki/sa.key")
                    ),
                    format!("--root-ca-file={}", own.path("pki/ca.crt")),
                ]);
                command.args([
                    "--use-service-account-credentials=true",
                    "--leader-elect=false",
                    "--secure-port=0",
                    "--kube-api-qps=200",
                    "--kube-api-burst=400",
                    // Nodes of these tests have no kubelet that would keep them alive.
                    "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller",
                ]);
                own.start("kube-controller-manager", command);
            }
            self.blocking(async |client| default_service_account(client, "default").await);
        });
    }

    /// Waits until the namespace has the service account that pods need.
    async fn service_account(&self, namespace: &str) {
        default_service_account(self.client(), namespace).await;
    }

    /// Runs `work` to its end from code that may itself run in a runtime.
    fn blocking(&self, work: impl AsyncFnOnce(Client) + Send) {
        let config = self.config();
        on_a_thread(move || async move { work(Client::try_from(config).expect("a client")).await });
    }

    /// Folder of the cluster's files; `None` where it is the user's.
    pub fn folder(&self) -> Option<&Path> {
        self.own.as_ref().map(Premises::folder)
    }

    /// The end of a component's log, for failure messages.
    pub fn log(&self, component: &str) -> String {
        self.own
            .as_ref()
            .map_or_else(String::new, |own| own.log(component))
    }
}

/// The kubeconfig that the user named for tests, if any.
fn named_for_tests() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let existing = variable("USE_EXISTING_CLUSTER").is_some_and(|value| value == "true");
    variable("ENGINEWRIGHT_TEST_KUBECONFIG")
        .or_else(|| variable("KUBECONFIG").filter(|_| existing))
        .map(PathBuf::from)
}

fn kubeconfig(own: &Premises, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: admin, user: {{token: admin-token}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n\
         current-context: test\n",
        own.path("pki/ca.crt")
    )
}

fn etcd_command(own: &Premises, clients: &str) -> Command {
    let peers = format!("http://{}", tools::free_address());
    let mut command = Command::new(program("etcd"));
    command.args([
        format!("--data-dir={}", own.path("etcd")),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync".to_owned(),
    ]);
    command
}

fn apiserver_command(own: &Premises, etcd: &str, port: u16) -> Command {
    let mut command = Command::new(program("kube-apiserver"));
    command.args([
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", own.path("pki")),
        format!("--tls-cert-file={}", own.path("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", own.path("pki/apiserver.key")),
        format!("--client-ca-file={}", own.path("pki/ca.crt")),
        format!("--token-auth-file={}", own.path("pki/tokens.csv")),
        format!("--service-account-key-file={}", own.path("pki/sa.key")),
        format!(
            "--service-account-signing-key-file={}",
            own.path("pki/sa.key")
        ),
    ]);
    command.args([
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        // Loopback is no endpoint for the Service `kubernetes`; nothing here asks for it.
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]);
    command
}

/// Waits for `/readyz`; the logs when a component ends before.
fn wait_until_ready(own: &Premises) -> Result<(), String> {
    let kubeconfig = own.folder().join("kubeconfig");
    on_a_thread(|| async {
        let read = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .expect("a configuration");
        let client = Client::try_from(config).expect("a client");
        let start = Instant::now();
        loop {
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .expect("a request");
            if client.request_text(request).await.is_ok() {
                return Ok(());
            }
            if own.ended().is_some() || start.elapsed() > START {
                return Err(format!("{}{}", own.log("etcd"), own.log("kube-apiserver")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// Runs a future on a thread and runtime of its own: the caller may be in a runtime already.
fn on_a_thread<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> T {
    // Other tests of the process may have done so already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(work())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(super) async fn install_definitions(client: &Client) {
    let api = Api::all(client.clone());
    for definition in enginewright::api::all_crds() {
        let name = definition.metadata.name.clone().expect("a name");
        api.patch(
            &name,
            &PatchParams::apply("tests").force(),
            &Patch::Apply(&definition),
        )
        .await
        .unwrap_or_else(|error| panic!("the API server refuses {name}: {error}"));
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(START, established)
            .await
            .expect("a definition is established in time")
            .expect("the definition can be watched");
    }
    // Discovery and the OpenAPI document, which kubectl reads, follow a moment later.
    let document = async || {
        let path = "/openapi/v3/apis/enginewright.dev/v1alpha1";
        let request = http::Request::get(path)
            .body(Vec::new())
            .expect("a request");
        client.request_text(request).await.unwrap_or_default()
    };
    let published = async {
        loop {
            let text = document().await;
            if text.contains("/inferenceengines/") && text.contains("/edgenodes/") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(START, published)
        .await
        .expect("the definitions are published in time");
}

async fn default_service_account(client: Client, namespace: &str) {
    let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
    let exists = await_condition(accounts, "default", |found: Option<&ServiceAccount>| {
        found.is_some()
    });
    tokio::time::timeout(CONTROLLERS, exists)
        .await
        .expect("the controllers make the service account in time")
        .expect("service accounts can be watched");
}
