//! OpenAI's API: chat completions, completions, models. The types are read and written by both
//! sides, so what a server may leave out is optional when read.

mod chat;
mod completions;
mod sampled;
mod shared;
mod stream;
mod tools;

pub use chat::{
    ChatCompletion, ChatCompletionRequest, Choice, Content, ContentPart, JsonSchemaFormat, Message,
    ResponseFormat, ResponseFormatKind, ResponseMessage, Role,
};
pub use completions::{
    Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt,
};
pub use sampled::Sampling;
pub use shared::{
    ErrorBody, ErrorObject, FinishReason, Logprobs, Model, ModelList, PromptTokensDetails, Stop,
    StreamOptions, TokenLogprob, TopLogprob, Usage,
};
pub use stream::{ChatChunk, ChunkChoice, Delta, FunctionDelta, ToolCallDelta};
pub use tools::{
    FunctionCall, FunctionDefinition, FunctionName, Tool, ToolCall, ToolChoice, ToolChoiceMode,
};

/// The value of `object` in each answer.
pub mod object {
    /// A whole chat answer.
    pub const CHAT: &str = "chat.completion";
    /// A piece of a chat answer.
    pub const CHAT_CHUNK: &str = "chat.completion.chunk";
    /// A completion, or a piece of one.
    pub const COMPLETION: &str = "text_completion";
}

#[cfg(test)]
mod tests;
