//! A small suite of tool calls with one right answer each: the objective `toolCallAccuracy`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Prober;

/// A request and the call that is right for it; `None` where no tool must be called.
struct Case {
    prompt: &'static str,
    call: Option<(&'static str, &'static [(&'static str, &'static str)])>,
}

const CASES: [Case; 8] = [
    Case {
        prompt: "What is the weather in Berlin?",
        call: Some(("get_weather", &[("city", "berlin")])),
    },
    Case {
        prompt: "Is it raining in Tokyo right now?",
        call: Some(("get_weather", &[("city", "tokyo")])),
    },
    Case {
        prompt: "Turn on the light in the kitchen.",
        call: Some(("set_light", &[("room", "kitchen"), ("state", "on")])),
    },
    Case {
        prompt: "Switch the bedroom light off, please.",
        call: Some(("set_light", &[("room", "bedroom"), ("state", "off")])),
    },
    Case {
        prompt: "Set a timer for 10 minutes.",
        call: Some(("set_timer", &[("minutes", "10")])),
    },
    Case {
        prompt: "Remind me in 25 minutes with a timer.",
        call: Some(("set_timer", &[("minutes", "25")])),
    },
    Case {
        prompt: "Say hello to me in French.",
        call: None,
    },
    Case {
        prompt: "Thank you, that was all.",
        call: None,
    },
];

/// Share of right answers; `None` when the server could not be asked.
pub async fn accuracy(prober: &Prober, limit: Duration) -> Option<f64> {
    let mut right = 0_u32;
    let mut asked = 0_u32;
    for case in &CASES {
        let body = json!({
            "messages": [{"role": "user", "content": case.prompt}],
            "tools": tools(),
            "temperature": 0,
            "max_tokens": 128,
        });
        let answer = prober.post_whole(body, limit).await.ok()?;
        asked += 1;
        right += u32::from(is_right(case, &answer));
    }
    Some(f64::from(right) / f64::from(asked))
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({"type": "function", "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object", "properties": properties, "required": required,
            },
        }})
    };
    json!([
        tool(
            "get_weather",
            "Get the current weather of a city",
            json!({"city": {"type": "string"}}),
            &["city"]
        ),
        tool(
            "set_light",
            "Switch the light of a room",
            json!({"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}}),
            &["room", "state"]
        ),
        tool(
            "set_timer",
            "Start a timer",
            json!({"minutes": {"type": "integer"}}),
            &["minutes"]
        ),
    ])
}

fn is_right(case: &Case, answer: &Value) -> bool {
    let calls = answer
        .pointer("/choices/0/message/tool_calls")
        .and_then(Value::as_array)
        .map_or(&[] as &[Value], Vec::as_slice);
    let (Some((name, arguments)), [call]) = (case.call, calls) else {
        return case.call.is_none() && calls.is_empty();
    };
    let given = call.pointer("/function/arguments").and_then(Value::as_str);
    let given: Value = given
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    call.pointer("/function/name").and_then(Value::as_str) == Some(name)
        && arguments.iter().all(|(key, expected)| {
            let value = match given.get(key) {
                Some(Value::String(text)) => text.to_lowercase(),
                Some(other) => other.to_string(),
                None => return false,
            };
            value == *expected
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(calls: &[(&str, &str)]) -> Value {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(name, arguments)| json!({"function": {"name": name, "arguments": arguments}}))
            .collect();
        json!({"choices": [{"message": {"tool_calls": calls}}]})
    }

    #[test]
    fn a_call_is_right_when_name_and_arguments_are() {
        let light = &CASES[2];
        for (calls, expected) in [
            (
                vec![("set_light", r#"{"room":"Kitchen","state":"on"}"#)],
                true,
            ),
            (
                vec![("set_light", r#"{"room":"kitchen","state":"off"}"#)],
                false,
            ),
            (vec![("set_light", r#"{"room":"kitchen"}"#)], false),
            (vec![("set_light", "nonsense")], false),
            (vec![("set_timer", r#"{"minutes":1}"#)], false),
            (vec![], false),
        ] {
            assert_eq!(is_right(light, &answer(&calls)), expected, "{calls:?}");
        }
        let timer = answer(&[("set_timer", r#"{"minutes":10}"#)]);
        assert!(is_right(&CASES[4], &timer));
    }

    #[test]
    fn where_no_tool_is_right_none_may_be_called() {
        let thanks = &CASES[7];
        assert!(is_right(
            thanks,
            &json!({"choices": [{"message": {"content": "bye"}}]})
        ));
        assert!(!is_right(
            thanks,
            &answer(&[("set_timer", r#"{"minutes":1}"#)])
        ));
    }
}
