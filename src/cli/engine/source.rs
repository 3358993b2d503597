//! What is asked of an engine, from a resource or from flags, and where the model's file is.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::api::{self, ModelSource, Precision, ValidatedEngine};
use crate::cli::plan::read;
use crate::engine::{Format, Request, fit, request};
use crate::hardware::Hardware;
use crate::model::{ModelFacts, ollama_store};

/// What an engine is made for.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct SourceArgs {
    /// YAML file with one `InferenceEngine`; `-` reads standard input. The model must be on this
    /// machine: `file://`, or `ollama://` in Ollama's store.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The model: a GGUF file, or a folder with safetensors. Instead of the one in --file.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
}

/// Values that replace those of the resource.
#[derive(Debug, clap::Args)]
pub(super) struct ShapeArgs {
    /// Number format of the weights, instead of the resource's.
    #[arg(long, value_enum)]
    precision: Option<PrecisionFlag>,

    /// Sequences at the same time, instead of the resource's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: Option<u32>,

    /// Longest prompt in tokens, instead of the resource's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=131_072))]
    max_input_tokens: Option<u32>,

    /// Longest answer in tokens, instead of the resource's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=131_072))]
    max_output_tokens: Option<u32>,
}

/// The precisions by the names that the resource has for them.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum PrecisionFlag {
    /// The most precise that fits this machine; FP16 where there is no GPU to fit.
    Auto,
    /// 16-bit floating point.
    Fp16,
    /// 8-bit integers, a scale for each output.
    Int8,
    /// 4-bit integers, a scale for each group of 64 or 128.
    Int4,
}

/// What is to be built.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The model's file or folder.
    pub(super) model: PathBuf,
    /// Its digest, where somebody stated or Ollama's store knows it.
    pub(super) sha256: Option<String>,
    /// The arithmetic's view.
    pub(super) request: Request,
    /// Most memory of the build.
    pub(super) memory_limit: Option<u64>,
}

impl SourceArgs {
    /// Reads the resource, and lets the flags win.
    pub(super) fn wanted(&self, shape: &ShapeArgs) -> Result<Wanted, String> {
        let engine = self.file.as_deref().map(resource).transpose()?;
        let (model, sha256) = match (&self.model, &engine) {
            (Some(path), _) => (path.clone(), None),
            (None, Some(engine)) => local_model(engine, self.file.as_deref())?,
            (None, None) => return Err("say which model: --file or --model".to_owned()),
        };
        let mut asked = engine
            .as_ref()
            .map_or_else(default_request, |engine| request(engine, true));
        if let Some(precision) = shape.precision {
            asked.precision = match precision {
                PrecisionFlag::Auto => Precision::Auto,
                PrecisionFlag::Fp16 => Precision::Fp16,
                PrecisionFlag::Int8 => Precision::Int8,
                PrecisionFlag::Int4 => Precision::Int4,
            };
        }
        asked.slots = shape.slots.unwrap_or(asked.slots);
        asked.max_input_tokens = shape.max_input_tokens.unwrap_or(asked.max_input_tokens);
        asked.max_output_tokens = shape.max_output_tokens.unwrap_or(asked.max_output_tokens);
        Ok(Wanted {
            model,
            sha256,
            request: asked,
            memory_limit: engine.and_then(|engine| engine.engine.build_memory_limit),
        })
    }
}

impl Wanted {
    /// The number format: what was asked for, or the most precise that fits.
    pub(super) fn format(&self, hardware: &Hardware, facts: &ModelFacts) -> Result<Format, String> {
        let context = self.request.context_tokens();
        if context > facts.context {
            return Err(format!(
                "prompt and answer together are {context} tokens, but {} was trained for {}: lower \
                 one of them",
                facts.name, facts.context
            ));
        }
        match self.request.precision {
            Precision::Fp16 => return Ok(Format::Fp16),
            Precision::Int8 => return Ok(Format::Int8),
            Precision::Int4 => return Ok(Format::Int4),
            Precision::Auto => {}
        }
        if hardware.platform().is_none() {
            return Ok(Format::Fp16);
        }
        let fit = fit(hardware, facts, &self.request);
        match fit.chosen {
            Some(Format::AsInFile) | None => Err(fit.refusals.join("; ")),
            Some(format) => Ok(format),
        }
    }
}

fn resource(path: &Path) -> Result<ValidatedEngine, String> {
    api::parse(&read(path)?).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|one| format!("  {one}")).collect();
        format!("{} is wrong:\n{}", path.display(), lines.join("\n"))
    })
}

/// What a resource without `spec.engine` asks for.
fn default_request() -> Request {
    let spec = api::inference_engine::EngineSpec::default();
    Request {
        tensorrt: true,
        precision: spec.precision,
        slots: spec.slots,
        max_input_tokens: spec.max_input_tokens,
        max_output_tokens: spec.max_output_tokens,
        fallback: None,
        tokens_per_second: None,
    }
}

fn local_model(
    engine: &ValidatedEngine,
    file: Option<&Path>,
) -> Result<(PathBuf, Option<String>), String> {
    let folder = file
        .and_then(Path::parent)
        .unwrap_or_else(|| Path::new("."));
    let stated = engine.model.sha256.as_ref().map(ToString::to_string);
    match &engine.model.source {
        ModelSource::File { path } => Ok((path.resolve(folder), stated)),
        ModelSource::Ollama { name } => {
            let configured = std::env::var_os("OLLAMA_MODELS").map(PathBuf::from);
            let home = std::env::var_os("HOME").map(PathBuf::from);
            let stores = ollama_store::usual_folders(configured, home);
            let blob = stores
                .iter()
                .find_map(|store| ollama_store::find(store, name));
            blob.map(|blob| (blob.path, Some(blob.sha256)))
                .ok_or_else(|| {
                    format!("{name} is not in Ollama's store here: run `ollama pull {name}` first")
                })
        }
        other => Err(format!(
            "{other} is not on this machine: fetch it first, then name the file with --model"
        )),
    }
}
