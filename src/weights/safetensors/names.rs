//! Hugging Face's names of tensors, as GGUF's.

/// GGUF's name of the tensor that Hugging Face's checkpoints call `name`; `None` for one that this
/// program does not know.
pub(super) fn canonical(name: &str) -> Option<String> {
    let known = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(known) = known {
        return Some(known.to_owned());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    // `007` and `+7` would be second names of layer 7.
    let number: u32 = layer.parse().ok()?;
    if number.to_string() != layer {
        return None;
    }
    let part = match part {
        "input_layernorm.weight" => "attn_norm.weight",
        "post_attention_layernorm.weight" => "ffn_norm.weight",
        "self_attn.q_proj.weight" => "attn_q.weight",
        "self_attn.k_proj.weight" => "attn_k.weight",
        "self_attn.v_proj.weight" => "attn_v.weight",
        "self_attn.q_proj.bias" => "attn_q.bias",
        "self_attn.k_proj.bias" => "attn_k.bias",
        "self_attn.v_proj.bias" => "attn_v.bias",
        "self_attn.o_proj.weight" => "attn_output.weight",
        "self_attn.q_norm.weight" => "attn_q_norm.weight",
        "self_attn.k_norm.weight" => "attn_k_norm.weight",
        "mlp.gate_proj.weight" => "ffn_gate.weight",
        "mlp.up_proj.weight" => "ffn_up.weight",
        "mlp.down_proj.weight" => "ffn_down.weight",
        _ => return None,
    };
    Some(format!("blk.{number}.{part}"))
}

/// Whether a tensor is computed anew by everyone who runs the model: old checkpoints have it.
pub(super) fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ggufs() {
        for (name, expected) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("lm_head.weight", "output.weight"),
            (
                "model.layers.0.self_attn.q_proj.weight",
                "blk.0.attn_q.weight",
            ),
            (
                "model.layers.31.mlp.down_proj.weight",
                "blk.31.ffn_down.weight",
            ),
            (
                "model.layers.7.self_attn.k_norm.weight",
                "blk.7.attn_k_norm.weight",
            ),
        ] {
            assert_eq!(canonical(name).as_deref(), Some(expected));
        }
    }

    #[test]
    fn unknown_names_and_second_spellings_are_none() {
        for name in [
            "model.layers.007.mlp.down_proj.weight",
            "model.layers.+7.mlp.down_proj.weight",
            "model.layers.x.mlp.down_proj.weight",
            "model.layers.1.block_sparse_moe.gate.weight",
            "model.layers.0.self_attn.o_proj.bias",
            "weight",
            "",
        ] {
            assert_eq!(canonical(name), None, "{name}");
        }
    }
}
