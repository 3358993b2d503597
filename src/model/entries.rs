//! Metadata entries of one architecture, read with bounds; and what they say of norms and positions.

use super::gguf::{GgufFile, GgufValue};
use super::{Architecture, ModelError, Rope, RopeScaling};

/// Beyond any model; keeps later arithmetic far from overflow.
pub(super) const MAX_CONTEXT: u32 = 1 << 24;

pub(super) fn entry(key: impl Into<String>, problem: impl Into<String>) -> ModelError {
    ModelError::Entry {
        key: key.into(),
        problem: problem.into(),
    }
}

/// Reads entries of one architecture, with bounds.
pub(super) struct Entries<'a> {
    pub(super) file: &'a GgufFile,
    pub(super) architecture: Architecture,
}

impl Entries<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name())
    }

    /// An unsigned 32-bit integer, exactly: llama.cpp refuses other widths.
    pub(super) fn count(&self, name: &str, most: u32) -> Result<Option<u32>, ModelError> {
        let key = self.key(name);
        match self.file.get(&key) {
            None => Ok(None),
            Some(&GgufValue::U32(value)) if (1..=most).contains(&value) => Ok(Some(value)),
            Some(&GgufValue::U32(value)) => {
                Err(entry(key, format!("is {value}, it must be 1 to {most}")))
            }
            Some(_) => Err(entry(key, "must be one unsigned 32-bit integer")),
        }
    }

    pub(super) fn required(&self, name: &str, most: u32) -> Result<u32, ModelError> {
        self.count(name, most)?
            .ok_or_else(|| entry(self.key(name), "is missing: convert the model again"))
    }

    /// A finite 32-bit number within `range`.
    pub(super) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f32>,
    ) -> Result<Option<f32>, ModelError> {
        let key = self.key(name);
        match self.file.get(&key) {
            None => Ok(None),
            Some(&GgufValue::F32(value)) if range.contains(&value) => Ok(Some(value)),
            Some(&GgufValue::F32(value)) => {
                let (least, most) = (range.start(), range.end());
                let problem = format!("is {value}, it must be {least} to {most}");
                Err(entry(key, problem))
            }
            Some(_) => Err(entry(key, "must be one 32-bit floating-point number")),
        }
    }
}

pub(super) fn epsilon(entries: &Entries<'_>) -> Result<f32, ModelError> {
    let name = "attention.layer_norm_rms_epsilon";
    let missing = || entry(entries.key(name), "is missing: convert the model again");
    entries.number(name, 0.0..=1.0)?.ok_or_else(missing)
}

/// Base and scaling of the positions; the rest is filled in by the caller.
pub(super) fn rope(entries: &Entries<'_>) -> Result<Rope, ModelError> {
    let base = entries.number("rope.freq_base", 1.0..=1e12)?;
    let old_factor = entries.number("rope.scale_linear", 1e-3..=1e6)?;
    let factor = entries.number("rope.scaling.factor", 1e-3..=1e6)?;
    entries.number("rope.scaling.attn_factor", 1e-3..=1e6)?;
    entries.count("rope.scaling.original_context_length", MAX_CONTEXT)?;
    let key = entries.key("rope.scaling.type");
    let kind = match entries.file.get(&key) {
        None => "linear",
        Some(value) => match value.as_str() {
            Some(kind @ ("none" | "linear" | "yarn")) => kind,
            _ => return Err(entry(key, "must be \"none\", \"linear\" or \"yarn\"")),
        },
    };
    // As llama.cpp: the type is linear where none is stated, and without a factor nothing is scaled.
    let scaling = match (kind, factor.or(old_factor)) {
        ("yarn", _) => RopeScaling::Yarn,
        ("linear", Some(factor)) if factor != 1.0 => RopeScaling::Linear { factor },
        _ => RopeScaling::None,
    };
    Ok(Rope {
        base: base.unwrap_or(10_000.0),
        dimensions: 0,
        has_factors: false,
        scaling,
    })
}
