//! `enginewright plan`: says what would happen on a machine, and why. Starts and changes nothing.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Exit, fail, out};
use crate::api::{self, EnginePolicy, ModelSource, ValidatedEngine};
use crate::engine::{Known, outlook};
use crate::hardware::{Hardware, probe};
use crate::model::gguf::{GgufError, GgufFile};
use crate::model::{self, catalogue, ollama_store};

mod render;

/// Longer than any resource or recorded machine.
const MOST_BYTES: u64 = 1 << 20;

/// Say what would happen here and why: hardware, memory arithmetic, precision, engine key, where the
/// engine comes from, who serves
///
/// Exit code 0: nothing speaks against it. 2: it cannot work there, the reasons are printed. 1: a
/// file is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// YAML file with one `InferenceEngine`; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Plan for the machine described in this YAML file instead of this machine. `enginewright plan
    /// -o json` prints one under `hardware`.
    #[arg(long, value_name = "FILE")]
    hardware: Option<PathBuf>,

    /// Table for people, JSON for programs.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// The hardware that a file describes.
pub(super) fn described(path: &Path) -> Result<Hardware, String> {
    serde_saphyr::from_str(&read(path)?)
        .map_err(|error| format!("{} is no hardware description: {error}", path.display()))
}

impl Args {
    pub(super) fn run(self) -> Exit {
        match self.plan() {
            Ok((text, true)) => out(&text),
            Ok((text, false)) => match out(&text) {
                Exit::Ok => Exit::Infeasible,
                failed => failed,
            },
            Err(problem) => fail(Exit::BadInput, &problem),
        }
    }

    /// The text to print, and whether it is feasible.
    fn plan(&self) -> Result<(String, bool), String> {
        let engine = api::parse(&read(&self.file)?).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(|one| format!("  {one}")).collect();
            format!("{} is wrong:\n{}", self.file.display(), lines.join("\n"))
        })?;
        let hardware = self.hardware()?;
        let folder = self.file.parent().unwrap_or_else(|| Path::new("."));
        let model = self.model(&engine, &hardware, folder)?;
        let outlook = outlook(&engine, &hardware, &model);
        let text = match self.output {
            Output::Table => render::table(&outlook),
            Output::Json => {
                let json = serde_json::to_string_pretty(&outlook);
                json.map_err(|error| format!("the plan cannot be written as JSON: {error}"))? + "\n"
            }
        };
        Ok((text, outlook.feasible))
    }

    fn hardware(&self) -> Result<Hardware, String> {
        let described = self.hardware.as_deref().map(described);
        described.unwrap_or_else(|| Ok(probe::probe()))
    }

    /// What is known of the model: its own header where the file is here, else its name.
    fn model(
        &self,
        engine: &ValidatedEngine,
        hardware: &Hardware,
        folder: &Path,
    ) -> Result<Known, String> {
        // Only an engine's key needs the digest; hashing gigabytes for nothing would take a while.
        let keyed = hardware.platform().is_some() && engine.engine.policy != EnginePolicy::Never;
        match &engine.model.source {
            ModelSource::File { path } => {
                let path = path.resolve(folder);
                if self.hardware.is_some() && !path.exists() {
                    return Ok(by_name(&path.to_string_lossy()));
                }
                let digest = || {
                    model::sha256(&path)
                        .map_err(|error| format!("cannot read {}: {error}", path.display()))
                };
                let digest = if keyed { Some(digest()?) } else { None };
                from_file(&path, digest)
            }
            ModelSource::Ollama { name } => {
                let configured = std::env::var_os("OLLAMA_MODELS").map(PathBuf::from);
                let home = std::env::var_os("HOME").map(PathBuf::from);
                let blob = ollama_store::usual_folders(configured, home)
                    .iter()
                    .find_map(|store| ollama_store::find(store, name));
                match blob {
                    Some(blob) => from_file(&blob.path, Some(blob.sha256)),
                    None => Ok(by_name(name)),
                }
            }
            other => Ok(by_name(&other.to_string())),
        }
    }
}

fn by_name(name: &str) -> Known {
    catalogue::find(name).map_or(Known::Unknown, |facts| Known::Named(Box::new(facts)))
}

fn from_file(path: &Path, digest: Option<String>) -> Result<Known, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the model {}: {error}", path.display());
    let header = GgufFile::open(path).map_err(|error| match error {
        // These name the file themselves.
        GgufError::Open { .. } | GgufError::NotAFile { .. } => error.to_string(),
        other => wrong(&other),
    })?;
    let facts = model::check(&header).map_err(|error| wrong(&error))?;
    Ok(Known::File {
        facts: Box::new(facts),
        digest,
        path: path.display().to_string(),
    })
}

/// The text of a file, or of standard input.
pub(in crate::cli) fn read(path: &Path) -> Result<String, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let mut text = String::new();
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let metadata = std::fs::metadata(path).map_err(|error| wrong(&error))?;
        if metadata.is_dir() {
            return Err(wrong(&"it is a folder, give a YAML file"));
        }
        Box::new(std::fs::File::open(path).map_err(|error| wrong(&error))?)
    };
    reader
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(&error))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong(&"it is longer than 1 MiB"));
    }
    Ok(text)
}
