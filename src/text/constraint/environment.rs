//! Our tokenizer as llguidance sees it: a trie of token bytes, and canonical tokens for text that
//! a grammar forces.

use std::sync::Arc;

use anyhow::{Context, Result};
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use crate::backend::TokenId;
use crate::text::tokenizer::Tokenizer;

/// Longer tokens (runs of blanks, as a rule) cannot be part of an answer that follows a grammar:
/// the trie is walked to its depth.
const MAX_TOKEN_BYTES: usize = 256;

struct Environment {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        // What is not UTF-8 (half a character) is taken greedily from the trie.
        self.trie
            .tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode_inner(text))
    }
}

pub(super) fn build(tokenizer: &Tokenizer) -> Result<TokEnv> {
    let ends = tokenizer.ends_of_generation();
    let first_end = *ends
        .first()
        .context("the vocabulary has no end-of-generation token")?;
    let size = tokenizer.vocabulary_size();
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(tokenizer, id)).collect();
    let mut information = TokRxInfo::new(size, first_end);
    information.tok_bos = tokenizer.bos();
    let trie = TokTrie::from(&information, &words).with_eos_tokens(ends);
    Ok(Arc::new(Environment {
        tokenizer: tokenizer.clone(),
        trie,
    }))
}

/// The bytes of a token; control tokens are marked, so that no text can match them.
fn word(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if bytes.len() > MAX_TOKEN_BYTES {
        return Vec::new();
    }
    if tokenizer.is_control(id) {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    }
    bytes.to_vec()
}
