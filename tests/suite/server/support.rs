//! A server whose model says what the test wants: every byte is a token, a few more are control
//! tokens, the template is `ChatML`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use enginewright::backend::TokenId;
use enginewright::backend::scripted::{Control, Script, ScriptedLoader, reply};
use enginewright::server::auth::ApiKeys;
use enginewright::server::metrics::Metrics;
use enginewright::server::model::{ModelCard, ServedModel};
use enginewright::server::worker::{EngineConfig, spawn};
use enginewright::server::{Phase, ServerConfig, ServerState, Service, router};
use enginewright::text::TextModel;
use enginewright::text::template::ChatTemplate;
use enginewright::text::tokenizer::{
    PreTokenizer, TokenKind, Tokenizer, Vocabulary, VocabularyKind,
};
use enginewright::wire::{ndjson, sse};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

/// The token that ends an answer: `<|im_end|>`.
pub const END: TokenId = 257;
/// Tokens of a slot.
pub const CONTEXT: u32 = 2048;

const SPECIALS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// `ChatML`, with a way to make it raise.
const TEMPLATE: &str = "{% for message in messages %}{% if message.content == 'raise' %}\
    {{ raise_exception('not this word') }}{% endif %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The text layer: bytes as tokens.
pub fn byte_text() -> Arc<TextModel> {
    // GPT-2's printable alphabet of bytes.
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256..;
    let letters = (0..256).map(|byte| {
        let letter = if plain(byte) {
            byte
        } else {
            spare.next().unwrap()
        };
        char::from_u32(letter).unwrap().to_string()
    });
    let tokens: Vec<String> = letters.chain(SPECIALS.map(String::from)).collect();
    let mut kinds = vec![TokenKind::Normal; 256];
    kinds.extend([TokenKind::Control; 2]);
    let tokenizer = Tokenizer::new(Vocabulary {
        kind: VocabularyKind::ByteLevelBpe(PreTokenizer::Gpt2),
        tokens,
        kinds,
        scores: vec![],
        merges: vec![],
        ignore_merges: false,
        bos: None,
        eos: Some(END),
        ends: vec![END],
        add_bos: false,
    })
    .unwrap();
    let template = ChatTemplate::new(TEMPLATE, "", SPECIALS[1], &SPECIALS).unwrap();
    Arc::new(TextModel::new(tokenizer, template).unwrap())
}

/// A text as tokens.
pub fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// How a test server is made.
pub struct Builder {
    script: Script,
    config: ServerConfig,
    keys: ApiKeys,
    slots: u32,
    queue: u32,
}

/// A server that answers everything with `text`.
pub fn saying(text: &str) -> Builder {
    Builder {
        script: reply(tokens(text), END),
        config: ServerConfig::new("Scripted"),
        keys: ApiKeys::default(),
        slots: 2,
        queue: 2,
    }
}

impl Builder {
    /// With this change of the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// With these keys.
    pub fn keys(mut self, text: &str) -> Self {
        self.keys = ApiKeys::parse(text).unwrap();
        self
    }

    /// With so many slots, and so many places in the queue.
    pub fn places(mut self, slots: u32, queue: u32) -> Self {
        (self.slots, self.queue) = (slots, queue);
        self
    }

    /// Not loaded yet.
    pub fn empty(self) -> Arc<ServerState> {
        ServerState::new(self.config, self.keys, Arc::new(Metrics::new("Scripted")))
    }

    /// Loaded and ready.
    pub fn start(self) -> Server {
        let (script, slots, queue) = (Arc::clone(&self.script), self.slots, self.queue);
        let state = self.empty();
        let (service, control) = service(&state, script, slots, queue);
        state.install(service);
        state.advance(Phase::Ready);
        Server {
            router: router(Arc::clone(&state)),
            state,
            control,
        }
    }
}

/// A loaded service on the scripted back end.
pub fn service(state: &ServerState, script: Script, slots: u32, queue: u32) -> (Service, Control) {
    let text = byte_text();
    let mut loader = ScriptedLoader::new(script, text.tokenizer.vocabulary_size()).slots(slots);
    loader.capabilities.context_tokens = CONTEXT;
    let control = loader.control.clone();
    let config = EngineConfig {
        queue,
        ..EngineConfig::default()
    };
    let observer = Arc::clone(&state.metrics);
    let engine = spawn(Box::new(loader), Arc::clone(&text), config, observer).unwrap();
    let card = ModelCard {
        family: "llama".into(),
        parameters: 134_515_008,
        quantization: "Q4_1".into(),
        digest: "ab".repeat(32),
        ..ModelCard::default()
    };
    let model = ServedModel::new("test-model".into(), vec!["other-name".into()], text, card);
    (Service { model, engine }, control)
}

/// A running server.
pub struct Server {
    pub state: Arc<ServerState>,
    pub router: Router,
    pub control: Control,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The data of server-sent events.
    pub fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        sse::Decoder::new().push(&self.body, &mut events).unwrap();
        events.into_iter().map(|event| event.data).collect()
    }

    /// The lines of newline-delimited JSON.
    pub fn lines(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        ndjson::Decoder::new().push(&self.body, &mut lines).unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// A request with a body.
pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

/// A request without a body.
pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// Sends a request to a router and reads the answer to its end.
pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let collect = tokio::time::timeout(Duration::from_secs(30), body.collect());
    let body = collect
        .await
        .expect("an answer within 30 s")
        .unwrap()
        .to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

impl Server {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(post(path, body.to_string())).await
    }

    /// A streaming answer whose body is read by the test.
    pub async fn open(&self, path: &str, body: &Value) -> axum::response::Response {
        self.router
            .clone()
            .oneshot(post(path, body.to_string()))
            .await
            .unwrap()
    }

    /// Waits until the engine is as `wanted`.
    pub async fn until(
        &self,
        what: &str,
        wanted: impl Fn(enginewright::server::worker::EngineStats) -> bool,
    ) {
        let engine = &self.state.loaded().unwrap().engine;
        for _ in 0..2000 {
            if wanted(engine.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the engine never was: {what}: {:?}", engine.stats());
    }
}

/// The next frame of a streaming body, as text.
pub async fn next_frame(body: &mut Body) -> Option<String> {
    let frame = tokio::time::timeout(Duration::from_secs(30), body.frame());
    let frame = frame.await.expect("a frame within 30 s")?.unwrap();
    frame
        .data_ref()
        .map(|data| String::from_utf8_lossy(data).into_owned())
}

/// A greedy chat request.
pub fn chat(content: &str) -> Value {
    serde_json::json!({
        "model": "test-model", "temperature": 0,
        "messages": [{ "role": "user", "content": content }],
    })
}

/// `body` with more fields.
pub fn and(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}
