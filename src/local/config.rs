//! The YAML file of `run`: read, checked as a whole, turned into what the planner wants to know.
//!
//! It decides what of a valid resource can be had on one machine without Kubernetes, and says what
//! cannot.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::{ModelSource, Problem, RevisionId, RuntimeServer, ValidatedEngine};
pub use crate::engine::Served;
use crate::store::digest::FileIdentity;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is read, and wrong: every mistake at once.
    #[error("{} cannot be used:{}", .path.display(), list(.problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("\n  {}", lines.join("\n  "))
}

/// What the user wants, as far as one machine can know.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The checked resource.
    pub engine: ValidatedEngine,
    /// Names what is to be served. Holds a hint of the model file's content (size and time of
    /// change), so that another file under the same name is another revision.
    pub revision: RevisionId,
    /// Changes with everything in `spec`.
    pub spec_digest: String,
    /// The model file where the source names one, as an absolute path.
    pub model_file: Option<PathBuf>,
}

/// Reads the file.
///
/// # Errors
/// [`ConfigError`], with every mistake.
pub fn load(path: &Path) -> Result<Wanted, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let yaml = std::fs::read_to_string(path).map_err(failed)?;
    let folder = std::path::absolute(path)
        .map_err(failed)?
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_owned);
    interpret(&yaml, &folder).map_err(|problems| ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}

fn interpret(yaml: &str, folder: &Path) -> Result<Wanted, Vec<Problem>> {
    let engine = crate::api::parse(yaml)?;
    let problems = not_here(&engine);
    if !problems.is_empty() {
        return Err(problems);
    }
    let model_file = engine.model.source.file().map(|path| path.resolve(folder));
    // A file that is not there yet has no hint: when it comes, it is another revision.
    let hint = model_file
        .as_deref()
        .and_then(|file| FileIdentity::of(file).ok())
        .map_or_else(String::new, |identity| identity.content_hint());
    let location = model_file
        .as_deref()
        .map_or_else(String::new, |file| file.display().to_string());
    let digest = |parts: &[&str]| Sha256::digest(parts.join("\n"));
    let revision = digest(&[engine.revision().as_str(), &location, &hint]);
    let spec: Value = serde_saphyr::from_str::<Value>(yaml)
        .ok()
        .and_then(|mut document| document.get_mut("spec").map(Value::take))
        .unwrap_or_default();
    let spec_digest = digest(&[&spec.to_string(), &location, &hint]);
    Ok(Wanted {
        revision: RevisionId::from_digest(&revision),
        spec_digest: hex::encode(spec_digest),
        model_file,
        engine,
    })
}

/// What a valid resource can ask for that only a cluster, or a later version, can give.
fn not_here(engine: &ValidatedEngine) -> Vec<Problem> {
    let mut problems = Vec::new();
    let source = &engine.model.source;
    let has = match source {
        ModelSource::File { .. }
        | ModelSource::Https { .. }
        | ModelSource::Ollama { .. }
        | ModelSource::Hf { .. }
        | ModelSource::Oci { .. } => true,
        ModelSource::Pvc { .. } => false,
    };
    if !has {
        problems.push(Problem::new(
            "spec.model.source",
            source.to_string(),
            "there are no claims without a cluster",
            "write file:///path/to/it.gguf",
        ));
    }
    if matches!(engine.runtime.server, RuntimeServer::Image(_)) {
        problems.push(Problem::new(
            "spec.runtime.type",
            "Image",
            "`enginewright run` starts no containers",
            "write type: Native, or leave runtime out",
        ));
    }
    if engine.model.credentials.is_some() {
        problems.push(Problem::new(
            "spec.model.credentials",
            "a Secret",
            "there are no Secrets without a cluster",
            "leave it out, and start with --credentials FOLDER, where the same keys are files",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(spec: &str) -> String {
        format!(
            "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\nmetadata: {{ name: x }}\n\
             spec: {spec}\n"
        )
    }

    fn wanted(spec: &str, folder: &Path) -> Wanted {
        interpret(&yaml(spec), folder).unwrap()
    }

    #[test]
    fn another_file_under_the_same_name_is_another_revision_and_generation() {
        let folder = tempfile::tempdir().unwrap();
        let spec = "{ model: { source: \"file://./m.gguf\" } }";
        let missing = wanted(spec, folder.path());
        std::fs::write(folder.path().join("m.gguf"), "a").unwrap();
        let first = wanted(spec, folder.path());
        assert_eq!(first, wanted(spec, folder.path()));
        std::fs::write(folder.path().join("m.gguf"), "ab").unwrap();
        let second = wanted(spec, folder.path());
        for (a, b) in [(&missing, &first), (&first, &second)] {
            assert_ne!(a.revision, b.revision);
            assert_ne!(a.spec_digest, b.spec_digest);
        }
        assert_eq!(first.model_file, Some(folder.path().join("./m.gguf")));
    }

    #[test]
    fn comments_and_layout_are_no_new_generation_but_every_value_is() {
        let folder = Path::new("/");
        let source = "model: { source: \"file:///m.gguf\" }";
        let plain = wanted(&format!("{{ {source} }}"), folder);
        let commented = interpret(&yaml(&format!("\n  {source} # the model\n")), folder).unwrap();
        assert_eq!(plain.spec_digest, commented.spec_digest);
        let soak = wanted(&format!("{{ {source}, health: {{ soak: 1m }} }}"), folder);
        assert_ne!(plain.spec_digest, soak.spec_digest);
        assert_eq!(plain.revision, soak.revision);
    }

    #[test]
    fn what_needs_a_cluster_is_said_at_once() {
        let problems = interpret(
            &yaml("{ model: { source: \"pvc://claim/m.gguf\", credentials: { name: s } } }"),
            Path::new("/"),
        )
        .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["spec.model.source", "spec.model.credentials"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Path::new("/no/such/file.yaml")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file.yaml"), "{error}");
    }
}
