//! One request on its way: to the first upstream that answers, and on to the next when that one
//! fails, until the client has the whole answer or an honest error.
//!
//! What to do after a failure is decided by [`Ledger::after_failure`]; who may be asked, by the
//! breakers. Here bytes are moved and verdicts carried out.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;

use super::ask::Ask;
use super::chunk::{Frame, reported_error};
use super::client::UpstreamBody;
use super::emit::{Emitter, Identity};
use super::endpoint::Api;
use super::failure::Failure;
use super::fallback::{self, SoFar};
use super::ledger::{Ledger, Next};
use super::mark::Resumed;
use super::routes::UpstreamKind;
use super::source::{Dialect, Patience, Source, since_epoch};
use super::state::{Gateway, Lease, Line, Snapshot, Target};
use super::verdict::{self, Verdict};
use super::wanted::Wanted;
use super::whole::Whole;
use crate::wire::openai::FinishReason;
use crate::wire::{ApiError, ErrorKind, JSON_CONTENT_TYPE, REQUEST_ID_HEADER};

/// Longest body of a refusal that is passed on.
const REFUSAL_BYTES: usize = 1 << 20;

/// A request being answered.
#[derive(Debug)]
pub struct Relay {
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    ask: Ask,
    request_id: HeaderValue,
    began: Instant,
    tried: Vec<Target>,
    problems: Vec<String>,
    ledger: Ledger,
    current: Option<Attempt>,
    resumed: Option<Resumed>,
    outcome: Option<&'static str>,
}

#[derive(Debug)]
struct Attempt {
    target: Target,
    lease: Lease,
    source: Source,
}

/// What an upstream said to a request.
enum Opened {
    /// It generates.
    Source(Source),
    /// It refuses, rightly: the client is told.
    Refusal(Response<Bytes>),
}

/// The beginning of an answer.
#[derive(Debug)]
pub enum Begun {
    /// The first events; more come from [`Relay::next`].
    Stream(Vec<Frame>),
    /// A refusal to be passed on, with the back end that refused.
    Refusal(Response<Bytes>),
}

impl Relay {
    /// A request that was checked.
    pub fn new(gateway: Arc<Gateway>, ask: Ask, request_id: HeaderValue) -> Self {
        gateway.metrics.in_flight(1);
        Self {
            snapshot: gateway.snapshot(),
            gateway,
            ask,
            request_id,
            began: Instant::now(),
            tried: Vec::new(),
            problems: Vec::new(),
            ledger: Ledger::default(),
            current: None,
            resumed: None,
            outcome: None,
        }
    }

    /// Name of the back end that answers.
    pub fn backend(&self) -> &str {
        let line = self
            .tried
            .last()
            .and_then(|target| self.snapshot.line(*target));
        line.map_or("None", |line| line.upstream.backend.as_str())
    }

    /// Finds an upstream that generates and returns what it said up to its first token.
    ///
    /// # Errors
    /// 503 when none does; 400 for what cannot be translated.
    pub async fn begin(&mut self) -> Result<Begun, ApiError> {
        loop {
            let (target, lease) = self.admit()?;
            match self.open(target, None).await {
                Ok(Opened::Refusal(response)) => {
                    lease.succeeded();
                    self.outcome = Some("refused");
                    return Ok(Begun::Refusal(response));
                }
                Ok(Opened::Source(source)) => {
                    self.current = Some(Attempt {
                        target,
                        lease,
                        source,
                    });
                    if let Some(held) = self.first_frames().await {
                        return Ok(Begun::Stream(held));
                    }
                }
                Err(Trouble::Upstream(failure)) => self.note(target, lease, &failure),
                Err(Trouble::Request(error)) => {
                    self.outcome = Some(outcome_of(&error));
                    return Err(error);
                }
            }
        }
    }

    /// The whole answer, for a client that does not read a stream. The client has seen nothing, so
    /// whatever fails is simply begun anew elsewhere.
    ///
    /// # Errors
    /// As [`Relay::begin`].
    pub async fn whole(&mut self) -> Result<Response<Bytes>, ApiError> {
        loop {
            let held = match self.begin().await? {
                Begun::Refusal(response) => return Ok(response),
                Begun::Stream(held) => held,
            };
            let mut whole = Whole::default();
            held.into_iter().for_each(|frame| whole.add(frame));
            while !self.ledger.closed {
                match self.read().await {
                    Ok(frame) => whole.add(frame),
                    Err(failure) => {
                        self.give_up_current(&failure);
                        break;
                    }
                }
            }
            if self.ledger.closed
                && let Some(answer) = whole.finish()
            {
                self.finish().await;
                let mut response = Response::new(Bytes::from(answer.to_string()));
                let json = HeaderValue::from_static(JSON_CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                return Ok(response);
            }
            self.ledger = Ledger::default();
        }
    }

    /// More of the stream; `None` at its end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.outcome.is_some() {
            return None;
        }
        if self.ledger.closed {
            self.finish().await;
            return None;
        }
        let cut = self.gateway.cut.clone();
        let read = tokio::select! {
            biased;
            read = self.read() => read,
            () = cut.cancelled() => {
                return Some(self.break_off("the gateway is shutting down"));
            }
        };
        match read {
            Ok(frame) => Some(self.encode(&frame)),
            Err(failure) => {
                let reason = self.give_up_current(&failure);
                Some(self.go_on(&reason).await)
            }
        }
    }

    /// The frame as the client gets it.
    pub fn encode(&self, frame: &Frame) -> Bytes {
        let marked = self
            .resumed
            .as_ref()
            .and_then(|resumed| resumed.mark(frame));
        marked.as_ref().unwrap_or(frame).to_bytes(self.ask.api)
    }

    /// The stream broke after its first token.
    async fn go_on(&mut self, reason: &str) -> Bytes {
        let wanted = Wanted::read(&self.ask).map_err(|error| error.message);
        let template = self.snapshot.template.is_some();
        let next = self
            .ledger
            .after_failure(wanted.as_ref().map_err(String::as_str), template);
        match next {
            Next::Close => self.close(FinishReason::Stop),
            Next::CloseAtLimit => self.close(FinishReason::Length),
            Next::GiveUp(why) => self.break_off(&format!("{reason}; {why}")),
            Next::Restart => self.continue_elsewhere(None).await,
            Next::Continue { tokens_left } => self.continue_elsewhere(Some(tokens_left)).await,
        }
    }

    async fn continue_elsewhere(&mut self, tokens_left: Option<Option<u32>>) -> Bytes {
        loop {
            let (target, lease) = match self.admit() {
                Ok(admitted) => admitted,
                Err(error) => return self.break_off(&error.message),
            };
            match self.open(target, tokens_left).await {
                Ok(Opened::Refusal(response)) => {
                    lease.succeeded();
                    let status = response.status();
                    let why = format!("{} refused to go on ({status})", self.backend());
                    return self.break_off(&why);
                }
                Ok(Opened::Source(mut source)) => {
                    let first = tokio::select! {
                        biased;
                        first = source.next() => first,
                        () = self.gateway.cut.cancelled() => {
                            return self.break_off("the gateway is shutting down");
                        }
                    };
                    match first {
                        Ok(frame) => return self.resume(target, lease, source, &frame),
                        Err(failure) => self.note(target, lease, &failure),
                    }
                }
                Err(Trouble::Upstream(failure)) => self.note(target, lease, &failure),
                Err(Trouble::Request(error)) => return self.break_off(&error.message),
            }
        }
    }

    fn resume(&mut self, target: Target, lease: Lease, source: Source, frame: &Frame) -> Bytes {
        let resumed = Resumed {
            backend: self.backend().to_owned(),
            after_characters: self.ledger.text.chars().count(),
            reason: self.problems.last().cloned().unwrap_or_default(),
        };
        tracing::info!(
            backend = resumed.backend,
            after = resumed.after_characters,
            reason = resumed.reason,
            "an answer goes on elsewhere"
        );
        let mut bytes = Vec::from(resumed.comment(self.ask.api));
        self.gateway.metrics.continued();
        self.resumed = Some(resumed);
        lease.first_token();
        self.current = Some(Attempt {
            target,
            lease,
            source,
        });
        self.ledger.observe(frame);
        bytes.extend_from_slice(&self.encode(frame));
        bytes.into()
    }

    /// Ends a stream of which every token was sent.
    fn close(&mut self, reason: FinishReason) -> Bytes {
        let mut emitter = self.emitter();
        let mut bytes = Vec::new();
        for frame in emitter.close(&self.ledger, reason, since_epoch()) {
            bytes.extend_from_slice(&self.encode(&frame));
        }
        self.outcome = Some("ok");
        bytes.into()
    }

    /// Ends a stream with an error event in the API's own shape.
    fn break_off(&mut self, why: &str) -> Bytes {
        self.current = None;
        self.outcome = Some("broken");
        tracing::warn!(request = ?self.request_id, why, "an answer was broken off");
        ApiError::new(
            ErrorKind::Interrupted,
            format!("the answer could not be completed: {why}"),
        )
        .to_stream_event(self.ask.api.protocol())
    }

    async fn first_frames(&mut self) -> Option<Vec<Frame>> {
        let mut held = Vec::new();
        loop {
            match self.read().await {
                Ok(frame) => held.push(frame),
                Err(failure) => {
                    self.give_up_current(&failure);
                    self.ledger = Ledger::default();
                    return None;
                }
            }
            if self.ledger.has_output() || self.ledger.closed {
                if let Some(attempt) = &self.current {
                    attempt.lease.first_token();
                    let after = self.began.elapsed();
                    self.gateway
                        .metrics
                        .first_token(attempt.target.name(), after);
                }
                return Some(held);
            }
        }
    }

    async fn read(&mut self) -> Result<Frame, Failure> {
        let Some(attempt) = &mut self.current else {
            return Err(Failure::Cut("nothing answers".into()));
        };
        let frame = attempt.source.next().await?;
        self.ledger.observe(&frame);
        Ok(frame)
    }

    async fn finish(&mut self) {
        self.outcome = Some(if self.resumed.is_some() {
            "resumed"
        } else {
            "ok"
        });
        if let Some(attempt) = self.current.take() {
            attempt.lease.succeeded();
            attempt.source.finish().await;
        }
    }

    /// Drops the source that failed; returns the words for it.
    fn give_up_current(&mut self, failure: &Failure) -> String {
        if let Some(attempt) = self.current.take() {
            self.note(attempt.target, attempt.lease, failure);
        }
        self.problems.last().cloned().unwrap_or_default()
    }

    fn note(&mut self, target: Target, lease: Lease, failure: &Failure) {
        lease.failed();
        self.gateway.metrics.failed(target.name(), failure.class());
        let backend = self.backend().to_owned();
        tracing::warn!(
            request = ?self.request_id, upstream = target.name(), backend,
            class = failure.class(), %failure, "an upstream failed a request"
        );
        self.problems.push(format!("{backend}: {failure}"));
    }

    /// The next upstream that may be asked.
    fn admit(&mut self) -> Result<(Target, Lease), ApiError> {
        let mut retry_in = None;
        for target in [Target::Primary, Target::Fallback] {
            if self.tried.contains(&target) {
                continue;
            }
            let other = match target {
                Target::Primary => Target::Fallback,
                Target::Fallback => Target::Primary,
            };
            let alternative = !self.tried.contains(&other) && self.snapshot.line(other).is_some();
            match self.gateway.admit(&self.snapshot, target, alternative) {
                None => {}
                Some(Ok(lease)) => {
                    self.tried.push(target);
                    return Ok((target, lease));
                }
                Some(Err(millis)) => {
                    retry_in = Some(retry_in.map_or(millis, |least: u64| least.min(millis)));
                }
            }
        }
        self.outcome = Some("unavailable");
        Err(self.unavailable(retry_in))
    }

    fn unavailable(&self, retry_in: Option<u64>) -> ApiError {
        let why = if !self.problems.is_empty() {
            self.problems.join("; ")
        } else if retry_in.is_some() {
            "each failed repeatedly a moment ago and is being probed".to_owned()
        } else {
            "none is configured yet".to_owned()
        };
        let after = std::time::Duration::from_millis(retry_in.unwrap_or(1_000));
        ApiError::new(
            ErrorKind::Unavailable,
            format!("no back end can answer: {why}"),
        )
        .retry_after(after)
    }

    fn emitter(&self) -> Emitter {
        let stamp = since_epoch();
        let prefix = match self.ask.api {
            Api::Completion => "cmpl",
            _ => "chatcmpl",
        };
        let identity = Identity {
            id: format!(
                "{prefix}-{}",
                self.request_id.to_str().unwrap_or("0").replace('-', "")
            ),
            created: stamp.as_secs(),
            model: self.snapshot.table.served_name.clone(),
        };
        let usage = self.ask.include_usage || !self.ask.stream;
        Emitter::new(self.ask.api, identity, usage, &self.ledger)
    }

    /// Sends the request, or its continuation.
    async fn open(
        &mut self,
        target: Target,
        go_on: Option<Option<u32>>,
    ) -> Result<Opened, Trouble> {
        let Some(line) = self.snapshot.line(target) else {
            return Err(Trouble::Upstream(Failure::Connect(
                "it is not configured".into(),
            )));
        };
        let (path, body, dialect) = self.request(line, go_on)?;
        let timeouts = &self.snapshot.table.timeouts;
        let is_fallback = target == Target::Fallback;
        let patience = Patience {
            first_token: timeouts.first_token(is_fallback),
            stall: timeouts.stall(is_fallback),
        };
        let sent = Instant::now();
        let request = self.http_request(line, path, body)?;
        let response = tokio::time::timeout_at(
            sent + patience.first_token,
            self.snapshot.client.send(request),
        )
        .await
        .map_err(|_| Trouble::Upstream(Failure::FirstToken(patience.first_token)))?
        .map_err(|error| Trouble::Upstream(error.into()))?;
        if response.status() == StatusCode::OK {
            let body = response.into_body();
            return Ok(Opened::Source(Source::new(body, dialect, patience, sent)));
        }
        refusal(
            self.ask.api,
            response,
            line,
            &dialect,
            sent + patience.first_token,
        )
        .await
    }

    fn request(
        &self,
        line: &Line,
        go_on: Option<Option<u32>>,
    ) -> Result<(&'static str, Bytes, Dialect), Trouble> {
        let upstream = &line.upstream;
        let served = &self.snapshot.table.served_name;
        if upstream.kind == UpstreamKind::Enginewright && go_on.is_none() {
            let rename = (*served != upstream.model).then(|| served.clone());
            let dialect = Dialect::Same {
                api: self.ask.api,
                rename,
            };
            let body = self.ask.for_same_api(&upstream.model);
            return Ok((self.ask.api.streaming_path(), body, dialect));
        }
        let wanted = Wanted::read(&self.ask).map_err(Trouble::Request)?;
        let so_far = go_on.map(|tokens_left| SoFar {
            text: &self.ledger.text,
            tokens_left,
        });
        let template = self.snapshot.template.as_deref();
        let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
        let call = fallback::call(&wanted, upstream, template, so_far, now)
            .map_err(|error| Trouble::Request(self.with_problems(error)))?;
        let dialect = Dialect::Translated(Box::new(call.reader), Box::new(self.emitter()));
        Ok((call.path, call.body, dialect))
    }

    fn with_problems(&self, error: ApiError) -> ApiError {
        if error.kind != ErrorKind::Unavailable {
            return error;
        }
        let mut message = error.message.clone();
        if !self.problems.is_empty() {
            message = format!("{message} ({})", self.problems.join("; "));
        }
        ApiError { message, ..error }.retry_after(std::time::Duration::from_secs(5))
    }

    fn http_request(
        &self,
        line: &Line,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::post(line.upstream.at(path))
            .header(header::CONTENT_TYPE, JSON_CONTENT_TYPE)
            .header(REQUEST_ID_HEADER, &self.request_id);
        if let Some(key) = &line.authorization {
            request = request.header(header::AUTHORIZATION, key);
        }
        request
            .body(Full::new(body))
            .map_err(|error| Trouble::Upstream(Failure::Connect(error.to_string())))
    }
}

/// An answer other than 200: the upstream's failure, or the client's mistake.
async fn refusal(
    api: Api,
    response: Response<UpstreamBody>,
    line: &Line,
    dialect: &Dialect,
    deadline: Instant,
) -> Result<Opened, Trouble> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, REFUSAL_BYTES).collect();
    let body = match tokio::time::timeout_at(deadline, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let told = reported_error(&String::from_utf8_lossy(&body));
    let ollama = line.upstream.kind == UpstreamKind::Ollama;
    match verdict::of_status(head.status, ollama, told.as_deref()) {
        Verdict::Failure => {
            let words = told
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            Err(Trouble::Upstream(Failure::Status(
                head.status.as_u16(),
                words,
            )))
        }
        Verdict::PassOn if matches!(dialect, Dialect::Same { .. }) => {
            let mut answer = Response::new(body);
            *answer.status_mut() = head.status;
            for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
                if let Some(value) = head.headers.get(&name) {
                    answer.headers_mut().insert(name, value.clone());
                }
            }
            Ok(Opened::Refusal(answer))
        }
        Verdict::PassOn => {
            let message = told.unwrap_or_else(|| format!("refused with {}", head.status));
            let error = verdict::translated(head.status, message);
            Ok(Opened::Refusal(error.to_response(api.protocol())))
        }
    }
}

/// Why a request was not opened.
enum Trouble {
    /// The upstream's fault: the next one is asked.
    Upstream(Failure),
    /// The request's: it cannot be put to this upstream.
    Request(ApiError),
}

const fn outcome_of(error: &ApiError) -> &'static str {
    match error.kind {
        ErrorKind::Unavailable => "unavailable",
        _ => "refused",
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.gateway.metrics.in_flight(-1);
        self.gateway
            .metrics
            .ended(self.ask.api.name(), self.outcome.unwrap_or("gone"));
    }
}
