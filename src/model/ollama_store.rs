//! Finds a model's GGUF file in an Ollama store: `manifests/<host>/<namespace>/<model>/<tag>` names
//! layers by digest, `blobs/sha256-<hex>` holds them. Reads manifests only, changes nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::modelfile::{self, MODEL_LAYER, Modelfile, Part};

/// Manifests have a few hundred bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A model's weights in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The GGUF file.
    pub path: PathBuf,
    /// SHA-256 of it, hexadecimal, as the manifest says.
    pub sha256: String,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
}

/// Folders in which Ollama keeps its store: the one configured, the user's, the service's.
pub fn usual_folders(configured: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let own = home.map(|home| home.join(".ollama/models"));
    let service = Some(PathBuf::from("/usr/share/ollama/.ollama/models"));
    [configured, own, service].into_iter().flatten().collect()
}

/// The weights of `name` (`hermes3:8b`, `user/model:tag`, `host/user/model:tag`) in the store at
/// `store`; `None` when the model or its blob is not there, or the weights are in pieces.
pub fn find(store: &Path, name: &str) -> Option<Blob> {
    let layers = manifest(store, name)?.layers;
    let mut weights = layers
        .iter()
        .filter(|layer| layer.media_type == MODEL_LAYER);
    let (path, sha256) = blob(store, weights.next()?)?;
    if weights.next().is_some() {
        return None;
    }
    path.is_file().then(|| Blob {
        path,
        sha256: sha256.to_owned(),
    })
}

/// What is kept beside the weights of `name`: what of it can be read.
pub fn modelfile(store: &Path, name: &str) -> Modelfile {
    let mut read = Modelfile::default();
    let layers = manifest(store, name).map(|manifest| manifest.layers);
    for layer in layers.into_iter().flatten() {
        let Some(part) = Part::of(&layer.media_type) else {
            continue;
        };
        let bytes = blob(store, &layer).and_then(|(path, _)| {
            let mut bytes = Vec::new();
            let file = File::open(path).ok()?;
            file.take(modelfile::MOST_BYTES)
                .read_to_end(&mut bytes)
                .ok()?;
            Some(bytes)
        });
        if let Some(bytes) = bytes
            && let Err(error) = read.take(part, &bytes)
        {
            tracing::warn!(model = name, %error, "a part of Ollama's model is left out");
        }
    }
    read
}

fn manifest(store: &Path, name: &str) -> Option<Manifest> {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let parts: Vec<&str> = path.split('/').collect();
    let (host, namespace, model) = match parts.as_slice() {
        [model] => ("registry.ollama.ai", "library", *model),
        [namespace, model] => ("registry.ollama.ai", *namespace, *model),
        [host, namespace, model] => (*host, *namespace, *model),
        _ => return None,
    };
    let words = [host, namespace, model, tag];
    if words
        .iter()
        .any(|word| word.is_empty() || word.starts_with('.'))
    {
        return None;
    }
    let manifest = store.join("manifests").join(words.join("/"));
    let mut text = String::new();
    let file = File::open(manifest).ok()?;
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where a layer lies, with its digest.
fn blob<'a>(store: &Path, layer: &'a Layer) -> Option<(PathBuf, &'a str)> {
    let sha256 = layer.digest.strip_prefix("sha256:")?;
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = store.join("blobs").join(format!("sha256-{sha256}"));
    is_digest.then_some((path, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn lay_manifest(store: &Path, name: &str, digests: &[&str]) {
        let path = store.join("manifests/registry.ollama.ai").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let weights = digests
            .iter()
            .map(|digest| json!({"mediaType": MODEL_LAYER, "digest": digest, "size": 4}));
        let licence = "application/vnd.ollama.image.license";
        let licence = json!({"mediaType": licence, "digest": "sha256:00", "size": 1});
        let layers: Vec<Value> = std::iter::once(licence).chain(weights).collect();
        let manifest = json!({"schemaVersion": 2, "layers": layers});
        std::fs::write(path, manifest.to_string()).unwrap();
    }

    fn store(digest: &str) -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        lay_manifest(store.path(), "library/hermes3/8b", &[digest]);
        let blob = store.path().join("blobs").join(digest.replace(':', "-"));
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob, "GGUF").unwrap();
        store
    }

    #[test]
    fn the_blob_of_a_tag_is_found() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let store = store(&digest);
        let blob = find(store.path(), "hermes3:8b").unwrap();
        assert_eq!(blob.sha256, "a".repeat(64));
        assert_eq!(std::fs::read(blob.path).unwrap(), b"GGUF");
        assert_eq!(find(store.path(), "hermes3:3b"), None);
        assert_eq!(
            find(store.path(), "library/hermes3:8b").unwrap().sha256,
            "a".repeat(64)
        );
        lay_manifest(store.path(), "me/mine/latest", &[&digest]);
        assert!(find(store.path(), "me/mine").is_some());
    }

    #[test]
    fn weights_that_are_not_there_or_in_pieces_are_not_found() {
        let (here, missing) = (
            format!("sha256:{}", "a".repeat(64)),
            format!("sha256:{}", "b".repeat(64)),
        );
        let store = store(&here);
        lay_manifest(store.path(), "library/gone/latest", &[&missing]);
        assert_eq!(find(store.path(), "gone"), None);
        lay_manifest(store.path(), "library/split/latest", &[&here, &here]);
        assert_eq!(find(store.path(), "split"), None);
    }

    #[test]
    fn a_manifest_cannot_lead_out_of_the_store() {
        let store = store("sha256:../../etc");
        assert_eq!(find(store.path(), "hermes3:8b"), None);
        assert_eq!(find(store.path(), "../../hermes3:8b"), None);
    }
}
