//! Manifests of registries: which layer of one is the model, and which are its other parts. Pure.
//!
//! It decides nothing about how a layer is fetched.

use serde::Deserialize;

use crate::api::Sha256Hex;
use crate::model::modelfile::{MODEL_LAYER, Part};

/// Media types of manifests that are asked for.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Media types of layers that hold one GGUF file as it is. `application/vnd.oci.image.layer.v1.tar`
/// is what ORAS gives a file whose type nobody named; it counts with a title that ends in `.gguf`.
pub const MODEL_LAYERS: [&str; 6] = [
    MODEL_LAYER,
    "application/vnd.docker.ai.gguf.v3",
    "application/vnd.cncf.model.weight.v1.raw",
    "application/vnd.gguf",
    "application/gguf",
    "application/octet-stream",
];

/// Where a file's name is written in a layer.
const TITLE: &str = "org.opencontainers.image.title";
/// What Ollama writes a vision encoder, and a change of weights, as.
const ADAPTER: &str = "application/vnd.ollama.image.adapter";

/// What a model is made of in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The GGUF file.
    pub model: Blob,
    /// What is kept beside it.
    pub parts: Vec<(Part, Blob)>,
}

/// One blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub sha256: Sha256Hex,
    /// Its length.
    pub bytes: u64,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is none.
    #[error("it is no manifest: {0}")]
    Json(String),
    /// It lists platforms.
    #[error(
        "it is an index over several manifests; write the digest of the one that holds the model"
    )]
    Index,
    /// Nothing in it is a GGUF file.
    #[error(
        "none of its layers is a GGUF file (found: {found}); push one as the only layer with a \
         media type such as application/vnd.gguf, or with a title that ends in .gguf"
    )]
    NoModel {
        /// The media types found.
        found: String,
    },
    /// Several are.
    #[error("{count} of its layers are GGUF files; push a model that is one file")]
    SeveralModels {
        /// How many.
        count: usize,
    },
    /// It changes the weights of another model.
    #[error("it has an adapter, which is not supported; push a model with the adapter merged")]
    Adapter,
    /// A digest is not one.
    #[error("the digest {0:?} of a layer is no sha256")]
    Digest(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    layers: Option<Vec<Layer>>,
    #[serde(default)]
    manifests: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Layer {
    fn blob(&self) -> Result<Blob, ManifestError> {
        let sha256 = self.digest.strip_prefix("sha256:").and_then(Sha256Hex::new);
        Ok(Blob {
            sha256: sha256.ok_or_else(|| ManifestError::Digest(self.digest.clone()))?,
            bytes: self.size,
        })
    }

    fn is_named_gguf(&self) -> bool {
        let title = self.annotations.get(TITLE);
        let compressed = self.media_type.contains("gzip") || self.media_type.contains("zstd");
        !compressed && title.is_some_and(|title| title.to_ascii_lowercase().ends_with(".gguf"))
    }
}

/// What a manifest says of a model.
///
/// # Errors
/// [`ManifestError`].
pub fn read(bytes: &[u8]) -> Result<Contents, ManifestError> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
    if document.manifests.is_some() {
        return Err(ManifestError::Index);
    }
    let layers = document
        .layers
        .ok_or_else(|| ManifestError::Json("it has no layers".to_owned()))?;
    if layers.iter().any(|layer| layer.media_type == ADAPTER) {
        return Err(ManifestError::Adapter);
    }
    let named: Vec<&Layer> = layers
        .iter()
        .filter(|layer| layer.is_named_gguf())
        .collect();
    let typed: Vec<&Layer> = layers
        .iter()
        .filter(|layer| MODEL_LAYERS.contains(&layer.media_type.as_str()))
        .collect();
    // A name says more than a type: an artifact may hold a README as an octet stream, too.
    let model = match (named.as_slice(), typed.as_slice()) {
        ([one], _) | ([], [one]) => one,
        ([], []) => {
            let found: Vec<&str> = layers.iter().map(|one| one.media_type.as_str()).collect();
            let found = found.join(", ");
            return Err(ManifestError::NoModel { found });
        }
        (several, _) if !several.is_empty() => {
            return Err(ManifestError::SeveralModels {
                count: several.len(),
            });
        }
        (_, several) => {
            return Err(ManifestError::SeveralModels {
                count: several.len(),
            });
        }
    };
    let parts = layers
        .iter()
        .filter_map(|layer| Part::of(&layer.media_type).map(|part| (part, layer)))
        .map(|(part, layer)| Ok((part, layer.blob()?)))
        .collect::<Result<_, _>>()?;
    Ok(Contents {
        model: model.blob()?,
        parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(kind: &str, title: Option<&str>) -> serde_json::Value {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let mut layer = json!({"mediaType": kind, "digest": digest, "size": 5});
        if let Some(title) = title {
            layer["annotations"] = json!({TITLE: title});
        }
        layer
    }

    fn of(layers: &[serde_json::Value]) -> Result<Contents, ManifestError> {
        read(
            json!({"schemaVersion": 2, "layers": layers})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn every_documented_media_type_is_a_model() {
        for kind in MODEL_LAYERS {
            assert_eq!(of(&[layer(kind, None)]).unwrap().model.bytes, 5, "{kind}");
        }
        let oras = "application/vnd.oci.image.layer.v1.tar";
        of(&[layer(oras, Some("m.Q4_K_M.gguf"))]).unwrap();
        assert!(of(&[layer(oras, None)]).is_err());
        let packed = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert!(of(&[layer(packed, Some("m.gguf"))]).is_err());
    }

    #[test]
    fn a_file_with_a_name_wins_over_others_of_its_type() {
        let stream = "application/octet-stream";
        let layers = [
            layer(stream, Some("README.md")),
            layer(stream, Some("m.gguf")),
        ];
        of(&layers).unwrap();
        let two = [layer(stream, Some("a.gguf")), layer(stream, Some("b.gguf"))];
        assert_eq!(of(&two), Err(ManifestError::SeveralModels { count: 2 }));
        let unnamed = [layer(stream, None), layer(stream, None)];
        assert_eq!(of(&unnamed), Err(ManifestError::SeveralModels { count: 2 }));
    }

    #[test]
    fn the_parts_of_ollamas_models_are_found() {
        let contents = of(&[
            layer(MODEL_LAYER, None),
            layer("application/vnd.ollama.image.template", None),
            layer("application/vnd.ollama.image.params", None),
            layer("application/vnd.ollama.image.license", None),
        ])
        .unwrap();
        let parts: Vec<Part> = contents.parts.iter().map(|(part, _)| *part).collect();
        assert_eq!(parts, [Part::Template, Part::Parameters, Part::Licence]);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        assert!(matches!(read(b"<html>"), Err(ManifestError::Json(_))));
        assert!(matches!(read(b"{}"), Err(ManifestError::Json(_))));
        let index = json!({"manifests": []}).to_string();
        assert_eq!(read(index.as_bytes()), Err(ManifestError::Index));
        let adapter = [layer(MODEL_LAYER, None), layer(ADAPTER, None)];
        assert_eq!(of(&adapter), Err(ManifestError::Adapter));
        let mut escape = layer(MODEL_LAYER, None);
        escape["digest"] = json!("sha256:../../etc/passwd");
        assert!(matches!(of(&[escape]), Err(ManifestError::Digest(_))));
        let error = of(&[layer("text/plain", None)]).unwrap_err().to_string();
        assert!(
            error.contains("text/plain") && error.contains("push"),
            "{error}"
        );
    }
}
