//! The first generation: a server that has not produced a token is not ready, however healthy its
//! process looks.

use std::sync::Arc;
use std::time::Duration;

use super::generation::GenerationEvent;
use super::request::{Chat, Drawing, Form, Input, Limit, Surroundings, Task, prepare};
use super::state::Service;
use crate::text::sampling::SamplingParams;
use crate::text::template::ChatMessage;

/// Longest time the first generation may take: a large model pages in from a slow disk.
const PATIENCE: Duration = Duration::from_mins(5);
/// Tokens it must produce.
const TOKENS: u32 = 4;

/// Generates a few tokens.
///
/// # Errors
/// Why that was not possible.
pub(super) async fn warm_up(service: &Arc<Service>) -> Result<(), String> {
    let task = |input| Task {
        input,
        drawing: Drawing {
            params: SamplingParams {
                temperature: 0.0,
                ..SamplingParams::default()
            },
            seed: Some(0),
        },
        limit: Limit::AtMost(TOKENS),
        stop: Vec::new(),
        form: Form::Text,
        top_logprobs: None,
        ignore_eos: true,
    };
    let around = Surroundings {
        text: &service.model.text,
        context_tokens: service.engine.capabilities().context_tokens,
        longest_token: service.model.longest_token,
        id: "warm-up".into(),
        random_seed: 0,
        now: 0,
    };
    let messages = vec![ChatMessage::new("user", "Hello")];
    let chat = Input::Chat(Chat {
        messages,
        ..Chat::default()
    });
    // A template that refuses these words is no reason not to serve plain completions.
    let prepared = prepare(task(chat), &around)
        .or_else(|_| prepare(task(Input::Text("Hello".into())), &around))
        .map_err(|error| error.to_string())?;
    let mut stream = service
        .engine
        .submit(prepared.request)
        .map_err(|error| error.to_string())?;
    let finished = async {
        loop {
            match stream.next().await {
                Some(GenerationEvent::Delta { .. }) => {}
                Some(GenerationEvent::Finished { usage, .. }) if usage.completion_tokens > 0 => {
                    return Ok(());
                }
                Some(GenerationEvent::Finished { .. }) => {
                    return Err("the model generated nothing".to_owned());
                }
                Some(GenerationEvent::Failed(error)) => return Err(error.to_string()),
                None => return Err("the engine ended without an answer".to_owned()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, finished)
        .await
        .map_err(|_| format!("no {TOKENS} tokens within {} s", PATIENCE.as_secs()))?
}
