//! The variables a template sees, in the shape of the `transformers` library.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object};
use serde_json::Value as Json;

use super::sentinel::Breaker;
use super::{ChatMessage, RenderInput, ToolCall, ToolDefinition};

/// Makes values, with text from outside made harmless.
pub(super) struct Values<'a> {
    pub(super) breaker: Option<&'a Breaker<'a>>,
    pub(super) bos: &'a str,
    pub(super) eos: &'a str,
}

impl Values<'_> {
    /// All variables.
    pub(super) fn context(&self, input: &RenderInput<'_>) -> Value {
        let variables = input.variables.iter();
        let mut members: Vec<(Value, Value)> = variables
            .map(|(name, value)| (Value::from(name), self.json(value)))
            .collect();
        let messages: Value = input.messages.iter().map(|one| self.message(one)).collect();
        let tools: Value = input.tools.iter().map(|one| self.tool(one)).collect();
        let none = || Value::from(());
        // Later ones win over what the client named.
        members.extend([
            pair("messages", messages),
            pair(
                "tools",
                if input.tools.is_empty() {
                    none()
                } else {
                    tools
                },
            ),
            pair("documents", none()),
            pair(
                "add_generation_prompt",
                Value::from(input.add_generation_prompt),
            ),
            pair("bos_token", Value::from(self.bos)),
            pair("eos_token", Value::from(self.eos)),
        ]);
        Map::value(members)
    }

    fn message(&self, message: &ChatMessage) -> Value {
        // Text even where there is none: templates join it to other text.
        let content = message.content.as_deref().unwrap_or_default();
        let mut members = vec![
            pair("role", self.text(&message.role)),
            pair("content", self.text(content)),
        ];
        if let Some(name) = &message.name {
            members.push(pair("name", self.text(name)));
        }
        if !message.tool_calls.is_empty() {
            let calls = message
                .tool_calls
                .iter()
                .map(|call| self.call(call))
                .collect();
            members.push(pair("tool_calls", calls));
        }
        if let Some(id) = &message.tool_call_id {
            members.push(pair("tool_call_id", self.text(id)));
        }
        Map::value(members)
    }

    fn call(&self, call: &ToolCall) -> Value {
        let function = Map::value(vec![
            pair("name", self.text(&call.name)),
            pair("arguments", self.json(&call.arguments)),
        ]);
        Map::value(vec![
            pair("id", self.text(&call.id)),
            pair("type", Value::from("function")),
            pair("function", function),
        ])
    }

    fn tool(&self, tool: &ToolDefinition) -> Value {
        let mut members = vec![pair("name", self.text(&tool.name))];
        if let Some(description) = &tool.description {
            members.push(pair("description", self.text(description)));
        }
        members.push(pair("parameters", self.json(&tool.parameters)));
        let function = Map::value(members);
        Map::value(vec![
            pair("type", Value::from("function")),
            pair("function", function),
        ])
    }

    fn json(&self, value: &Json) -> Value {
        match value {
            Json::Null => Value::from(()),
            Json::Bool(truth) => Value::from(*truth),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(signed), _) => Value::from(signed),
                (None, Some(unsigned)) => Value::from(unsigned),
                (None, None) => Value::from(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Json::Object(members) => {
                let members = members.iter();
                Map::value(
                    members
                        .map(|(name, one)| (self.text(name), self.json(one)))
                        .collect(),
                )
            }
        }
    }

    fn text(&self, text: &str) -> Value {
        match self.breaker {
            Some(breaker) => Value::from(breaker.apply(text)),
            None => Value::from(text),
        }
    }
}

fn pair(name: &str, value: Value) -> (Value, Value) {
    (Value::from(name), value)
}

/// A map that keeps the order in which a client wrote it.
#[derive(Debug)]
struct Map {
    names: Vec<Value>,
    values: HashMap<Value, Value>,
}

impl Map {
    /// Of equal names the last one counts.
    fn value(members: Vec<(Value, Value)>) -> Value {
        let mut map = Self {
            names: Vec::new(),
            values: HashMap::with_capacity(members.len()),
        };
        for (name, value) in members {
            if map.values.insert(name.clone(), value).is_none() {
                map.names.push(name);
            }
        }
        Value::from_object(map)
    }
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        self.values.get(name).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.names.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.names.len())
    }
}
