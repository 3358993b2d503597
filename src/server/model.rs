//! The one model that is served: its names, and what clients may ask about it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::modelfile::Modelfile;
use crate::text::TextModel;
use crate::wire::{ApiError, ollama, time::rfc3339};

/// What `/api/show`, `/api/tags` and `/v1/models` say.
#[derive(Clone, Debug, Default)]
pub struct ModelCard {
    /// The architecture, such as `llama`.
    pub family: String,
    /// Number of weights.
    pub parameters: u64,
    /// Such as `Q4_1`.
    pub quantization: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// 64 hexadecimal digits that name this file: a digest of its header and length.
    pub digest: String,
    /// When the file was last changed, since 1970.
    pub modified: Duration,
    /// The chat template's source.
    pub template: String,
    /// Metadata of the file, without long lists.
    pub info: Map<String, Value>,
    /// What comes beside the file: used where a request says nothing.
    pub modelfile: Modelfile,
}

/// A model with the names it answers to.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// The name that answers carry.
    pub name: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// Everything about text.
    pub text: Arc<TextModel>,
    /// What clients may ask.
    pub card: ModelCard,
    /// Bytes of the longest token: bounds the tokens of a text from below.
    pub longest_token: usize,
}

impl ServedModel {
    /// A model under its names.
    pub fn new(name: String, aliases: Vec<String>, text: Arc<TextModel>, card: ModelCard) -> Self {
        let tokenizer = &text.tokenizer;
        let lengths = (0..tokenizer.vocabulary_size()).map(|id| tokenizer.token_bytes(id).len());
        let longest_token = lengths.max().unwrap_or(1);
        Self {
            name,
            aliases,
            text,
            card,
            longest_token,
        }
    }

    /// Checks the name a client asked for. `name` and `name:latest` are the same.
    ///
    /// # Errors
    /// 404 naming the model that is served.
    pub fn check_name(&self, asked: &str) -> Result<(), ApiError> {
        let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
        let asked_plain = plain(asked);
        let known = std::iter::once(&self.name)
            .chain(&self.aliases)
            .any(|name| plain(name).eq_ignore_ascii_case(&asked_plain));
        if known {
            Ok(())
        } else {
            Err(ApiError::unknown_model(asked, &self.name))
        }
    }

    /// The details in Ollama's shape.
    pub fn details(&self) -> ollama::ModelDetails {
        ollama::ModelDetails {
            parent_model: String::new(),
            format: "gguf".into(),
            family: self.card.family.clone(),
            families: Some(vec![self.card.family.clone()]),
            parameter_size: parameter_size(self.card.parameters),
            quantization_level: self.card.quantization.clone(),
        }
    }

    /// The model as an entry of `/api/tags`.
    pub fn tag(&self) -> ollama::TaggedModel {
        ollama::TaggedModel {
            name: self.name.clone(),
            model: self.name.clone(),
            modified_at: rfc3339(self.card.modified),
            size: self.card.file_bytes,
            digest: self.card.digest.clone(),
            details: self.details(),
        }
    }

    /// The answer of `/api/show`.
    pub fn show(&self) -> ollama::ShowResponse {
        ollama::ShowResponse {
            modelfile: format!("# served by enginewright as {}\n", self.name),
            parameters: parameters(&self.card.modelfile),
            template: self.card.template.clone(),
            details: self.details(),
            model_info: self.card.info.clone(),
            capabilities: vec!["completion".into(), "tools".into()],
            modified_at: rfc3339(self.card.modified),
        }
    }
}

/// Parameters the way Ollama shows them: a name and a value on each line.
fn parameters(modelfile: &Modelfile) -> String {
    let mut lines = Vec::new();
    for (name, value) in &modelfile.parameters {
        let values = match value {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        lines.extend(values.iter().map(|value| format!("{name:30} {value}")));
    }
    lines.join("\n")
}

/// A number of weights the way Ollama writes it: `134.52M`, `8.0B`.
fn parameter_size(parameters: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // two digits are shown
    let parameters = parameters as f64;
    if parameters >= 1e9 {
        format!("{:.1}B", parameters / 1e9)
    } else if parameters >= 1e6 {
        format!("{:.2}M", parameters / 1e6)
    } else {
        format!("{:.2}K", parameters / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::parameter_size;

    #[test]
    fn sizes_are_written_the_way_ollama_does() {
        assert_eq!(parameter_size(134_515_008), "134.52M");
        assert_eq!(parameter_size(8_030_261_248), "8.0B");
    }
}
