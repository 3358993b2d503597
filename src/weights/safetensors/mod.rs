//! A folder of safetensors with its `config.json`: Hugging Face's form of a model.
//!
//! Decides which tensor of which file is which of the network's, under GGUF's names, and refuses a
//! folder that contradicts itself. Rows stand in the model's order already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod config;
mod error;
mod folder;
mod header;
mod names;

pub use config::Config;
pub use error::SafetensorsError;

use self::header::Entry;
use super::OpenError;
use super::files::SourceFile;
use super::tensors::{Place, RowOrder, Tensor, Tensors};
use crate::model::gguf::{TensorInfo, TensorType};
use crate::model::{ModelFacts, directory};

/// GGUF's name of Llama 3's frequency factors.
const FACTORS: &str = "rope_freqs.weight";

/// What stands beside the tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    /// `tokenizer.json`, if it is there.
    pub tokenizer: Option<PathBuf>,
    /// The chat template: the file `chat_template.jinja`, or the entry in `tokenizer_config.json`.
    pub chat_template: Option<String>,
}

/// A folder that was opened.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) config: Config,
    pub(super) companions: Companions,
    pub(super) tensors: Tensors,
}

/// Opens the folder and checks configuration, headers, names and shapes.
pub(super) fn open(path: &Path) -> Result<Folder, OpenError> {
    let name = path.file_name().map_or_else(
        || "unnamed".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut config = config::read(&folder::read_json(&path.join("config.json"))?, &name)?;
    let shards = folder::shards(path)?;
    let mut files = Vec::with_capacity(shards.paths.len());
    let mut found = BTreeMap::new();
    for (number, path) in shards.paths.iter().enumerate() {
        let file = SourceFile::open(path)?;
        for (name, entry) in header::read(&file)? {
            let problem = match &shards.index {
                Some((_, index)) if index.get(&name) != Some(&number) => {
                    "is in this file, but the index says otherwise"
                }
                _ if found.contains_key(&name) => "is in another file, too",
                _ => {
                    found.insert(name, (number, entry));
                    continue;
                }
            };
            return Err(tensor_error(path, &name, problem).into());
        }
        files.push(file);
    }
    if let Some((path, index)) = &shards.index
        && let Some(name) = index.keys().find(|&name| !found.contains_key(name))
    {
        return Err(SafetensorsError::Index {
            path: path.clone(),
            problem: format!("names the tensor `{name}`, which its file does not have"),
        }
        .into());
    }
    let by_name = tensors(found, &files, &mut config)?;
    Ok(Folder {
        companions: companions(path)?,
        config,
        tensors: Tensors {
            files,
            by_name,
            watch: None,
        },
    })
}

fn tensor_error(path: &Path, name: &str, problem: &str) -> SafetensorsError {
    SafetensorsError::Tensor {
        path: path.to_owned(),
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}

/// The network's tensors under GGUF's names, checked against the configuration.
fn tensors(
    found: BTreeMap<String, (usize, Entry)>,
    files: &[SourceFile],
    config: &mut Config,
) -> Result<BTreeMap<String, Tensor>, OpenError> {
    let mut by_name = BTreeMap::new();
    let mut infos = Vec::new();
    for (name, (file, entry)) in found {
        // A tied output layer is the embedding, whether the file repeats it or not.
        let repeated = name == "lm_head.weight" && config.facts.tied_embeddings;
        if repeated || names::is_derived(&name) {
            continue;
        }
        let path = files
            .get(file)
            .map_or_else(|| Path::new(""), SourceFile::path);
        let Some(canonical) = names::canonical(&name) else {
            let problem = "is unknown: mixtures of experts, adapters and other networks are not \
                           supported";
            return Err(tensor_error(path, &name, problem).into());
        };
        let Some(encoding) = entry.encoding() else {
            return Err(OpenError::Encoding {
                name,
                found: entry.dtype,
                supported: "F32, F16, BF16".to_owned(),
            });
        };
        infos.push(TensorInfo {
            name: canonical.clone(),
            dimensions: entry.shape.iter().rev().copied().collect(),
            kind: TensorType::from_name(encoding.name()).unwrap_or(TensorType::F32),
            offset: entry.offset,
            bytes: entry.bytes,
        });
        let place = Place::File {
            file,
            offset: entry.offset,
            encoding,
            order: RowOrder::Natural,
        };
        by_name.insert(
            canonical,
            Tensor {
                shape: entry.shape,
                place,
            },
        );
    }
    check(&infos, &mut config.facts)?;
    if let Some(factors) = &config.frequency_factors {
        let tensor = Tensor {
            shape: vec![factors.len() as u64],
            place: Place::Computed(factors.clone()),
        };
        by_name.insert(FACTORS.to_owned(), tensor);
    }
    Ok(by_name)
}

fn check(infos: &[TensorInfo], facts: &mut ModelFacts) -> Result<(), OpenError> {
    let vectors = [TensorType::F32, TensorType::F16, TensorType::BF16];
    directory::check(infos, facts, &vectors)?;
    if !facts.tied_embeddings && !infos.iter().any(|info| info.name == "output.weight") {
        return Err(crate::model::ModelError::Tensor {
            name: "lm_head.weight".to_owned(),
            problem: "is missing, and config.json does not say `tie_word_embeddings`".to_owned(),
        }
        .into());
    }
    facts.bytes_by_type = directory::bytes_by_type(infos);
    Ok(())
}

fn companions(path: &Path) -> Result<Companions, SafetensorsError> {
    let tokenizer = path.join("tokenizer.json");
    let separate = path.join("chat_template.jinja");
    let tokenizer_config = path.join("tokenizer_config.json");
    let chat_template = if separate.exists() {
        Some(String::from_utf8_lossy(&folder::read_json(&separate)?).into_owned())
    } else if tokenizer_config.exists() {
        chat_template(&tokenizer_config)?
    } else {
        None
    };
    Ok(Companions {
        tokenizer: tokenizer.is_file().then_some(tokenizer),
        chat_template,
    })
}

/// The template in `tokenizer_config.json`: text, or several by name, of which `default` counts.
fn chat_template(path: &Path) -> Result<Option<String>, SafetensorsError> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Template {
        One(String),
        Several(Vec<Named>),
    }
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    #[derive(serde::Deserialize)]
    struct TokenizerConfig {
        chat_template: Option<Template>,
    }
    let read: TokenizerConfig =
        serde_json::from_slice(&folder::read_json(path)?).map_err(|error| {
            SafetensorsError::File {
                path: path.to_owned(),
                problem: format!("is not a tokenizer's configuration: {error}"),
            }
        })?;
    Ok(match read.chat_template {
        None => None,
        Some(Template::One(text)) => Some(text),
        Some(Template::Several(list)) => list
            .into_iter()
            .find(|one| one.name == "default")
            .map(|one| one.template),
    })
}

#[cfg(test)]
mod tests;
