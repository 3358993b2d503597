//! How a model comes into an Ollama: made of a file of ours, or pulled from its library.
//!
//! It decides what is said of a model that is handed over, not which model that is nor when.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::api::{Ollama, OllamaError};
use super::{UP_WITHIN, template};
use crate::api::{Reason, Sha256Hex};
use crate::model::gguf::{GgufFile, ReadOptions};
use crate::model::modelfile::Modelfile;
use crate::planner::{Failure, failure, transient};

/// Makes Ollama have a model made of a GGUF file, unless it has it already. `threads`: of the processor
/// that it may keep busy, whatever is said beside the file.
///
/// # Errors
/// [`OllamaError`].
pub async fn hand_over(
    ollama: &Ollama,
    name: &str,
    file: &Path,
    digest: &Sha256Hex,
    threads: u32,
) -> Result<(), OllamaError> {
    let known = ollama.show(name).await?;
    let mut said = Modelfile::beside(file).map_err(OllamaError::File)?;
    said.parameters
        .insert("num_thread".to_owned(), threads.into());
    if known.is_some_and(|shown| is_as_wanted(&shown, digest, &said)) {
        return Ok(());
    }
    ollama.push_blob(file, digest).await?;
    ollama.create(name, digest, &said).await?;
    if said.template.is_some() {
        return Ok(());
    }
    let shown = ollama.show(name).await?;
    let guessed = shown
        .as_ref()
        .and_then(|shown| shown.get("template")?.as_str());
    if guessed.is_none_or(|template| template.trim() == template::UNKNOWN)
        && let Some(template) = own_template(file).as_deref().and_then(template::known)
    {
        let said = Modelfile {
            template: Some(template.to_owned()),
            ..said
        };
        ollama.create(name, digest, &said).await?;
    }
    Ok(())
}

/// Whether what Ollama shows is made of this file, and as is said of it.
fn is_as_wanted(shown: &Value, digest: &Sha256Hex, said: &Modelfile) -> bool {
    let text = |name: &str| shown.get(name).and_then(Value::as_str);
    let Some(modelfile) = text("modelfile") else {
        return false;
    };
    let has = |name: &str, value: &Value| {
        let start = format!("PARAMETER {name} ");
        let is = |found: &str| match value {
            Value::String(text) => found.trim_matches('"') == text,
            Value::Number(number) => found.parse().ok() == number.as_f64(),
            Value::Bool(flag) => found.parse() == Ok(*flag),
            _ => false,
        };
        modelfile
            .lines()
            .filter_map(|line| line.strip_prefix(&start))
            .any(is)
    };
    let same = |name: &str, wanted: &Option<String>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| text(name) == Some(wanted))
    };
    modelfile.contains(digest.as_str())
        && same("template", &said.template)
        && same("system", &said.system)
        && said.parameters.iter().all(|(name, value)| match value {
            Value::Array(all) => all.iter().all(|one| has(name, one)),
            one => has(name, one),
        })
}

fn own_template(file: &Path) -> Option<String> {
    let gguf = GgufFile::open_with(file, ReadOptions::WITHOUT_VOCABULARY).ok()?;
    gguf.str("tokenizer.chat_template").map(str::to_owned)
}

/// Brings a model of Ollama's library to this machine through a running Ollama.
///
/// # Errors
/// When it cannot be had.
pub async fn pull_to_disk(
    ollama: &Ollama,
    name: &str,
    progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
) -> Result<(), Failure> {
    // The fallback may be coming up at the same time.
    let up = async {
        while ollama.version().await.is_err() {
            sleep(Duration::from_millis(200)).await;
        }
    };
    if timeout(UP_WITHIN, up).await.is_err() {
        return Err(transient(
            Reason::ModelUnreachable,
            &format!("No Ollama runs here that could fetch {name}."),
        ));
    }
    match ollama.pull(name, progress).await {
        Ok(()) => Ok(()),
        Err(OllamaError::Refused { message, .. }) if message.contains("does not exist") => {
            Err(failure(
                Reason::ModelNotFound,
                &format!("Ollama's library has no model {name}."),
            ))
        }
        Err(error) => Err(transient(
            Reason::ModelUnreachable,
            &format!("Ollama could not fetch {name}: {error}."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_handed_over_again_when_something_said_of_it_has_changed() {
        let digest = Sha256Hex::new(&"a".repeat(64)).unwrap();
        let shown = json!({
            "modelfile": format!(
                "FROM /blobs/sha256-{digest}\nPARAMETER num_thread 2\nPARAMETER stop \"<|end|>\"\n"
            ),
            "system": "Be brief.",
        });
        let said: Modelfile = serde_json::from_value(json!({
            "system": "Be brief.",
            "parameters": {"num_thread": 2, "stop": ["<|end|>"]},
        }))
        .unwrap();
        assert!(is_as_wanted(&shown, &digest, &said));
        let other = Sha256Hex::new(&"b".repeat(64)).unwrap();
        assert!(!is_as_wanted(&shown, &other, &said));
        for (name, value) in [("num_thread", json!(4)), ("stop", json!(["x"]))] {
            let mut changed = said.clone();
            changed.parameters.insert(name.to_owned(), value);
            assert!(!is_as_wanted(&shown, &digest, &changed), "{name}");
        }
        let system = Some("Be long.".to_owned());
        assert!(!is_as_wanted(
            &shown,
            &digest,
            &Modelfile { system, ..said }
        ));
    }
}
