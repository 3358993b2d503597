//! Number formats of weights, and on which GPUs they exist.

use serde::{Deserialize, Serialize};

use crate::hardware::Sm;

/// Number format of an engine's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Format {
    /// 16-bit floating point.
    Fp16,
    /// 8-bit floating point. Not offered by the API: no Orin has it.
    Fp8,
    /// 8-bit integers, one scale for each row.
    Int8,
    /// 4-bit integers in groups, one 16-bit scale for each group.
    Int4,
    /// 4-bit floating point in groups. Not offered by the API: no Orin has it.
    Nvfp4,
    /// As the GGUF file is: the CPU back end runs any of its encodings.
    AsInFile,
}

impl Format {
    /// Formats that a spec can ask for, most precise first.
    pub const OFFERED: [Self; 3] = [Self::Fp16, Self::Int8, Self::Int4];

    /// Name for people and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "FP16",
            Self::Fp8 => "FP8",
            Self::Int8 => "INT8",
            Self::Int4 => "INT4",
            Self::Nvfp4 => "NVFP4",
            Self::AsInFile => "as in the file",
        }
    }

    /// Lowest compute capability that computes with it. Source: support matrices of TensorRT 10
    /// and TensorRT Edge-LLM.
    pub fn needs_sm(self) -> Sm {
        match self {
            Self::Fp16 | Self::Int8 | Self::Int4 => Sm::new(7, 5),
            Self::Fp8 => Sm::new(8, 9),
            Self::Nvfp4 => Sm::new(10, 0),
            Self::AsInFile => Sm::new(0, 0),
        }
    }

    /// Whether a GPU with compute capability `sm` computes with it.
    pub fn exists_on(self, sm: Sm) -> bool {
        sm >= self.needs_sm()
    }
}

/// What exists on `sm` and what does not, in words.
pub fn formats(sm: Sm) -> String {
    let all = [
        Format::Fp16,
        Format::Int8,
        Format::Int4,
        Format::Fp8,
        Format::Nvfp4,
    ];
    let (there, missing): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|format| format.exists_on(sm));
    let names = |formats: &[Format]| {
        let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
        names.join(", ")
    };
    let missing: Vec<_> = missing
        .iter()
        .map(|format| format!("no {} (needs {})", format.name(), format.needs_sm()))
        .collect();
    let mut text = format!("SM {sm} has {}", names(&there));
    for one in missing {
        text.push_str(", ");
        text.push_str(&one);
    }
    text
}
