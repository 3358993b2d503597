//! The tensors of a GGUF file.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use super::OpenError;
use super::decode::Encoding;
use super::files::SourceFile;
use super::tensors::{Place, RowOrder, Tensor, Tensors};
use crate::model::gguf::{GgufFile, ReadOptions, TensorInfo};
use crate::model::{Architecture, ModelFacts};

/// Opens the file and checks its header, its architecture and each tensor's encoding.
pub(super) fn open(path: &Path) -> Result<(ModelFacts, Tensors), OpenError> {
    let file = SourceFile::open(path)?;
    let header = GgufFile::parse_with(
        BufReader::with_capacity(1 << 16, file.file()),
        file.length(),
        ReadOptions::WITHOUT_VOCABULARY,
    )?;
    let facts = ModelFacts::from_gguf(&header)?;
    let by_name = header
        .tensors()
        .iter()
        .map(|info| Ok((info.name.clone(), tensor(info, &facts)?)))
        .collect::<Result<BTreeMap<_, _>, OpenError>>()?;
    let tensors = Tensors {
        files: vec![file],
        by_name,
        watch: None,
    };
    Ok((facts, tensors))
}

fn tensor(info: &TensorInfo, facts: &ModelFacts) -> Result<Tensor, OpenError> {
    let mut shape = info.dimensions.clone();
    // Trailing dimensions of 1 are the same shape, as `ModelFacts` has it.
    while let [rest @ .., 1] = shape.as_slice()
        && !rest.is_empty()
    {
        shape.truncate(rest.len());
    }
    shape.reverse();
    let unsupported = || OpenError::Encoding {
        name: info.name.clone(),
        found: info.kind.name().to_owned(),
        supported: Encoding::names(),
    };
    let encoding = Encoding::of(info.kind).ok_or_else(unsupported)?;
    // A vector is read element by element; the converter writes them all as F32.
    if shape.len() == 1 && encoding.block_elements() != 1 {
        return Err(unsupported());
    }
    Ok(Tensor {
        shape,
        place: Place::File {
            file: 0,
            offset: info.offset,
            encoding,
            order: order(&info.name, facts),
        },
    })
}

/// llama.cpp's converter interleaves queries and keys of this one architecture: its rotation works
/// on neighbours there, on halves for all others.
fn order(name: &str, facts: &ModelFacts) -> RowOrder {
    let rotated = [
        ".attn_q.weight",
        ".attn_k.weight",
        ".attn_q.bias",
        ".attn_k.bias",
    ]
    .iter()
    .any(|ending| name.ends_with(ending));
    if rotated && facts.architecture == Architecture::Llama {
        RowOrder::Interleaved {
            head: facts.head_length.into(),
        }
    } else {
        RowOrder::Natural
    }
}
