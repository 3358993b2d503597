//! Which files of a folder the tensors are in.
//!
//! The index names files; a name that is more than a name is refused, so that an index cannot point
//! out of its folder. Symbolic links are followed: the caches of Hugging Face's tools are made of
//! them, and who can place a link in the folder can place a file there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SafetensorsError;

/// The index of a sharded model.
const INDEX: &str = "model.safetensors.index.json";
/// The only file of a model that is not sharded.
const SINGLE: &str = "model.safetensors";
/// Most bytes of a JSON file of the folder.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Most shards.
const MAX_SHARDS: usize = 4096;

/// The files, and which tensor is in which, where an index says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shards {
    /// Paths, in the order of their names.
    pub(super) paths: Vec<PathBuf>,
    /// The index, and the file's number by tensor.
    pub(super) index: Option<(PathBuf, BTreeMap<String, usize>)>,
}

/// Finds them.
pub(super) fn shards(folder: &Path) -> Result<Shards, SafetensorsError> {
    let index = folder.join(INDEX);
    if index.exists() {
        return indexed(folder, index);
    }
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(Shards {
            paths: vec![single],
            index: None,
        });
    }
    Err(SafetensorsError::File {
        path: folder.to_owned(),
        problem: format!("has neither {SINGLE} nor {INDEX}: fetch the model's repository whole"),
    })
}

fn indexed(folder: &Path, path: PathBuf) -> Result<Shards, SafetensorsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |problem: String| SafetensorsError::Index {
        path: folder.join(INDEX),
        problem,
    };
    let index: Index = serde_json::from_slice(&read_json(&path)?)
        .map_err(|error| wrong(format!("is not the index of a sharded model: {error}")))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(wrong(format!("names {} files", names.len())));
    }
    for name in &names {
        if !is_plain(name) {
            return Err(wrong(format!(
                "names the file {name:?}, which must be a file name that ends with .safetensors, \
                 in the same folder"
            )));
        }
        if !folder.join(name).exists() {
            return Err(wrong(format!(
                "names {name}, which is not there: fetch the model's repository whole"
            )));
        }
    }
    let number: BTreeMap<&String, usize> = names.iter().copied().zip(0..).collect();
    let by_tensor = index
        .weight_map
        .iter()
        .filter_map(|(tensor, file)| Some((tensor.clone(), *number.get(file)?)))
        .collect();
    Ok(Shards {
        paths: names.iter().map(|name| folder.join(name)).collect(),
        index: Some((path, by_tensor)),
    })
}

/// One file name, without a way out of the folder.
fn is_plain(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").unwrap_or_default();
    let allowed = |one: char| one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '_');
    !stem.is_empty() && name.len() <= 255 && name.chars().all(allowed) && !name.starts_with('.')
}

/// The bytes of a JSON file, bounded.
pub(super) fn read_json(path: &Path) -> Result<Vec<u8>, SafetensorsError> {
    let wrong = |problem: String| SafetensorsError::File {
        path: path.to_owned(),
        problem,
    };
    let read = || {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() || metadata.len() > MAX_JSON_BYTES {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_JSON_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    read()
        .map_err(|error: std::io::Error| wrong(format!("cannot be read: {error}")))?
        .ok_or_else(|| {
            wrong(format!(
                "is no regular file of at most {MAX_JSON_BYTES} bytes"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in [
            "../model.safetensors",
            "/etc/model.safetensors",
            "a/b.safetensors",
            "..\\b.safetensors",
            "..safetensors",
            ".safetensors",
            ".hidden.safetensors",
            "model.bin",
            "mod\0el.safetensors",
            "mod\nel.safetensors",
            "",
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(is_plain("model-00001-of-00004.safetensors"));
    }
}
