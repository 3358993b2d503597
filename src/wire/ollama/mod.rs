//! Ollama's API: chat, generate, tags, show, ps, version. The types are read and written by both
//! sides. Management calls (pull, push, create, …) are not here: they are refused, and what the
//! managed fallback needs of them belongs to its own client.

mod answers;
mod models;
mod requests;

pub use answers::{ChatResponse, Counts, GenerateResponse, ToolCall, ToolCallFunction};
pub use models::{
    ModelDetails, PsResponse, RunningModel, ShowRequest, ShowResponse, TaggedModel, TagsResponse,
    Version,
};
pub use requests::{ChatRequest, GenerateRequest, Message, Options};

/// The version we answer with on `/api/version`: clients ask it to know which fields they may
/// send; these are what Ollama 0.12.6 has.
pub const SPOKEN_VERSION: &str = "0.12.6";

/// The paths that change models or files; nobody does that through the endpoint.
pub const MANAGEMENT_PATHS: [&str; 6] = [
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/{digest}",
];

#[cfg(test)]
mod tests;
