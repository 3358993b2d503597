//! One request on its way: to the first upstream that answers, and on to the next when that one
//! fails, until the client has the whole answer or an honest error.
//!
//! What to do after a failure is decided by [`Ledger::after_failure`]; who may be asked, by the
//! breakers. Here verdicts are carried out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use tokio::time::Instant;

use super::ask::Ask;
use super::attempt::{Errand, GoOn, Opened, Trouble, overflow, send};
use super::chunk::Frame;
use super::failure::Failure;
use super::ledger::{Ledger, Next};
use super::mark::Resumed;
use super::source::{Source, since_epoch};
use super::state::{Gateway, Lease, Snapshot, Target};
use super::wanted::Wanted;
use super::whole::Whole;
use crate::wire::openai::FinishReason;
use crate::wire::{ApiError, ErrorKind, JSON_CONTENT_TYPE};

const SHUTTING_DOWN: &str = "the gateway is shutting down";

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

/// The beginning of an answer.
#[derive(Debug)]
pub enum Begun {
    /// The first events; more come from [`Relay::next`].
    Stream(Vec<Frame>),
    /// A whole answer: a refusal, or what needs no generation.
    Answer(Response<Bytes>),
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
                Ok(Opened::Answer(response)) => {
                    lease.succeeded();
                    self.outcome = Some(if response.status().is_success() {
                        "ok"
                    } else {
                        "refused"
                    });
                    return Ok(Begun::Answer(response));
                }
                Ok(Opened::Source(source)) => {
                    self.current = Some(Attempt {
                        target,
                        lease,
                        source,
                    });
                    if let Some(held) = self.first_frames().await? {
                        return Ok(Begun::Stream(held));
                    }
                }
                Err(Trouble::Upstream(failure)) => self.note(target, lease, &failure),
                Err(Trouble::Request(error)) => return Err(self.refuse(error)),
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
                Begun::Answer(response) => return Ok(response),
                Begun::Stream(held) => held,
            };
            let mut whole = Whole::default();
            for frame in held {
                whole.add(frame);
            }
            let cut = self.gateway.cut.clone();
            while !self.ledger.closed {
                let read = tokio::select! {
                    biased;
                    read = self.read() => read,
                    () = cut.cancelled() => {
                        let error = ApiError::new(ErrorKind::Unavailable, SHUTTING_DOWN);
                        return Err(self.refuse(error.retry_after(Duration::from_secs(1))));
                    }
                };
                match read {
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
            () = cut.cancelled() => return Some(self.break_off(SHUTTING_DOWN)),
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
        let template = self.snapshot.template.is_some();
        let next = match Wanted::read(&self.ask) {
            Ok(Some(wanted)) => self.ledger.after_failure(Ok(&wanted), template),
            Ok(None) => self
                .ledger
                .after_failure(Err("there was nothing to answer"), template),
            Err(error) => self.ledger.after_failure(Err(&error.message), template),
        };
        match next {
            Next::Close => self.close(FinishReason::Stop),
            Next::CloseAtLimit => self.close(FinishReason::Length),
            Next::GiveUp(why) => self.break_off(&format!("{reason}; {why}")),
            Next::Restart => self.continue_elsewhere(None).await,
            Next::Continue { tokens_left } => self.continue_elsewhere(Some(tokens_left)).await,
        }
    }

    async fn continue_elsewhere(&mut self, go_on: GoOn) -> Bytes {
        let cut = self.gateway.cut.clone();
        loop {
            let (target, lease) = match self.admit() {
                Ok(admitted) => admitted,
                Err(error) => return self.break_off(&error.message),
            };
            let opened = tokio::select! {
                biased;
                opened = self.open_and_read(target, go_on) => opened,
                () = cut.cancelled() => return self.break_off(SHUTTING_DOWN),
            };
            match opened {
                Ok(Ok((source, frame))) => return self.resume(target, lease, source, &frame),
                Ok(Err(response)) => {
                    lease.succeeded();
                    let status = response.status();
                    let why = format!("{} refused to go on ({status})", self.backend());
                    return self.break_off(&why);
                }
                Err(Trouble::Upstream(failure)) => self.note(target, lease, &failure),
                Err(Trouble::Request(error)) => return self.break_off(&error.message),
            }
        }
    }

    /// A source and its first event, or the answer that there will be none.
    async fn open_and_read(
        &mut self,
        target: Target,
        go_on: GoOn,
    ) -> Result<Result<(Source, Frame), Response<Bytes>>, Trouble> {
        match self.open(target, go_on).await? {
            Opened::Answer(response) => Ok(Err(response)),
            Opened::Source(mut source) => {
                let frame = source.next().await.map_err(Trouble::Upstream)?;
                Ok(Ok((source, frame)))
            }
        }
    }

    async fn open(&mut self, target: Target, go_on: GoOn) -> Result<Opened, Trouble> {
        let ready = self
            .errand()
            .prepare(target, go_on)
            .map_err(|trouble| match trouble {
                Trouble::Request(error) => Trouble::Request(self.with_problems(error)),
                upstream @ Trouble::Upstream(_) => upstream,
            })?;
        let snapshot = Arc::clone(&self.snapshot);
        send(&snapshot, target, self.ask.api, ready).await
    }

    fn errand(&self) -> Errand<'_> {
        Errand {
            snapshot: &self.snapshot,
            ask: &self.ask,
            ledger: &self.ledger,
            request_id: &self.request_id,
        }
    }

    fn resume(&mut self, target: Target, lease: Lease, source: Source, frame: &Frame) -> Bytes {
        let resumed = Resumed {
            backend: self.backend().to_owned(),
            after_characters: self.ledger.text.chars().count(),
            reason: self.problems.last().cloned().unwrap_or_default(),
        };
        tracing::info!(
            request_id = ?self.request_id, backend = resumed.backend,
            after = resumed.after_characters, reason = resumed.reason,
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
        let mut emitter = self.errand().emitter();
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
        tracing::warn!(request_id = ?self.request_id, why, "an answer was broken off");
        ApiError::new(
            ErrorKind::Interrupted,
            format!("the answer could not be completed: {why}"),
        )
        .to_stream_event(self.ask.api.protocol())
    }

    /// The events up to the first token; `None`: the source failed before.
    async fn first_frames(&mut self) -> Result<Option<Vec<Frame>>, ApiError> {
        let mut held = Vec::new();
        loop {
            match self.read().await {
                Ok(frame) => held.push(frame),
                Err(failure) => {
                    if let Some(error) = overflow(&failure) {
                        return Err(self.refuse(error));
                    }
                    self.give_up_current(&failure);
                    self.ledger = Ledger::default();
                    return Ok(None);
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
                return Ok(Some(held));
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
            request_id = ?self.request_id, upstream = target.name(), backend,
            class = failure.class(), %failure, "an upstream failed a request"
        );
        self.problems.push(format!("{backend}: {failure}"));
    }

    fn refuse(&mut self, error: ApiError) -> ApiError {
        self.outcome = Some(match error.kind {
            ErrorKind::Unavailable => "unavailable",
            _ => "refused",
        });
        error
    }

    /// The next upstream that may be asked.
    fn admit(&mut self) -> Result<(Target, Lease), ApiError> {
        let mut retry_in = None;
        for target in [Target::Primary, Target::Fallback] {
            if self.tried.contains(&target) {
                continue;
            }
            let other = target.other();
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
        let error = self.unavailable(retry_in);
        Err(self.refuse(error))
    }

    fn unavailable(&self, retry_in: Option<u64>) -> ApiError {
        let why = if !self.problems.is_empty() {
            self.problems.join("; ")
        } else if retry_in.is_some() {
            "each failed repeatedly a moment ago and is being probed".to_owned()
        } else {
            "none is configured yet".to_owned()
        };
        let after = Duration::from_millis(retry_in.unwrap_or(1_000));
        ApiError::new(
            ErrorKind::Unavailable,
            format!("no back end can answer: {why}"),
        )
        .retry_after(after)
    }

    fn with_problems(&self, error: ApiError) -> ApiError {
        if error.kind != ErrorKind::Unavailable {
            return error;
        }
        let mut message = error.message.clone();
        if !self.problems.is_empty() {
            message = format!("{message} ({})", self.problems.join("; "));
        }
        ApiError { message, ..error }.retry_after(Duration::from_secs(5))
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
