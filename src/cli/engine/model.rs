//! Which model an engine is built from: its digest, and the proof that what was built from is what has
//! that digest.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::build::Take;
use crate::network::WeightSpec;
use crate::weights::{EncodeError, EncodeOptions, Weights, encode};

/// Why a model has no digest.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentifyError {
    /// Stopped from outside.
    #[error("the build was stopped; nothing was left behind")]
    Stopped,
    /// It cannot be read.
    #[error("the model cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is another model.
    #[error("the model has the SHA-256 {found}, but {stated} is stated: fetch the model again")]
    Other {
        /// What it has.
        found: String,
        /// What was stated.
        stated: String,
    },
}

/// The model's digest, which must be the one that is stated. From here on every tensor that is read is
/// compared with what was hashed.
pub(super) fn identify(
    weights: &mut Weights,
    stated: Option<&str>,
    stop: &AtomicBool,
) -> Result<String, IdentifyError> {
    let digests = weights.digest(&mut |_| !stop.load(Ordering::Relaxed));
    let digests = digests.map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => IdentifyError::Stopped,
        _ => IdentifyError::Read(error),
    })?;
    match stated {
        Some(stated) if stated != digests.model => Err(IdentifyError::Other {
            found: digests.model,
            stated: stated.to_owned(),
        }),
        _ => {
            weights.expect(&digests);
            Ok(digests.model)
        }
    }
}

/// Why a weight is not in the engine.
#[derive(Debug, thiserror::Error)]
pub(super) enum WeightProblem {
    /// It cannot be read, is not what was hashed, or cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Not every byte was compared with the model's digest.
    #[error(
        "the tensor `{0}` was not read from its first byte to its last, so that nothing says which \
         model it is of: this is a bug"
    )]
    Unread(String),
}

/// Encodes a weight; every byte of its sources was compared with the model's digest then.
pub(super) fn encode_whole(
    weights: &Weights,
    spec: &WeightSpec,
    options: EncodeOptions,
    take: &mut Take<'_>,
) -> Result<(), WeightProblem> {
    encode(weights, spec, options, take)?;
    let unread = weights.unread();
    let mut sources = spec.sources.iter().map(|source| &source.name);
    let left = sources.find(|name| unread.contains(name));
    left.map_or(Ok(()), |name| Err(WeightProblem::Unread(name.clone())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::network::{Encoding, Layout, Source, WeightKind};
    use crate::weights::tests::{model, open};

    fn spec(name: &str, rows: u64) -> WeightSpec {
        WeightSpec {
            name: name.into(),
            kind: WeightKind::Linear,
            sources: vec![Source {
                name: name.into(),
                rows,
                row_length: 64,
            }],
            layout: Layout::Nk,
            encoding: Encoding::F16,
        }
    }

    fn encoded(weights: &Weights, spec: &WeightSpec) -> Result<(), WeightProblem> {
        encode_whole(weights, spec, EncodeOptions::default(), &mut |_, _, _| {
            Ok(())
        })
    }

    #[test]
    fn a_model_with_another_digest_than_the_stated_one_is_refused_with_both() {
        let (written, mut weights) = open(&model("llama"));
        let going = AtomicBool::new(false);
        let found = identify(&mut weights, None, &going).unwrap();
        assert_eq!(found, crate::model::sha256(&written.path).unwrap());
        assert_eq!(identify(&mut weights, Some(&found), &going).unwrap(), found);
        let error = identify(&mut weights, Some("00ff"), &going).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&found) && text.contains("00ff"), "{text}");
        let stopped = identify(&mut weights, None, &AtomicBool::new(true)).unwrap_err();
        assert!(matches!(stopped, IdentifyError::Stopped));
    }

    #[test]
    fn a_tensor_that_was_changed_since_it_was_hashed_ends_the_build() {
        let (written, mut weights) = open(&model("llama"));
        identify(&mut weights, None, &AtomicBool::new(false)).unwrap();
        encoded(&weights, &spec("blk.0.ffn_up.weight", 64)).unwrap();
        let file = std::fs::File::options().write(true).open(&written.path);
        let file = file.unwrap();
        let length = file.metadata().unwrap().len();
        // The last tensor is the last in the file.
        file.write_all_at(&[7], length - 1).unwrap();
        let error = encoded(&weights, &spec("blk.0.ffn_down.weight", 64)).unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
    }

    #[test]
    fn a_tensor_that_was_not_compared_to_its_end_ends_the_build() {
        let (_written, mut weights) = open(&model("llama"));
        identify(&mut weights, None, &AtomicBool::new(false)).unwrap();
        // Bypassing the description's check that all rows are meant.
        let error = encoded(&weights, &spec("blk.0.ffn_up.weight", 32));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("ffn_up"), "{text}");
    }
}
