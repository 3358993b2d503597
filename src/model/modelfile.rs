//! What a model of Ollama's says beside its weights: prompt template, system message, parameters,
//! licences. Kept in one file beside the model, so that who serves it finds it there.
//!
//! It decides which parts of a manifest these are, and how each is read; not what becomes of them.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Name of the file, in the model's folder.
pub const FILE: &str = "modelfile.json";
/// Layer that is the model itself.
pub const MODEL_LAYER: &str = "application/vnd.ollama.image.model";
/// Most bytes of one part; licences are the longest, with some ten thousand.
pub const MOST_BYTES: u64 = 1 << 20;

/// The parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Modelfile {
    /// Prompt template in Ollama's language (Go's text/template).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// System message of conversations that bring none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Parameters of requests that bring none, by Ollama's names.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Licences, in full.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// Which part a layer of a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Modelfile::template`].
    Template,
    /// [`Modelfile::system`].
    System,
    /// [`Modelfile::parameters`].
    Parameters,
    /// One of [`Modelfile::licences`].
    Licence,
}

/// Why a part cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It is binary.
    #[error("it is no text")]
    NotText,
    /// The parameters.
    #[error("the parameters are no JSON object: {0}")]
    Parameters(#[from] serde_json::Error),
}

impl Part {
    /// The part that a layer of this media type is.
    pub fn of(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/vnd.ollama.image.template" => Self::Template,
            "application/vnd.ollama.image.system" => Self::System,
            "application/vnd.ollama.image.params" => Self::Parameters,
            "application/vnd.ollama.image.license" => Self::Licence,
            _ => return None,
        })
    }
}

impl Modelfile {
    /// Takes the bytes of one part.
    ///
    /// # Errors
    /// [`PartError`].
    pub fn take(&mut self, part: Part, bytes: &[u8]) -> Result<(), PartError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PartError::NotText)?;
        match part {
            Part::Template => self.template = Some(text.to_owned()),
            Part::System => self.system = Some(text.to_owned()),
            Part::Parameters => self.parameters = serde_json::from_str(text)?,
            Part::Licence => self.licences.push(text.to_owned()),
        }
        Ok(())
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The parts that lie beside a model; nothing where there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn beside(model: &Path) -> std::io::Result<Self> {
        match std::fs::read(model.with_file_name(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// A parameter as a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.parameters.get(name)?.as_f64()
    }

    /// The strings that end an answer.
    pub fn stop(&self) -> Vec<String> {
        let texts = |all: &Vec<Value>| {
            all.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        match self.parameters.get("stop") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => texts(all),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_media_types() {
        let mut read = Modelfile::default();
        for (kind, bytes) in [
            ("template", &b"{{ .Prompt }}"[..]),
            ("system", b"Be brief."),
            ("params", br#"{"stop":["<|im_end|>"],"temperature":0.5}"#),
            ("license", b"Apache-2.0"),
            ("license", b"MIT"),
        ] {
            let part = Part::of(&format!("application/vnd.ollama.image.{kind}")).unwrap();
            read.take(part, bytes).unwrap();
        }
        assert_eq!(read.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(read.system.as_deref(), Some("Be brief."));
        assert_eq!(read.stop(), ["<|im_end|>"]);
        assert_eq!(read.number("temperature"), Some(0.5));
        assert_eq!(read.licences, ["Apache-2.0", "MIT"]);
        assert_eq!(Part::of(MODEL_LAYER), None);
    }

    #[test]
    fn parts_that_cannot_be_read_are_refused() {
        let mut read = Modelfile::default();
        assert!(read.take(Part::System, &[0xff]).is_err());
        assert!(read.take(Part::Parameters, b"[]").is_err());
        assert!(read.is_empty());
    }

    #[test]
    fn a_model_without_such_a_file_says_nothing_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.gguf");
        assert!(Modelfile::beside(&model).unwrap().is_empty());
        std::fs::write(folder.path().join(FILE), r#"{"system":"x"}"#).unwrap();
        let system = Modelfile::beside(&model).unwrap().system;
        assert_eq!(system.as_deref(), Some("x"));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Modelfile::beside(&model).is_err());
    }
}
