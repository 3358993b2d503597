use serde_json::json;

use super::*;

/// Reads `text` cut into pieces of `size` characters; content and calls of the whole answer.
fn read(format: ToolFormat, text: &str, size: usize) -> (String, Vec<(String, String)>) {
    let mut parser = ToolParser::new(format);
    let characters: Vec<char> = text.chars().collect();
    let mut deltas = Vec::new();
    for piece in characters.chunks(size) {
        deltas.extend(parser.push(&piece.iter().collect::<String>()));
    }
    deltas.extend(parser.finish());
    let (mut content, mut calls) = (String::new(), Vec::new());
    for delta in deltas {
        match delta {
            ToolDelta::Content(text) => content.push_str(&text),
            ToolDelta::CallStart { index, name } => {
                assert_eq!(index as usize, calls.len());
                calls.push((name, String::new()));
            }
            ToolDelta::CallArguments { index, fragment } => {
                assert_eq!(
                    index as usize + 1,
                    calls.len(),
                    "arguments follow their call"
                );
                calls.last_mut().unwrap().1.push_str(&fragment);
            }
        }
    }
    (content, calls)
}

fn check(format: ToolFormat, text: &str, content: &str, calls: &[(&str, &str)]) {
    for size in [1, 2, 3, 7, 1000] {
        let (found, found_calls) = read(format, text, size);
        assert_eq!(found, content, "{text:?} by {size}");
        let found_calls: Vec<_> = found_calls
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(found_calls, calls, "{text:?} by {size}");
    }
}

#[test]
fn hermes_calls_are_read_however_the_text_is_cut() {
    use ToolFormat::Hermes;
    let weather = "{\"city\": \"Paris } </tool_call> \\\" é\", \"days\": [1, {\"a\": 2}]}";
    let call =
        format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {weather}}}\n</tool_call>");
    check(Hermes, &call, "", &[("weather", weather)]);
    check(
        Hermes,
        &format!("Let me see.\n\n{call}"),
        "Let me see.",
        &[("weather", weather)],
    );
    check(
        Hermes,
        &format!("{call}\n{call}"),
        "",
        &[("weather", weather), ("weather", weather)],
    );
    check(
        Hermes,
        "no < call <tool_ at all ",
        "no < call <tool_ at all ",
        &[],
    );
    check(
        Hermes,
        "<tool_call>{\"name\":\"f\"}</tool_call>",
        "",
        &[("f", "{}")],
    );
    check(
        Hermes,
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
        "",
        &[("f", "{}")],
    );
    check(
        Hermes,
        "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>x",
        "x",
        &[("f", "{}")],
    );
}

#[test]
fn arguments_may_come_first_or_as_a_string_or_twice() {
    use ToolFormat::Hermes;
    check(
        Hermes,
        "<tool_call>{\"arguments\": {\"a\": 1}, \"id\": -1.5e3, \"name\": \"f\"}</tool_call>",
        "",
        &[("f", "{\"a\": 1}")],
    );
    check(
        Hermes,
        r#"<tool_call>{"name": "f", "arguments": "{\"a\": \"x\"}"}</tool_call>"#,
        "",
        &[("f", "{\"a\": \"x\"}")],
    );
    check(
        Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"parameters\": {\"b\": 1}}</tool_call>",
        "",
        &[("f", "{}")],
    );
}

#[test]
fn what_is_no_call_stays_content() {
    use ToolFormat::Hermes;
    for text in [
        "<tool_call>not json</tool_call>",
        "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": 7}</tool_call>",
        "<tool_call>[1]",
        "<tool_call>{\"name\": \"f\"",
        "<tool_call>",
    ] {
        check(Hermes, text, text, &[]);
    }
}

#[test]
fn a_call_that_is_cut_off_keeps_what_was_sent() {
    check(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"xy",
        "",
        &[("f", "{\"a\": \"xy")],
    );
    check(
        ToolFormat::Hermes,
        "<tool_call>{\"name\": \"f\", \"arguments\": {}} <tool_call>{\"name\": \"g\"}</tool_call>",
        "",
        &[("f", "{}"), ("g", "{}")],
    );
}

#[test]
fn llama3_calls_are_objects_at_the_beginning() {
    use ToolFormat::Llama3;
    let call = "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}";
    check(Llama3, call, "", &[("f", "{\"a\": \"b\"}")]);
    check(
        Llama3,
        &format!("\n<|python_tag|>{call}"),
        "",
        &[("f", "{\"a\": \"b\"}")],
    );
    check(
        Llama3,
        &format!("{call}; {call}"),
        "",
        &[("f", "{\"a\": \"b\"}"), ("f", "{\"a\": \"b\"}")],
    );
    check(
        Llama3,
        &format!("text {call}"),
        &format!("text {call}"),
        &[],
    );
    check(
        Llama3,
        "{\"name\": \"just data\"}",
        "{\"name\": \"just data\"}",
        &[],
    );
    check(Llama3, "{\"a\": [1, 2]} more", "{\"a\": [1, 2]} more", &[]);
    check(Llama3, "  plain", "  plain", &[]);
    check(Llama3, "", "", &[]);
}

#[test]
fn arguments_stream_while_they_are_written() {
    let mut parser = ToolParser::new(ToolFormat::Hermes);
    assert_eq!(
        parser.push("Hm\n<tool_call>\n{\"name\": \"f\", "),
        [ToolDelta::Content("Hm".into())]
    );
    assert_eq!(
        parser.push("\"arguments\": {\"te"),
        [
            ToolDelta::CallStart {
                index: 0,
                name: "f".into()
            },
            ToolDelta::CallArguments {
                index: 0,
                fragment: "{\"te".into()
            },
        ]
    );
    assert_eq!(
        parser.push("xt\": 1}}"),
        [ToolDelta::CallArguments {
            index: 0,
            fragment: "xt\": 1}".into()
        }]
    );
    assert!(parser.push("\n</tool_call>").is_empty());
    assert!(parser.finish().is_empty());
}

#[test]
fn the_format_is_seen_in_the_template() {
    assert_eq!(ToolFormat::detect(""), None);
    assert_eq!(
        ToolFormat::detect("{{ '<tool_call>' }}"),
        Some(ToolFormat::Hermes)
    );
    assert_eq!(
        ToolFormat::detect("Environment: ipython"),
        Some(ToolFormat::Llama3)
    );
    assert_eq!(
        ToolFormat::detect("{{ messages }}"),
        Some(ToolFormat::Hermes)
    );
}

fn tools() -> Vec<ToolDefinition> {
    let tool = |name: &str, parameters| ToolDefinition {
        name: name.into(),
        description: None,
        parameters,
    };
    vec![
        tool(
            "weather",
            json!({
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": { "city": { "$ref": "#/$defs/City" } },
                "required": ["city"],
                "additionalProperties": false,
                "$defs": { "City": { "enum": ["Paris", "Rome"] } },
            }),
        ),
        tool("stop", json!(null)),
    ]
}

fn follows(format: ToolFormat, choice: &ToolChoice, parallel: bool, text: &str) -> bool {
    let grammar = format.grammar(&tools(), choice, parallel).unwrap();
    crate::text::constraint::tests::follows(&grammar, text)
}

#[test]
fn a_required_hermes_call_must_be_one_and_valid() {
    let required = |text: &str| follows(ToolFormat::Hermes, &ToolChoice::Required, false, text);
    let call = |body: &str| format!("<tool_call>\n{body}\n</tool_call>");
    let paris = call("{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}");
    assert!(required(&paris));
    assert!(required(&call("{\"name\": \"stop\", \"arguments\": {}}")));
    assert!(!required(&call(
        "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}"
    )));
    assert!(!required(&call("{\"name\": \"other\", \"arguments\": {}}")));
    assert!(!required("text"));
    assert!(!required(""));
    let twice = format!("{paris}\n{paris}");
    assert!(!required(&twice));
    assert!(follows(
        ToolFormat::Hermes,
        &ToolChoice::Required,
        true,
        &twice
    ));
}

#[test]
fn a_named_tool_is_the_only_one() {
    let named = ToolChoice::Named("stop".into());
    let call = |name: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{}}}}\n</tool_call>")
    };
    assert!(follows(ToolFormat::Hermes, &named, true, &call("stop")));
    assert!(!follows(ToolFormat::Hermes, &named, true, &call("weather")));
}

#[test]
fn with_auto_there_may_be_text_and_calls_are_valid() {
    for parallel in [false, true] {
        let auto = |text: &str| follows(ToolFormat::Hermes, &ToolChoice::Auto, parallel, text);
        let good = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
        assert!(auto("plain <text>, {\"a\": 1}\n\nno call"));
        assert!(auto(""));
        assert!(auto(good));
        assert!(auto(&format!("Let me stop.\n{good}")));
        assert!(!auto("<tool_call>\n{\"name\": \"no"));
        assert_eq!(auto(&format!("{good}\n{good}")), parallel);
    }
}

#[test]
fn llama3_grammars_hold_the_object() {
    let call = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Rome\"}}";
    assert!(follows(
        ToolFormat::Llama3,
        &ToolChoice::Required,
        true,
        call
    ));
    assert!(!follows(
        ToolFormat::Llama3,
        &ToolChoice::Required,
        true,
        "text"
    ));
    assert!(follows(ToolFormat::Llama3, &ToolChoice::Auto, true, call));
    assert!(follows(
        ToolFormat::Llama3,
        &ToolChoice::Auto,
        true,
        "text {"
    ));
    assert!(follows(ToolFormat::Llama3, &ToolChoice::Auto, true, ""));
    assert!(!follows(
        ToolFormat::Llama3,
        &ToolChoice::Auto,
        true,
        "{\"other\": 1}"
    ));
}

#[test]
fn no_grammar_is_needed_where_no_call_can_be_made() {
    assert_eq!(
        ToolFormat::Hermes.grammar(&[], &ToolChoice::Auto, true),
        None
    );
    assert_eq!(
        ToolFormat::Hermes.grammar(&tools(), &ToolChoice::None, true),
        None
    );
}

#[test]
fn an_impossible_tool_is_an_error() {
    let tool = |parameters| ToolDefinition {
        name: "f".into(),
        description: None,
        parameters,
    };
    for parameters in [
        json!({ "type": "object", "properties": { "a": false }, "required": ["a"] }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/missing" } }, "required": ["a"] }),
    ] {
        let grammar =
            ToolFormat::Hermes.grammar(&[tool(parameters.clone())], &ToolChoice::Required, false);
        let error = crate::text::constraint::tests::compile(&grammar.unwrap());
        assert!(error.is_err(), "{parameters}");
    }
}
