//! The text parts of a model apart from its weights: what an engine bundle keeps as
//! `tokenizer.json` and `chat_template.jinja`, so that an engine is served without the model file
//! that it was built from.
//!
//! Decides their content. `tokenizer.json` is the vocabulary as this program reads it from a model
//! file, not the format of the same name that Hugging Face's libraries use.

use serde::{Deserialize, Serialize};

use super::TextModel;
use super::model::TextModelError;
use super::template::ChatTemplate;
use super::tokenizer::{Tokenizer, TokenizerError, Vocabulary};
use crate::model::gguf::GgufFile;

/// The layout of `tokenizer.json`; another number is refused.
const VERSION: u32 = 1;

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFiles {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `chat_template.jinja`; empty: the model states none.
    pub template: String,
}

/// What `tokenizer.json` holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    enginewright_tokenizer: u32,
    vocabulary: Vocabulary,
    /// The template for conversations with tools, where the model has one beside the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_template: Option<String>,
}

impl TextFiles {
    /// The files for a model whose vocabulary was kept while reading.
    ///
    /// # Errors
    /// When the model's tokenizer cannot be used.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TokenizerError> {
        let content = Content {
            enginewright_tokenizer: VERSION,
            vocabulary: Vocabulary::from_gguf(file)?,
            tool_template: file
                .str("tokenizer.chat_template.tool_use")
                .map(str::to_owned),
        };
        let tokenizer = serde_json::to_string(&content).map_err(|error| unusable(&error))?;
        let template = file.str("tokenizer.chat_template").unwrap_or_default();
        Ok(Self {
            tokenizer,
            template: template.to_owned(),
        })
    }

    /// Everything about text that the files say.
    ///
    /// # Errors
    /// When a file is damaged or of another version.
    pub fn model(&self) -> Result<TextModel, TextModelError> {
        let content: Content =
            serde_json::from_str(&self.tokenizer).map_err(|error| unusable(&error))?;
        if content.enginewright_tokenizer != VERSION {
            let version = content.enginewright_tokenizer;
            return Err(unusable(&format!("version {version}, not {VERSION}")).into());
        }
        let tokenizer = Tokenizer::new(content.vocabulary)?;
        let tools = content.tool_template.as_deref();
        let template = ChatTemplate::for_tokenizer(&self.template, tools, &tokenizer)?;
        TextModel::new(tokenizer, template)
    }
}

fn unusable(error: &dyn std::fmt::Display) -> TokenizerError {
    TokenizerError::Invalid(format!("tokenizer.json: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::{Specials, TokenKind, VocabularyKind};

    fn vocabulary() -> Vocabulary {
        let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "<0x0A>"];
        let mut kinds = vec![TokenKind::Normal; tokens.len()];
        kinds[0] = TokenKind::Unknown;
        kinds[1] = TokenKind::Control;
        kinds[2] = TokenKind::Control;
        kinds[6] = TokenKind::Byte;
        Vocabulary {
            kind: VocabularyKind::SentencePiece { space_prefix: true },
            tokens: tokens.map(str::to_owned).to_vec(),
            kinds,
            scores: vec![0.0, 0.0, 0.0, -1.5, -0.1, 3.25, 0.0],
            merges: Vec::new(),
            ignore_merges: false,
            bos: Some(1),
            eos: Some(2),
            ends: vec![2],
            add_bos: true,
        }
    }

    fn files(version: u32) -> TextFiles {
        let content = Content {
            enginewright_tokenizer: version,
            vocabulary: vocabulary(),
            tool_template: Some("tools {{ messages[0].content }}".into()),
        };
        TextFiles {
            tokenizer: serde_json::to_string(&content).unwrap(),
            template: "{{ messages[0].content }}".into(),
        }
    }

    #[test]
    fn the_files_give_back_the_tokenizer_they_were_written_from() {
        let direct = Tokenizer::new(vocabulary()).unwrap();
        let read = files(VERSION).model().unwrap();
        let text = "a a\na";
        assert_eq!(
            read.tokenizer.encode(text, Specials::Text),
            direct.encode(text, Specials::Text)
        );
        assert_eq!(read.tokenizer.bos(), direct.bos());
        assert!(read.template.source().starts_with("tools"));
    }

    #[test]
    fn damaged_files_and_those_of_another_version_are_refused_by_name() {
        let error = files(VERSION + 1).model().unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: version 2"), "{error}");
        let mut cut = files(VERSION);
        cut.tokenizer.truncate(100);
        assert!(
            cut.model()
                .unwrap_err()
                .to_string()
                .contains("tokenizer.json")
        );
        let mut odd = files(VERSION);
        odd.tokenizer = odd.tokenizer.replace("\"scores\"", "\"score\"");
        assert!(odd.model().is_err());
    }
}
