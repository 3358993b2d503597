//! Ollama's models on disk: where the GGUF of a model lies.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Layer of a manifest that is the model itself.
const MODEL: &str = "application/vnd.ollama.image.model";

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// The GGUF file of a model (`hermes3:8b`, `user/model:tag`) in a folder as `OLLAMA_MODELS` names
/// it; `None` when it is not there, or in pieces.
pub fn find(models: &Path, name: &str) -> Option<PathBuf> {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
    let parts: Vec<&str> = path.split('/').collect();
    let full = match parts.as_slice() {
        [model] => format!("registry.ollama.ai/library/{model}"),
        [user, model] => format!("registry.ollama.ai/{user}/{model}"),
        _ => path.to_owned(),
    };
    let manifest = models.join("manifests").join(full).join(tag);
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(manifest).ok()?).ok()?;
    let mut weights = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == MODEL);
    let digest = weights.next()?.digest.strip_prefix("sha256:")?;
    // A name from a file must not lead anywhere else.
    let plain = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let blob = models.join("blobs").join(format!("sha256-{digest}"));
    (plain && weights.next().is_none() && blob.is_file()).then_some(blob)
}

/// Where Ollama keeps its models on this machine: of the user, and of the system's service.
pub fn usual_places(home: Option<&Path>) -> Vec<PathBuf> {
    home.map(|home| home.join(".ollama/models"))
        .into_iter()
        .chain([PathBuf::from("/usr/share/ollama/.ollama/models")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(models: &Path, manifest: &str, digest: &str) {
        let path = models.join("manifests/registry.ollama.ai").join(manifest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::create_dir_all(models.join("blobs")).unwrap();
        std::fs::write(
            path,
            format!(
                r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:00"}},
                {{"mediaType":"{MODEL}","digest":"{digest}"}}]}}"#
            ),
        )
        .unwrap();
    }

    #[test]
    fn the_blob_of_a_model_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let digest = "ab".repeat(32);
        let blob = folder.path().join(format!("blobs/sha256-{digest}"));
        lay(
            folder.path(),
            "library/hermes3/8b",
            &format!("sha256:{digest}"),
        );
        assert_eq!(
            find(folder.path(), "hermes3:8b"),
            None,
            "the blob is not there yet"
        );
        std::fs::write(&blob, "").unwrap();
        assert_eq!(find(folder.path(), "hermes3:8b"), Some(blob.clone()));
        lay(folder.path(), "me/mine/latest", &format!("sha256:{digest}"));
        assert_eq!(find(folder.path(), "me/mine"), Some(blob));
        assert_eq!(find(folder.path(), "hermes3:70b"), None);
    }

    #[test]
    fn a_manifest_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        lay(
            folder.path(),
            "library/evil/latest",
            "sha256:../../../etc/passwd",
        );
        assert_eq!(find(folder.path(), "evil:latest"), None);
    }
}
