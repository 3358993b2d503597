//! A checked task as a request for the engine: the prompt rendered and tokenised, its length
//! checked against the context, the grammar compiled. Takes milliseconds for long prompts and
//! large schemas, so it runs on a blocking thread.

use super::{Chat, Form, Input, Limit, Task};
use crate::backend::TokenId;
use crate::server::generation::GenerationRequest;
use crate::text::TextModel;
use crate::text::constraint::{Constraint, GrammarSpec};
use crate::text::template::{RenderInput, TemplateError};
use crate::text::tokenizer::Specials;
use crate::text::tools::{ToolChoice, ToolFormat, ToolParser};
use crate::wire::{ApiError, ErrorKind};

/// What a task is prepared with.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// The model's text layer.
    pub text: &'a TextModel,
    /// Tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Bytes of the longest token: bounds the tokens of a text from below.
    pub longest_token: usize,
    /// The answer's identity.
    pub id: String,
    /// Used when the client fixed no seed.
    pub random_seed: u64,
    /// Seconds since 1970, for templates that name the date.
    pub now: i64,
}

/// Ready for the engine.
#[derive(Debug)]
pub struct Prepared {
    /// What the engine runs.
    pub request: GenerationRequest,
    /// Reads tool calls out of the answer, when there can be any.
    pub tools: Option<ToolParser>,
}

/// Prepares a task.
///
/// # Errors
/// 400 when the prompt does not fit, the template refuses the conversation, or a schema cannot be
/// used.
pub fn prepare(task: Task, around: &Surroundings<'_>) -> Result<Prepared, ApiError> {
    let (prompt, spec, tools) = match task.input {
        Input::Chat(chat) => {
            let format = around.text.tool_format.unwrap_or(ToolFormat::Hermes);
            let offered = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
            let prompt = render(&chat, offered, around)?;
            let spec = offered
                .then(|| format.grammar(&chat.tools, &chat.tool_choice, chat.parallel_tool_calls))
                .flatten();
            (
                prompt,
                spec.map(|spec| ("tools", spec)),
                offered.then(|| ToolParser::new(format)),
            )
        }
        Input::Text(text) => (raw_tokens(&text, around)?, None, None),
        Input::Tokens(tokens) => (checked_tokens(tokens, around)?, None, None),
    };
    if prompt.is_empty() {
        return Err(ApiError::field("prompt", "must hold at least one token"));
    }
    let max_tokens = room(prompt.len(), task.limit, around.context_tokens)?;
    let spec = spec.or(match task.form {
        Form::Text => None,
        Form::JsonObject => Some(("response_format", GrammarSpec::JsonObject)),
        Form::JsonSchema { field, schema } => Some((field, GrammarSpec::JsonSchema(schema))),
    });
    let constraint = spec
        .map(|(field, spec)| compile(field, &spec, around.text))
        .transpose()?;
    let vocabulary = around.text.tokenizer.vocabulary_size();
    let biases = &task.drawing.params.logit_bias;
    if let Some((token, _)) = biases.iter().find(|(token, _)| *token >= vocabulary) {
        let problem = format!("the model has {vocabulary} tokens");
        return Err(ApiError::field(format!("logit_bias.{token}"), problem));
    }
    let mut sampling = task.drawing.params;
    sampling.seed = task.drawing.seed.unwrap_or(around.random_seed);
    let request = GenerationRequest {
        id: around.id.clone(),
        prompt,
        sampling,
        max_tokens,
        stop: task.stop,
        constraint,
        top_logprobs: task.top_logprobs,
        ignore_eos: task.ignore_eos,
        reproducible: task.drawing.seed.is_some(),
    };
    Ok(Prepared { request, tools })
}

fn render(
    chat: &Chat,
    offer_tools: bool,
    around: &Surroundings<'_>,
) -> Result<Vec<TokenId>, ApiError> {
    let prompt = around
        .text
        .template
        .render(&RenderInput {
            messages: &chat.messages,
            tools: if offer_tools { &chat.tools } else { &[] },
            add_generation_prompt: true,
            now: Some(around.now),
            ..RenderInput::default()
        })
        .map_err(|error| match error {
            TemplateError::Refused(_) | TemplateError::Failed(_) => {
                ApiError::field("messages", error.to_string())
            }
            TemplateError::Invalid(_) => ApiError::new(ErrorKind::Internal, error.to_string()),
        })?;
    check_bytes(prompt.text().len(), around)?;
    Ok(prompt.tokens(&around.text.tokenizer))
}

fn raw_tokens(text: &str, around: &Surroundings<'_>) -> Result<Vec<TokenId>, ApiError> {
    check_bytes(text.len(), around)?;
    let tokenizer = &around.text.tokenizer;
    let tokens = tokenizer.encode(text, Specials::Parse);
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    Ok(match bos {
        Some(bos) if tokens.first() != Some(&bos) => [bos].into_iter().chain(tokens).collect(),
        _ => tokens,
    })
}

fn checked_tokens(
    tokens: Vec<TokenId>,
    around: &Surroundings<'_>,
) -> Result<Vec<TokenId>, ApiError> {
    let vocabulary = around.text.tokenizer.vocabulary_size();
    match tokens.iter().position(|token| *token >= vocabulary) {
        None => Ok(tokens),
        Some(index) => Err(ApiError::field(
            format!("prompt[{index}]"),
            format!(
                "the model has {vocabulary} tokens, {} is none of them",
                tokens[index]
            ),
        )),
    }
}

/// Refuses what cannot fit before time is spent on its tokens.
fn check_bytes(bytes: usize, around: &Surroundings<'_>) -> Result<(), ApiError> {
    let at_least = bytes / around.longest_token.max(1);
    if at_least >= around.context_tokens as usize {
        let context = around.context_tokens;
        return Err(ApiError::new(
            ErrorKind::ContextOverflow,
            format!(
                "the context has {context} tokens, the prompt has {bytes} bytes, which are at \
                 least {at_least} tokens; shorten it"
            ),
        ));
    }
    Ok(())
}

/// How many tokens the answer may have.
fn room(prompt: usize, limit: Limit, context: u32) -> Result<u32, ApiError> {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    let overflow = |message: String| ApiError::new(ErrorKind::ContextOverflow, message);
    let left = context.saturating_sub(prompt);
    if left == 0 {
        return Err(overflow(format!(
            "the context has {context} tokens, the prompt alone has {prompt}; shorten it"
        )));
    }
    match limit {
        Limit::Context => Ok(left),
        Limit::AtMost(tokens) => Ok(tokens.min(left)),
        Limit::Exactly { tokens, .. } if tokens <= left => Ok(tokens),
        Limit::Exactly { field, tokens } => {
            let mut error = overflow(format!(
                "{field}: the context has {context} tokens; you asked for {tokens} behind a \
                 prompt of {prompt}; at most {left} fit"
            ));
            error.param = Some(field.to_owned());
            Err(error)
        }
    }
}

fn compile(field: &str, spec: &GrammarSpec, text: &TextModel) -> Result<Constraint, ApiError> {
    text.constraints
        .compile(spec)
        .map_err(|error| ApiError::field(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let error = room(
            900,
            Limit::Exactly {
                field: "max_tokens",
                tokens: 200,
            },
            1000,
        )
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::ContextOverflow);
        assert_eq!(error.param.as_deref(), Some("max_tokens"));
        for number in ["1000", "900", "200", "100"] {
            assert!(error.message.contains(number), "{error}");
        }
        assert!(
            room(1000, Limit::Context, 1000)
                .unwrap_err()
                .message
                .contains("1000")
        );
    }

    #[test]
    fn a_limit_that_is_only_an_upper_bound_is_cut_to_what_fits() {
        assert_eq!(room(900, Limit::AtMost(200), 1000).unwrap(), 100);
        assert_eq!(room(900, Limit::Context, 1000).unwrap(), 100);
        assert_eq!(
            room(
                900,
                Limit::Exactly {
                    field: "x",
                    tokens: 100
                },
                1000
            )
            .unwrap(),
            100
        );
    }
}
