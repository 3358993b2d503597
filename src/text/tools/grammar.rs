//! Grammars for answers with tool calls.

use serde_json::{Map, Value, json};

use super::{ToolChoice, ToolFormat};
use crate::text::constraint::GrammarSpec;
use crate::text::template::ToolDefinition;

/// Most calls of one answer: a weak model must come to an end.
const MAX_CALLS: usize = 16;

pub(super) fn build(
    format: ToolFormat,
    tools: &[ToolDefinition],
    choice: &ToolChoice,
    parallel: bool,
) -> Option<GrammarSpec> {
    if tools.is_empty() || *choice == ToolChoice::None {
        return None;
    }
    let named = |tool: &&ToolDefinition| match choice {
        ToolChoice::Named(name) => tool.name == *name,
        _ => true,
    };
    let offered: Vec<&ToolDefinition> = tools.iter().filter(named).collect();
    let may_repeat = parallel && !matches!(choice, ToolChoice::Named(_));
    let lark = match format {
        ToolFormat::Hermes => hermes(*choice == ToolChoice::Auto, may_repeat),
        ToolFormat::Llama3 => llama3(*choice == ToolChoice::Auto),
    };
    let arguments = match format {
        ToolFormat::Hermes => "arguments",
        ToolFormat::Llama3 => "parameters",
    };
    Some(GrammarSpec::LarkWithSchema {
        lark,
        schema: body(&offered, arguments),
    })
}

fn hermes(auto: bool, may_repeat: bool) -> String {
    let more = if may_repeat {
        format!(" (\"\\n\" call){{0,{}}}", MAX_CALLS - 1)
    } else {
        String::new()
    };
    let rest = "rest: \"\\n\" body \"\\n</tool_call>\"\ncall: \"<tool_call>\" rest";
    if auto {
        // Any text; where it opens a call, the call is held to its schema.
        format!(
            "start: text | opening rest{more}\ntext: TEXT\nTEXT: /(.|\\n)*/\n\
             opening[lazy]: TEXT \"<tool_call>\"\n{rest}\n"
        )
    } else {
        format!("start: call{more}\n{rest}\n")
    }
}

fn llama3(auto: bool) -> String {
    if auto {
        "start: text | body\ntext: TEXT\nTEXT: /([^{](.|\\n)*)?/\n".to_owned()
    } else {
        "start: body\n".to_owned()
    }
}

/// The schema of a call of any of `tools`.
fn body(tools: &[&ToolDefinition], arguments: &str) -> Value {
    let mut definitions = Map::new();
    let mut calls = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tool_{index}");
        let reference = format!("#/$defs/{place}");
        calls.push(json!({
            "type": "object",
            "properties": {
                "name": { "const": tool.name },
                arguments: { "$ref": reference.clone() },
            },
            "required": ["name", arguments],
            "additionalProperties": false,
        }));
        definitions.insert(place, moved(&tool.parameters, &reference));
    }
    json!({ "anyOf": calls, "$defs": definitions })
}

/// A tool's own schema as a part of a larger one, at `place`.
fn moved(parameters: &Value, place: &str) -> Value {
    let Value::Object(members) = parameters else {
        return json!({ "type": "object" });
    };
    let mut schema = members.clone();
    for name in ["$schema", "$id"] {
        schema.remove(name);
    }
    schema.entry("type").or_insert_with(|| "object".into());
    let mut schema = Value::Object(schema);
    move_references(&mut schema, place);
    schema
}

fn move_references(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" && target.starts_with('#') => {
                        *target = [place, &target[1..]].concat();
                    }
                    other => move_references(other, place),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| move_references(item, place)),
        _ => {}
    }
}
