//! One request to one upstream: what is sent, and whether it is answered, refused or failed.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;

use super::ask::Ask;
use super::chunk::reported_error;
use super::client::UpstreamBody;
use super::emit::{Emitter, Identity};
use super::endpoint::Api;
use super::failure::Failure;
use super::fallback;
use super::ledger::Ledger;
use super::openai;
use super::routes::UpstreamKind;
use super::source::{Dialect, Patience, Source, Translation, since_epoch};
use super::state::{Line, Snapshot, Target};
use super::verdict::{self, Verdict};
use super::wanted::{SoFar, Wanted};
use crate::server::answer::{OllamaShape, loaded};
use crate::wire::{ApiError, ErrorKind, JSON_CONTENT_TYPE, REQUEST_ID_HEADER};

/// Longest body of a refusal that is passed on.
const REFUSAL_BYTES: usize = 1 << 20;

/// What an upstream said to a request.
#[derive(Debug)]
pub enum Opened {
    /// It generates.
    Source(Source),
    /// It refuses, rightly, or there is nothing to generate: the client is told.
    Answer(Response<Bytes>),
}

/// Why a request was not opened.
#[derive(Debug)]
pub enum Trouble {
    /// The upstream's fault: the next one is asked.
    Upstream(Failure),
    /// The request's: it cannot be put to this upstream.
    Request(ApiError),
}

/// From where a continuation goes on.
pub type GoOn = Option<Option<u32>>;

/// What is asked, whoever is asked.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The routes.
    pub snapshot: &'a Snapshot,
    /// The client's request.
    pub ask: &'a Ask,
    /// What the client has seen.
    pub ledger: &'a Ledger,
    /// The request's identity.
    pub request_id: &'a HeaderValue,
}

/// A request that is ready to be sent, or already answered.
#[derive(Debug)]
pub enum Ready {
    /// Send this.
    Send(Box<Request<Full<Bytes>>>, Box<Dialect>),
    /// Nobody need be asked.
    Answer(Response<Bytes>),
}

impl Errand<'_> {
    /// The writer of this answer's events.
    pub fn emitter(&self) -> Emitter {
        let prefix = match self.ask.api {
            Api::Completion => "cmpl",
            _ => "chatcmpl",
        };
        let id = self.request_id.to_str().unwrap_or("0").replace('-', "");
        let identity = Identity {
            id: format!("{prefix}-{id}"),
            created: since_epoch().as_secs(),
            model: self.snapshot.table.served_name.clone(),
        };
        let usage = self.ask.include_usage || !self.ask.stream;
        Emitter::new(self.ask.api, identity, usage, self.ledger)
    }

    /// The request for `target`; `go_on`: its continuation, with the tokens left.
    ///
    /// # Errors
    /// When it cannot be put to this upstream.
    pub fn prepare(&self, target: Target, go_on: GoOn) -> Result<Ready, Trouble> {
        let Some(line) = self.snapshot.line(target) else {
            let problem = "it is not configured".to_owned();
            return Err(Trouble::Upstream(Failure::Connect(problem)));
        };
        let upstream = &line.upstream;
        let served = &self.snapshot.table.served_name;
        let same = match upstream.kind {
            UpstreamKind::Enginewright => true,
            UpstreamKind::OpenAi => matches!(self.ask.api, Api::Chat | Api::Completion),
            UpstreamKind::Ollama => false,
        };
        if same && go_on.is_none() {
            let rename = (*served != upstream.model).then(|| served.clone());
            let dialect = Dialect::Same {
                api: self.ask.api,
                rename,
            };
            let body = self.ask.for_same_api(&upstream.model);
            return self.ready(line, self.ask.api.streaming_path(), body, dialect);
        }
        let Some(wanted) = Wanted::read(self.ask).map_err(Trouble::Request)? else {
            return Ok(Ready::Answer(loaded_at_once(self.ask.api, served)));
        };
        let text = &self.ledger.text;
        let so_far = go_on.map(|tokens_left| SoFar { text, tokens_left });
        let template = self.snapshot.template.as_deref();
        let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
        let (path, body, translation) = match upstream.kind {
            UpstreamKind::OpenAi => {
                let call = openai::call(&wanted, upstream, template, so_far, now)
                    .map_err(Trouble::Request)?;
                (call.path, call.body, Translation::OpenAi(call.reader))
            }
            UpstreamKind::Enginewright | UpstreamKind::Ollama => {
                let call = fallback::call(&wanted, upstream, template, so_far, now)
                    .map_err(Trouble::Request)?;
                (call.path, call.body, Translation::Ollama(call.reader))
            }
        };
        let dialect = Dialect::Translated(Box::new(translation), Box::new(self.emitter()));
        self.ready(line, path, body, dialect)
    }

    fn ready(
        &self,
        line: &Line,
        path: &str,
        body: Bytes,
        dialect: Dialect,
    ) -> Result<Ready, Trouble> {
        let mut request = Request::post(line.upstream.at(path))
            .header(header::CONTENT_TYPE, JSON_CONTENT_TYPE)
            .header(REQUEST_ID_HEADER, self.request_id);
        if let Some(key) = &line.authorization {
            request = request.header(header::AUTHORIZATION, key);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Trouble::Upstream(Failure::Connect(error.to_string())))?;
        Ok(Ready::Send(Box::new(request), Box::new(dialect)))
    }
}

/// The answer to a request that only wants the model to be there: it is.
fn loaded_at_once(api: Api, served: &str) -> Response<Bytes> {
    let shape = match api {
        Api::OllamaChat => OllamaShape::Chat,
        _ => OllamaShape::Generate,
    };
    let body = loaded(shape, served, since_epoch(), "load");
    let mut response = Response::new(Bytes::from(body.to_string()));
    let json = HeaderValue::from_static(JSON_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Sends a request.
///
/// # Errors
/// [`Trouble`].
pub async fn send(
    snapshot: &Snapshot,
    target: Target,
    api: Api,
    ready: Ready,
) -> Result<Opened, Trouble> {
    let (request, dialect) = match ready {
        Ready::Send(request, dialect) => (*request, *dialect),
        Ready::Answer(response) => return Ok(Opened::Answer(response)),
    };
    let timeouts = &snapshot.table.timeouts;
    let is_fallback = target == Target::Fallback;
    let patience = Patience {
        first_token: timeouts.first_token(is_fallback),
        stall: timeouts.stall(is_fallback),
    };
    let sent = Instant::now();
    let deadline = sent + patience.first_token;
    let response = tokio::time::timeout_at(deadline, snapshot.client.send(request))
        .await
        .map_err(|_| Trouble::Upstream(Failure::FirstToken(patience.first_token)))?
        .map_err(|error| Trouble::Upstream(error.into()))?;
    if response.status() == StatusCode::OK {
        let body = response.into_body();
        return Ok(Opened::Source(Source::new(body, dialect, patience, sent)));
    }
    refusal(
        response,
        matches!(dialect, Dialect::Same { .. }),
        api,
        deadline,
    )
    .await
}

/// An answer other than 200: the upstream's failure, or the client's mistake.
async fn refusal(
    response: Response<UpstreamBody>,
    same_api: bool,
    api: Api,
    deadline: Instant,
) -> Result<Opened, Trouble> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, REFUSAL_BYTES).collect();
    let body = match tokio::time::timeout_at(deadline, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let told = reported_error(&String::from_utf8_lossy(&body));
    match verdict::of_status(head.status, !same_api, told.as_deref()) {
        Verdict::Failure => {
            let words = told
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            Err(Trouble::Upstream(Failure::Status(
                head.status.as_u16(),
                words,
            )))
        }
        Verdict::PassOn if same_api => {
            let mut answer = Response::new(body);
            *answer.status_mut() = head.status;
            for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
                if let Some(value) = head.headers.get(&name) {
                    answer.headers_mut().insert(name, value.clone());
                }
            }
            Ok(Opened::Answer(answer))
        }
        Verdict::PassOn => {
            let message = told.unwrap_or_else(|| format!("refused with {}", head.status));
            let error = verdict::translated(head.status, message);
            Ok(Opened::Answer(error.to_response(api.protocol())))
        }
    }
}

/// What cannot be told by a status, because the answer had begun: the prompt does not fit.
pub fn overflow(failure: &Failure) -> Option<ApiError> {
    match failure {
        Failure::Reported(message) if verdict::is_overflow(message) => {
            Some(ApiError::new(ErrorKind::ContextOverflow, message.clone()))
        }
        _ => None,
    }
}
