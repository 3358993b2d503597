//! Greedy continuations by llama.cpp, for engines to be compared with.

use std::path::Path;

use enginewright::backend::Loader;
use enginewright::backend::llama::{LlamaConfig, LlamaLoader};
use enginewright::model::gguf::GgufFile;
use enginewright::text::TextModel;
use enginewright::text::tokenizer::Specials;

use crate::drive::continuation;
use crate::{Failure, read_json};

/// See [`crate::Command::Reference`]. Prints one JSON list.
pub fn record(model: &Path, prompts: &Path, count: usize) -> Result<(), Failure> {
    let text = TextModel::from_gguf(&GgufFile::open(model)?)?;
    let prompts: Vec<String> = serde_json::from_value(read_json(prompts)?)?;
    let mut config = LlamaConfig::new(model);
    config.slots = 1;
    config.context_tokens = Some(512);
    let mut lines = Vec::new();
    let mut outcome = Ok(());
    Box::new(LlamaLoader::new(config)).run(&mut |backend| {
        outcome = prompts.iter().try_for_each(|prompt| {
            let tokens = text.tokenizer.encode(prompt, Specials::Text);
            let (generated, margins) = continuation(backend, &tokens, count)?;
            lines.push(serde_json::json!({
                "text": prompt, "prompt": tokens, "tokens": generated, "margins": margins,
            }));
            Ok::<(), Failure>(())
        });
    })?;
    outcome?;
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let list = format!("[\n{}\n]", lines.join(",\n"));
    let mut out = std::io::stdout().lock();
    Ok(std::io::Write::write_all(&mut out, list.as_bytes())?)
}
