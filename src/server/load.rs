//! A GGUF file, or an engine's text files, as a [`Service`]: names, text layer and engine. Blocks
//! while the weights are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::model::{ModelCard, ServedModel};
use super::state::Service;
use super::worker::{EngineConfig, EngineObserver, spawn};
use crate::backend::tensorrt::bundle::{self, EngineFolder};
use crate::backend::{LoadError, Loader};
use crate::model::gguf::{GgufFile, GgufValue, TensorInfo};
use crate::model::modelfile::Modelfile;
use crate::text::model::TextModelError;
use crate::text::template::{ChatTemplate, known};
use crate::text::tokenizer::Tokenizer;
use crate::text::{TextFiles, TextModel};

/// What to load, and under which names.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The GGUF file, or the folder of an engine.
    pub file: PathBuf,
    /// The served name; `None`: from the file's name.
    pub served_name: Option<String>,
    /// Queue and prefill.
    pub engine: EngineConfig,
}

/// What is known of a model beside its weights.
#[derive(Debug)]
pub struct Described {
    /// Tokens, templates, grammars.
    pub text: TextModel,
    /// What clients may ask about it.
    pub card: ModelCard,
    /// A name for it, where the user gives none.
    pub name: String,
}

/// Reads the GGUF file and starts the engine with `loader`.
///
/// # Errors
/// [`LoadError`], which names the file.
pub fn load(
    options: &LoadOptions,
    loader: Box<dyn Loader>,
    observer: Arc<dyn EngineObserver>,
) -> Result<Service, LoadError> {
    let failed = |error: &dyn std::fmt::Display| {
        LoadError::Model(format!("{}: {error}", options.file.display()))
    };
    let gguf = GgufFile::open(&options.file).map_err(|error| failed(&error))?;
    let modelfile = Modelfile::beside(&options.file).map_err(|error| failed(&error))?;
    let described = Described {
        text: text(&gguf, &modelfile).map_err(|error| failed(&error))?,
        card: ModelCard {
            modelfile,
            ..card(&options.file, &gguf).map_err(|error| failed(&error))?
        },
        name: stem(&options.file),
    };
    start(options, described, loader, observer)
}

/// The model's own chat template; where its file has none, the one that Ollama's stands for.
fn text(gguf: &GgufFile, modelfile: &Modelfile) -> Result<TextModel, TextModelError> {
    let own = gguf.str("tokenizer.chat_template").is_some();
    let (Some(theirs), false) = (&modelfile.template, own) else {
        return TextModel::from_gguf(gguf);
    };
    let Some(source) = known::of_ollamas(theirs) else {
        tracing::warn!(
            "the model's file has no chat template, and Ollama's is none that is known: prompts are \
             rendered plainly"
        );
        return TextModel::from_gguf(gguf);
    };
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let template = ChatTemplate::for_tokenizer(source, None, &tokenizer)?;
    TextModel::new(tokenizer, template)
}

/// Reads the text files in the folder of an engine and starts it with `loader`.
///
/// # Errors
/// [`LoadError`], which names the file.
pub fn load_engine(
    options: &LoadOptions,
    folder: &EngineFolder,
    loader: Box<dyn Loader>,
    observer: Arc<dyn EngineObserver>,
) -> Result<Service, LoadError> {
    let files = TextFiles {
        tokenizer: folder.text(bundle::TOKENIZER)?,
        template: folder.text(bundle::TEMPLATE)?,
    };
    let failed = |error: &dyn std::fmt::Display| {
        LoadError::Model(format!("{}: {error}", options.file.display()))
    };
    let described = Described {
        text: files.model().map_err(|error| failed(&error))?,
        card: ModelCard {
            file_bytes: folder.plan_bytes()?,
            template: files.template,
            ..ModelCard::default()
        },
        name: stem(&options.file),
    };
    start(options, described, loader, observer)
}

/// Starts the engine of a model that is described already.
///
/// # Errors
/// [`LoadError`] when the engine cannot be loaded.
pub fn start(
    options: &LoadOptions,
    described: Described,
    loader: Box<dyn Loader>,
    observer: Arc<dyn EngineObserver>,
) -> Result<Service, LoadError> {
    let Described { text, card, name } = described;
    let text = Arc::new(text);
    let served = options.served_name.clone().unwrap_or_else(|| name.clone());
    let aliases = if served == name {
        Vec::new()
    } else {
        vec![name]
    };
    let engine = spawn(loader, Arc::clone(&text), options.engine, observer)?;
    Ok(Service {
        model: ServedModel::new(served, aliases, text, card),
        engine,
    })
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(
        || "model".into(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// What clients may ask about the file.
fn card(file: &Path, gguf: &GgufFile) -> std::io::Result<ModelCard> {
    let metadata = std::fs::metadata(file)?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(Duration::ZERO, |age| Duration::from_secs(age.as_secs()));
    let parameters: u64 = gguf.tensors().iter().map(TensorInfo::elements).sum();
    let mut info: Map<String, Value> = gguf
        .metadata()
        .iter()
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect();
    info.insert("general.parameter_count".into(), parameters.into());
    Ok(ModelCard {
        family: gguf
            .str("general.architecture")
            .unwrap_or_default()
            .to_owned(),
        parameters,
        quantization: quantization(gguf),
        file_bytes: metadata.len(),
        digest: header_digest(file, gguf.data_offset(), metadata.len())?,
        modified,
        template: gguf
            .str("tokenizer.chat_template")
            .unwrap_or_default()
            .to_owned(),
        info,
        modelfile: Modelfile::default(),
    })
}

/// A metadata value for `/api/show`; lists are null there, as in Ollama.
fn plain(value: &GgufValue) -> Value {
    if let Some(text) = value.as_str() {
        text.into()
    } else if let Some(number) = value.as_u64() {
        number.into()
    } else if let Some(flag) = value.as_bool() {
        flag.into()
    } else {
        value
            .as_f32()
            .map_or(Value::Null, |number| f64::from(number).into())
    }
}

/// The type that holds most of the weights, which is what files are named after.
fn quantization(gguf: &GgufFile) -> String {
    let mut bytes_of: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for tensor in gguf.tensors() {
        *bytes_of.entry(tensor.kind.name()).or_default() += tensor.bytes;
    }
    let most = bytes_of.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map(|(name, _)| name.to_uppercase())
        .unwrap_or_default()
}

/// Names the file without reading its weights.
fn header_digest(file: &Path, header: u64, length: u64) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    let mut head = std::io::Read::take(std::fs::File::open(file)?, header);
    std::io::copy(&mut head, &mut digest)?;
    digest.update(length.to_le_bytes());
    Ok(hex::encode(digest.finalize()))
}
