//! Tools for models whose template knows none: described in the system message, with calls and
//! answers as text, in the Hermes format that most such models have seen.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ChatMessage, RenderInput, ToolDefinition};

/// Whether the conversation has anything to do with tools.
pub(super) fn is_needed(input: &RenderInput<'_>) -> bool {
    let with_tools =
        |message: &ChatMessage| !message.tool_calls.is_empty() || message.role == "tool";
    !input.tools.is_empty() || input.messages.iter().any(with_tools)
}

/// The conversation with everything about tools as text.
pub(super) fn as_text(input: &RenderInput<'_>) -> Vec<ChatMessage> {
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(input.messages.len() + 1);
    for message in input.messages {
        if message.role == "tool" {
            let content = message.content.as_deref().unwrap_or_default();
            let text = format!("<tool_response>\n{content}\n</tool_response>");
            match messages
                .last_mut()
                .filter(|last| last.tool_call_id.is_some())
            {
                // Several answers in a row are one message.
                Some(ChatMessage {
                    content: Some(before),
                    ..
                }) => {
                    before.push('\n');
                    before.push_str(&text);
                }
                _ => messages.push(ChatMessage {
                    tool_call_id: Some(String::new()),
                    ..ChatMessage::new("user", &text)
                }),
            }
        } else {
            messages.push(calls_as_text(message));
        }
    }
    for message in &mut messages {
        message.tool_call_id = None;
    }
    if !input.tools.is_empty() {
        describe(&mut messages, input.tools);
    }
    messages
}

fn calls_as_text(message: &ChatMessage) -> ChatMessage {
    let mut content = message.content.clone().unwrap_or_default();
    for call in &message.tool_calls {
        let written = spaced(&json!({ "name": call.name, "arguments": call.arguments }));
        if !content.is_empty() {
            content.push('\n');
        }
        content.push_str(&["<tool_call>\n", &written, "\n</tool_call>"].concat());
    }
    ChatMessage {
        role: message.role.clone(),
        content: Some(content),
        name: message.name.clone(),
        ..ChatMessage::default()
    }
}

fn describe(messages: &mut Vec<ChatMessage>, tools: &[ToolDefinition]) {
    let list: Vec<String> = tools
        .iter()
        .map(|tool| spaced(&json!({ "type": "function", "function": tool })))
        .collect();
    let text = format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n\
         <tools>\n{}\n</tools>\n\n\
         For each function call, return a json object with function name and arguments within \
         <tool_call></tool_call> XML tags:\n\
         <tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        list.join("\n")
    );
    match messages.first_mut().filter(|first| first.role == "system") {
        Some(ChatMessage {
            content: Some(system),
            ..
        }) if !system.is_empty() => {
            system.push_str("\n\n");
            system.push_str(&text);
        }
        Some(system) => system.content = Some(text),
        None => messages.insert(0, ChatMessage::new("system", &text)),
    }
}

/// JSON with a space after comma and colon.
fn spaced(value: &Value) -> String {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first {
                Ok(())
            } else {
                writer.write_all(b", ")
            }
        }

        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            self.begin_array_value(writer, first)
        }

        fn begin_object_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
        ) -> std::io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    // Writing a value to memory cannot fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(out).unwrap_or_default()
}
