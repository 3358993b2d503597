//! `/v1/completions`: text in, its continuation out, without a chat template.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::sampled::generation_request;
use super::{FinishReason, Usage};

generation_request! {
    /// Body of `/v1/completions`.
    pub struct CompletionRequest {
        /// What to continue.
        pub prompt: Prompt,
        /// Refused: what comes after the continuation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub suffix: Option<String>,
        /// Most tokens of the answer; 16 when absent, as OpenAI has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_tokens: Option<u32>,
        /// Only 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub best_of: Option<u32>,
        /// Alternatives per token, 0..=20; absent: no log-probabilities.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub logprobs: Option<u32>,
        /// Begin the answer with the prompt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub echo: Option<bool>,
    }
}

/// What to continue: text, tokens, or a list of one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Text; special tokens in it are tokens.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
    /// Texts; only one is accepted when checked.
    Texts(Vec<String>),
    /// Token lists; only one is accepted when checked.
    TokenLists(Vec<Vec<u32>>),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PromptItem {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

const EXPECTED: &str = "a string, an array of tokens, or an array of one of these";

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptVisitor;
        impl<'de> Visitor<'de> for PromptVisitor {
            type Value = Prompt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
                let mismatch = || de::Error::custom(format!("expected {EXPECTED}"));
                let mut prompt = match seq.next_element::<PromptItem>().map_err(|_| mismatch())? {
                    None => return Ok(Prompt::Tokens(Vec::new())),
                    Some(PromptItem::Text(text)) => Prompt::Texts(vec![text]),
                    Some(PromptItem::Token(token)) => Prompt::Tokens(vec![token]),
                    Some(PromptItem::Tokens(tokens)) => Prompt::TokenLists(vec![tokens]),
                };
                while let Some(item) = seq.next_element::<PromptItem>().map_err(|_| mismatch())? {
                    match (&mut prompt, item) {
                        (Prompt::Texts(all), PromptItem::Text(text)) => all.push(text),
                        (Prompt::Tokens(all), PromptItem::Token(token)) => all.push(token),
                        (Prompt::TokenLists(all), PromptItem::Tokens(tokens)) => all.push(tokens),
                        _ => return Err(mismatch()),
                    }
                }
                Ok(prompt)
            }
        }
        deserializer.deserialize_any(PromptVisitor)
    }
}

/// An answer; a piece of one when streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Its identity.
    pub id: String,
    /// [`super::object::COMPLETION`].
    #[serde(default)]
    pub object: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// The served name.
    pub model: String,
    /// What served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// One; none in the chunk that holds the usage.
    pub choices: Vec<CompletionChoice>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One answer, or a piece of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// The text, or more of it.
    pub text: String,
    /// 0.
    #[serde(default)]
    pub index: u32,
    /// If asked for.
    #[serde(default)]
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// Log-probabilities in the older shape: parallel lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Their log-probabilities.
    pub token_logprobs: Vec<Option<f32>>,
    /// The alternatives by text.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins, in characters of the answer.
    pub text_offset: Vec<usize>,
}
