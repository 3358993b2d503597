//! Chat templates of well-known forms, for model files that have none: told by the marks in the
//! template that Ollama has for the model.

/// Llama 3 and its descendants.
const LLAMA3: &str = "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}\
<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

/// Mistral's instructions.
const INSTRUCTIONS: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}\
{{ message['content'] }}{{ eos_token }}{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}";

/// The chat template that one of Ollama's stands for.
pub fn of_ollamas(template: &str) -> Option<&'static str> {
    if template.contains("<|im_start|>") {
        Some(super::CHATML)
    } else if template.contains("<|start_header_id|>") {
        Some(LLAMA3)
    } else if template.contains("[INST]") {
        Some(INSTRUCTIONS)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::template::{ChatMessage, ChatTemplate, RenderInput};

    fn render(theirs: &str) -> String {
        let source = of_ollamas(theirs).unwrap();
        let template = ChatTemplate::new(source, "<s>", "</s>", &[]).unwrap();
        let messages = [
            ChatMessage::new("system", "S"),
            ChatMessage::new("user", "U"),
        ];
        let input = RenderInput {
            messages: &messages,
            add_generation_prompt: true,
            ..RenderInput::default()
        };
        template.render(&input).unwrap().text()
    }

    #[test]
    fn forms_are_told_by_their_marks() {
        assert!(render("{{ .System }}<|im_start|>").ends_with("<|im_start|>assistant\n"));
        assert_eq!(
            render("<|start_header_id|>"),
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
             <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
        assert_eq!(
            render("[INST] {{ .Prompt }}"),
            "<s>[INST] S [/INST][INST] U [/INST]"
        );
        assert_eq!(of_ollamas("{{ .Prompt }}"), None);
    }
}
