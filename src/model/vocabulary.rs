//! Whether a vocabulary can be loaded: by llama.cpp, which aborts on duplicates, and by our own
//! tokenizer.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ModelError;
use super::gguf::{GgufArray, GgufFile, GgufValue, StringList};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
/// llama.cpp's `LLAMA_TOKEN_TYPE_BYTE`.
const BYTE: i32 = 6;
/// Longer than any token; llama.cpp's buffers for pieces are a few hundred bytes.
const MAX_TOKEN_BYTES: usize = 16_384;

fn wrong(key: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Entry {
        key: key.to_owned(),
        problem: problem.into(),
    }
}

pub(super) fn check(file: &GgufFile, vocabulary: u32) -> Result<(), ModelError> {
    let tokens = file
        .strings(TOKENS)
        .ok_or_else(|| wrong(TOKENS, "is missing or no list of strings"))?;
    check_tokens(tokens)?;
    check_types(file, tokens)?;
    match file.str("tokenizer.ggml.model") {
        Some("gpt2") => check_merges(file)?,
        Some("llama") => check_scores(file, tokens.len())?,
        other => {
            let problem = format!(
                "is {:?}: only \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece) are \
                 supported",
                other.unwrap_or("missing")
            );
            return Err(wrong("tokenizer.ggml.model", problem));
        }
    }
    for (key, value) in file.metadata() {
        if key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id") {
            check_id(key, value, vocabulary)?;
        }
    }
    match file.get("tokenizer.chat_template") {
        None | Some(GgufValue::String(_)) => Ok(()),
        Some(_) => Err(wrong("tokenizer.chat_template", "must be a string")),
    }
}

/// No two tokens may be one: llama.cpp asserts it, after replacing empty ones.
fn check_tokens(tokens: &StringList) -> Result<(), ModelError> {
    let mut seen: HashSet<Cow<'_, str>> = HashSet::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        if token.contains('\0') || token.len() > MAX_TOKEN_BYTES {
            let problem = format!("[{index}] contains a NUL or is longer than any token can be");
            return Err(wrong(TOKENS, problem));
        }
        let stored = if token.is_empty() {
            Cow::Owned(format!("[EMPTY_{index}]"))
        } else {
            Cow::Borrowed(token)
        };
        if !seen.insert(stored) {
            let problem = format!("[{index}] is {token:?}, which is there before");
            return Err(wrong(TOKENS, problem));
        }
    }
    Ok(())
}

fn check_types(file: &GgufFile, tokens: &StringList) -> Result<(), ModelError> {
    let Some(value) = file.get(TYPES) else {
        return Ok(());
    };
    let types = match value {
        GgufValue::Array(GgufArray::I32(types)) if types.len() == tokens.len() => types,
        _ => {
            let problem = format!("must list {} 32-bit integers", tokens.len());
            return Err(wrong(TYPES, problem));
        }
    };
    for (index, (token, &kind)) in tokens.iter().zip(types).enumerate() {
        let hex = token
            .strip_prefix("<0x")
            .and_then(|rest| rest.strip_suffix('>'));
        let is_byte = hex.is_some_and(|hex| {
            hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if kind == BYTE && !is_byte {
            let problem = format!("[{index}] says that {token:?} is a byte, written <0x00>");
            return Err(wrong(TYPES, problem));
        }
    }
    Ok(())
}

fn check_merges(file: &GgufFile) -> Result<(), ModelError> {
    let merges = file
        .strings(MERGES)
        .ok_or_else(|| wrong(MERGES, "is missing or no list of strings"))?;
    for (index, merge) in merges.iter().enumerate() {
        let splits = merge
            .char_indices()
            .skip(1)
            .any(|(at, one)| one == ' ' && at + 1 < merge.len());
        if !splits || merge.contains('\0') {
            let problem = format!("[{index}] is {merge:?}, not two parts with a space between");
            return Err(wrong(MERGES, problem));
        }
    }
    Ok(())
}

fn check_scores(file: &GgufFile, tokens: usize) -> Result<(), ModelError> {
    match file.f32s(SCORES) {
        Some(scores) if scores.len() == tokens && scores.iter().all(|score| !score.is_nan()) => {
            Ok(())
        }
        _ => {
            let problem = format!("must list {tokens} 32-bit floating-point numbers");
            Err(wrong(SCORES, problem))
        }
    }
}

fn check_id(key: &str, value: &GgufValue, vocabulary: u32) -> Result<(), ModelError> {
    match *value {
        GgufValue::U32(id) if id < vocabulary => Ok(()),
        GgufValue::U32(id) => {
            let problem = format!("is {id}, but there are {vocabulary} tokens");
            Err(wrong(key, problem))
        }
        _ => Err(wrong(key, "must be an unsigned 32-bit integer")),
    }
}
