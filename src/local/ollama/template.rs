//! Prompt templates for a model that is handed to Ollama: the well-known ones in Ollama's own
//! language, chosen by what the model's own template contains.
//!
//! Only needed for who asks that Ollama directly; the gateway renders prompts with the model's own
//! template.

const CHATML: &str = "{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
";

const LLAMA3: &str = "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

";

/// What Ollama puts in when it recognises nothing.
pub const UNKNOWN: &str = "{{ .Prompt }}";

/// The template of Ollama for a model whose own one is `chat_template`.
pub fn known(chat_template: &str) -> Option<&'static str> {
    if chat_template.contains("<|im_start|>") {
        Some(CHATML)
    } else if chat_template.contains("<|start_header_id|>") {
        Some(LLAMA3)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_apart_by_their_marks() {
        assert_eq!(known("{{ '<|im_start|>' + role }}"), Some(CHATML));
        assert_eq!(known("<|start_header_id|>"), Some(LLAMA3));
        assert_eq!(known("[INST]"), None);
    }
}
