//! `/generate` and `/generate_stream` as tasks.

use super::sampling::{self, Drawing, in_range};
use super::{Chat, Form, Input, Limit, Task};
use crate::text::sampling::SamplingParams;
use crate::text::template::ChatMessage;
use crate::wire::{ApiError, generate::Request};

/// Checks a request.
///
/// # Errors
/// 400 naming the field.
pub fn generate(request: Request) -> Result<Task, ApiError> {
    let raw = request.raw.unwrap_or(false);
    if request.prompt.is_empty() {
        return Err(ApiError::field("prompt", "must not be empty"));
    }
    let input = if raw {
        let why = "has no place in a raw prompt";
        sampling::refuse("system", request.system.as_ref(), why)?;
        Input::Text(request.prompt)
    } else {
        let system = request.system.map(|text| ChatMessage::new("system", &text));
        let user = ChatMessage::new("user", &request.prompt);
        Input::Chat(Chat {
            messages: system.into_iter().chain([user]).collect(),
            ..Chat::default()
        })
    };
    let limit = match request.max_tokens {
        None => Limit::Context,
        Some(0) => return Err(ApiError::field("max_tokens", "must be at least 1")),
        Some(tokens) => Limit::AtMost(tokens),
    };
    Ok(Task {
        input,
        drawing: Drawing {
            params: SamplingParams {
                temperature: in_range("temperature", request.temperature, (0.0, 2.0), 1.0)?,
                top_p: in_range("top_p", request.top_p, (0.0, 1.0), 1.0)?,
                ..SamplingParams::default()
            },
            seed: request.seed.map(sampling::seed),
        },
        limit,
        stop: sampling::stop("stop", request.stop.map(|stop| stop.0))?,
        form: Form::Text,
        top_logprobs: None,
        ignore_eos: false,
    })
}
