//! Clients of an endpoint, as an application is one: a connection for each request, an answer streamed
//! and read to its end. What is no complete answer is a failure, and says why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{LIMIT, Place};

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Who began it.
    pub backend: String,
    pub text: String,
    /// From the request to the first piece of text.
    pub first: Duration,
}

pub fn new() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_mins(2))
        .build()
        .unwrap()
}

/// One streamed answer, or why there was none.
pub async fn stream(
    client: &reqwest::Client,
    origin: &str,
    model: &str,
    tokens: u32,
) -> Result<Answer, String> {
    let begun = Instant::now();
    let body = json!({
        "model": model, "stream": true, "temperature": 0, "max_tokens": tokens,
        "messages": [{"role": "user", "content": "Tell me about the city of Paris."}],
    });
    let url = format!("{origin}/v1/chat/completions");
    let sent = client.post(url).json(&body).send().await;
    let mut response = sent.map_err(|error| format!("no answer: {error:?}"))?;
    let status = response.status();
    let header = response.headers().get("x-enginewright-backend");
    let backend = header.map_or_else(String::new, |one| one.to_str().unwrap().to_owned());
    let (mut bytes, mut first) = (Vec::new(), None);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(format!("{status} from {backend}, cut off: {error:?}")),
        }
        if first.is_none() && !text(&bytes).is_empty() {
            first = Some(begun.elapsed());
        }
    }
    let whole = String::from_utf8_lossy(&bytes);
    let complete = status.is_success() && whole.contains("[DONE]") && !whole.contains("\"error\"");
    match first {
        Some(first) if complete => Ok(Answer {
            backend,
            text: text(&bytes),
            first,
        }),
        _ => Err(format!("{status} from {backend}: {whole}")),
    }
}

/// The text of the events so far.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|event| {
            let content = &event["choices"][0]["delta"]["content"];
            content.as_str().map(str::to_owned)
        })
        .collect()
}

/// Clients that ask without end.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

/// What became of their requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub requests: u32,
    pub failures: Vec<String>,
    /// Who began the answers.
    pub backends: BTreeMap<String, u32>,
}

impl Tally {
    /// Complete answers that `backend` began.
    pub fn of(&self, backend: &str) -> u32 {
        self.backends.get(backend).copied().unwrap_or_default()
    }
}

impl Load {
    /// `clients` at the same time, each for answers of `tokens`.
    pub fn start(place: &Place, model: &str, clients: u32, tokens: u32) -> Self {
        let (cluster, origin) = (place.cluster, place.origin(model));
        let shared = Arc::new(Shared::default());
        let threads = (0..clients)
            .map(|_| {
                let (shared, origin) = (Arc::clone(&shared), origin.clone());
                let model = model.to_owned();
                std::thread::spawn(move || {
                    let asking = async |_| ask(&shared, &origin, &model, tokens).await;
                    cluster.node.run(asking);
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// What they have so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().unwrap().clone()
    }

    /// Waits until they have `more` answers than now that `backend` began.
    pub fn wait_for(&self, backend: &str, more: u32) {
        let wanted = self.tally().of(backend) + more;
        let what = format!("{wanted} answers of {backend}");
        self.wait_until(&what, |tally| tally.of(backend) >= wanted);
    }

    /// Waits until they have asked `requests` times in all.
    pub fn reach(&self, requests: u32) {
        self.wait_until(&format!("{requests} requests"), |tally| {
            tally.requests >= requests
        });
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Tally) -> bool) {
        let begun = Instant::now();
        loop {
            let tally = self.tally();
            if holds(&tally) {
                return;
            }
            assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
            assert!(begun.elapsed() < LIMIT, "{what} do not come: {tally:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The clients read their last answers and go.
    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().unwrap();
        }
        self.tally()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn ask(shared: &Shared, origin: &str, model: &str, tokens: u32) {
    let client = new();
    while !shared.stop.load(Ordering::Relaxed) {
        shared.tally.lock().unwrap().requests += 1;
        let asked = Instant::now();
        match stream(&client, origin, model, tokens).await {
            Ok(answer) => {
                let mut tally = shared.tally.lock().unwrap();
                *tally.backends.entry(answer.backend).or_default() += 1;
            }
            Err(problem) => {
                let problem = format!("after {:?}: {problem}", asked.elapsed());
                shared.tally.lock().unwrap().failures.push(problem);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
