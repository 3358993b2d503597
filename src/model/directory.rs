//! Whether the tensors of a file are those of a network, in number and shape. Knows neither the
//! format of the file nor what the tensors hold.

use std::collections::BTreeMap;

use super::gguf::{TensorInfo, TensorType};
use super::{Architecture, ModelError, ModelFacts};

/// Bytes of tensor data by encoding.
pub(crate) fn bytes_by_type(tensors: &[TensorInfo]) -> BTreeMap<String, u64> {
    let mut bytes = BTreeMap::new();
    for tensor in tensors {
        *bytes.entry(tensor.kind.name().to_owned()).or_default() += tensor.bytes;
    }
    bytes
}

/// Every tensor that the network needs is there, nothing else is, and all shapes are right. Norms,
/// biases and frequencies are of one of the types `vectors`.
pub(crate) fn check(
    tensors: &[TensorInfo],
    facts: &ModelFacts,
    vectors: &[TensorType],
) -> Result<(), ModelError> {
    let mut present: BTreeMap<&str, &TensorInfo> = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let (hidden, vocabulary) = (facts.hidden.into(), facts.vocabulary.into());
    let mut table = Expected {
        present: &mut present,
        vectors,
    };
    table.matrix("token_embd.weight", [hidden, vocabulary], true)?;
    table.vector("output_norm.weight", hidden, true)?;
    table.matrix("output.weight", [hidden, vocabulary], false)?;
    table.vector("rope_freqs.weight", u64::from(facts.head_length) / 2, false)?;
    for layer in 0..facts.layers {
        layer_tensors(&mut table, facts, layer)?;
    }
    match present.first_key_value() {
        None => Ok(()),
        Some((name, _)) => Err(ModelError::Tensor {
            name: (*name).to_owned(),
            problem: format!(
                "is unknown to the architecture `{}`",
                facts.architecture.name()
            ),
        }),
    }
}

fn layer_tensors(
    table: &mut Expected<'_, '_>,
    facts: &ModelFacts,
    layer: u32,
) -> Result<(), ModelError> {
    let hidden = u64::from(facts.hidden);
    let head = u64::from(facts.head_length);
    let queries = u64::from(facts.heads) * head;
    let keys = u64::from(facts.kv_heads) * head;
    let feed_forward = u64::from(facts.feed_forward);
    let name = |part: &str| format!("blk.{layer}.{part}");
    table.vector(&name("attn_norm.weight"), hidden, true)?;
    table.vector(&name("ffn_norm.weight"), hidden, true)?;
    for (part, shape) in [
        ("attn_q.weight", [hidden, queries]),
        ("attn_k.weight", [hidden, keys]),
        ("attn_v.weight", [hidden, keys]),
        ("attn_output.weight", [queries, hidden]),
        ("ffn_gate.weight", [hidden, feed_forward]),
        ("ffn_up.weight", [hidden, feed_forward]),
        ("ffn_down.weight", [feed_forward, hidden]),
    ] {
        table.matrix(&name(part), shape, true)?;
    }
    if facts.architecture == Architecture::Qwen3 {
        table.vector(&name("attn_q_norm.weight"), head, true)?;
        table.vector(&name("attn_k_norm.weight"), head, true)?;
    }
    // All or none: a file with only some of them leaves an unknown tensor.
    if facts.attention_biases {
        table.vector(&name("attn_q.bias"), queries, true)?;
        table.vector(&name("attn_k.bias"), keys, true)?;
        table.vector(&name("attn_v.bias"), keys, true)?;
    }
    Ok(())
}

/// The tensors of a file that nobody asked for yet.
struct Expected<'m, 'f> {
    present: &'m mut BTreeMap<&'f str, &'f TensorInfo>,
    vectors: &'m [TensorType],
}

impl Expected<'_, '_> {
    /// A matrix in any encoding that can be multiplied.
    fn matrix(&mut self, name: &str, shape: [u64; 2], required: bool) -> Result<(), ModelError> {
        self.take(
            name,
            &shape,
            required,
            |kind| !kind.is_integer(),
            "a weight encoding",
        )
    }

    /// Norms, biases and frequencies.
    fn vector(&mut self, name: &str, length: u64, required: bool) -> Result<(), ModelError> {
        let vectors = self.vectors;
        let wanted: Vec<_> = vectors.iter().map(|kind| kind.name()).collect();
        self.take(
            name,
            &[length],
            required,
            |kind| vectors.contains(&kind),
            &wanted.join(", "),
        )
    }

    fn take(
        &mut self,
        name: &str,
        shape: &[u64],
        required: bool,
        allowed: impl Fn(TensorType) -> bool,
        wanted: &str,
    ) -> Result<(), ModelError> {
        let wrong = |problem: String| ModelError::Tensor {
            name: name.to_owned(),
            problem,
        };
        let Some(found) = self.present.remove(name) else {
            return if required {
                Err(wrong("is missing".to_owned()))
            } else {
                Ok(())
            };
        };
        // Trailing dimensions of 1 are the same shape.
        let mut dimensions = found.dimensions.as_slice();
        while let [rest @ .., 1] = dimensions
            && dimensions.len() > shape.len()
        {
            dimensions = rest;
        }
        if dimensions != shape {
            return Err(wrong(format!(
                "has the shape {:?}, the metadata needs {shape:?}",
                found.dimensions
            )));
        }
        if !allowed(found.kind) {
            return Err(wrong(format!("is {}, it must be {wanted}", found.kind)));
        }
        Ok(())
    }
}
