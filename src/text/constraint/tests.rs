use serde_json::json;

use super::*;
use crate::text::tokenizer::Specials;
use crate::text::tokenizer::tests::small;

pub(crate) fn compile(grammar: &GrammarSpec) -> Result<Constraint, ConstraintError> {
    ConstraintFactory::new(&small()).unwrap().compile(grammar)
}

/// Whether `text` follows the grammar to a place where it may end.
pub(crate) fn follows(grammar: &GrammarSpec, text: &str) -> bool {
    let mut constraint = compile(grammar).unwrap();
    for token in small().encode(text, Specials::Text) {
        let allowed = constraint.mask().unwrap().allows(token);
        if !allowed {
            return false;
        }
        constraint.accept(token).unwrap();
    }
    let ends = constraint.mask().unwrap().allows(261);
    assert_eq!(ends, constraint.may_end());
    ends
}

fn accepts(schema: Value, text: &str) -> bool {
    follows(&GrammarSpec::JsonSchema(schema), text)
}

fn refused(schema: Value) -> String {
    match compile(&GrammarSpec::JsonSchema(schema)) {
        Err(ConstraintError::Schema(problem)) => problem,
        other => panic!("gave {other:?}"),
    }
}

#[test]
fn an_answer_follows_its_schema_token_by_token() {
    let schema = json!({
        "type": "object",
        "properties": { "hell": { "type": "integer" }, "b": { "enum": ["x", "y"] } },
        "required": ["hell"],
        "additionalProperties": false,
    });
    assert!(accepts(schema.clone(), "{\"hell\": 12, \"b\": \"y\"}"));
    assert!(accepts(schema.clone(), "{\"hell\": -3}"));
    for bad in [
        "{\"b\": \"x\"}",
        "{\"hell\": 1.5}",
        "{\"hell\": 1, \"c\": 2}",
        "[]",
        "{\"hell\": 1",
    ] {
        assert!(!accepts(schema.clone(), bad), "{bad}");
    }
}

#[test]
fn a_json_object_is_an_object() {
    assert!(follows(
        &GrammarSpec::JsonObject,
        "{\"a\": [1, null, \"é\"], \"b\": {}}"
    ));
    assert!(!follows(&GrammarSpec::JsonObject, "[1]"));
    assert!(
        !follows(&GrammarSpec::JsonObject, "{\n\n\n\n}"),
        "no white space to get lost in"
    );
}

#[test]
fn an_answer_is_complete_when_nothing_can_follow() {
    let mut constraint = compile(&GrammarSpec::JsonSchema(json!({ "const": true }))).unwrap();
    for token in small().encode("true", Specials::Text) {
        assert!(!constraint.is_complete());
        assert!(constraint.mask().unwrap().allows(token));
        constraint.accept(token).unwrap();
    }
    assert!(constraint.is_complete());
    let mask = constraint.mask().unwrap();
    assert!(mask.allows(261) && !mask.allows(0), "only the end is left");
}

#[test]
fn control_tokens_are_never_part_of_an_answer() {
    let mut constraint = compile(&GrammarSpec::JsonSchema(json!({ "type": "string" }))).unwrap();
    for token in small().encode("\"<|im_", Specials::Text) {
        constraint.accept(token).unwrap();
        assert!(!constraint.mask().unwrap().allows(260));
    }
    assert!(constraint.mask().unwrap().allows(u32::from(b's')));
}

#[test]
fn a_token_outside_the_mask_is_an_error() {
    let mut constraint = compile(&GrammarSpec::JsonObject).unwrap();
    assert!(!constraint.mask().unwrap().allows(u32::from(b'x')));
    assert!(matches!(
        constraint.accept(u32::from(b'x')),
        Err(ConstraintError::Failed(_))
    ));
}

#[test]
fn impossible_schemas_are_errors() {
    for schema in [
        json!(false),
        json!("object"),
        json!({ "type": "strange" }),
        json!({ "enum": [] }),
        json!({ "type": "integer", "minimum": 5, "maximum": 2 }),
        json!({ "type": "string", "minLength": 5, "maxLength": 2 }),
        json!({ "allOf": [{ "type": "string" }, { "type": "number" }] }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] }),
        json!({ "$ref": "#" }),
        json!({ "$ref": "#/nowhere" }),
        json!({ "$ref": "https://example.com/schema" }),
        json!({ "type": "array", "items": { "$ref": "#" }, "minItems": 1 }),
        json!({ "type": "string", "pattern": "(" }),
        json!({ "not": { "type": "string" } }),
    ] {
        assert!(!refused(schema).is_empty());
    }
}

#[test]
fn recursive_schemas_that_can_end_are_fine() {
    let tree = json!({
        "type": "object",
        "properties": { "next": { "anyOf": [{ "type": "null" }, { "$ref": "#" }] } },
        "required": ["next"],
        "additionalProperties": false,
    });
    assert!(accepts(tree, "{\"next\": {\"next\": null}}"));
}

#[test]
fn hostile_schemas_are_refused_in_good_time() {
    let mut deep = json!({ "type": "integer" });
    for _ in 0..200 {
        deep = json!({ "type": "array", "items": deep });
    }
    refused(deep);
    let wide: Value = (0..30_000)
        .map(|index| json!(format!("value {index}")))
        .collect();
    refused(json!({ "enum": wide }));
    refused(json!({ "type": "string", "maxLength": 1_000_000_000_u64 }));
    refused(json!({ "type": "array", "minItems": 1e12 }));
    refused(json!({ "const": "x".repeat(300_000) }));
    // Each definition uses the next one twice: exponential when expanded.
    let mut definitions = serde_json::Map::new();
    for index in 0..60 {
        let next = json!({ "$ref": format!("#/$defs/d{}", index + 1) });
        let both = json!({
            "type": "object",
            "properties": { "a": next, "b": next },
            "required": ["a", "b"],
        });
        definitions.insert(format!("d{index}"), both);
    }
    definitions.insert("d60".into(), json!({ "type": "null" }));
    let _ = compile(&GrammarSpec::JsonSchema(
        json!({ "$ref": "#/$defs/d0", "$defs": definitions }),
    ));
    for pattern in [
        "(a{1000}){1000}",
        "((a|b|c|d){1,500}x){1,500}",
        "(.*a.{2000}){50}",
    ] {
        let schema = json!({ "type": "string", "pattern": pattern });
        if let Ok(mut constraint) = compile(&GrammarSpec::JsonSchema(schema)) {
            // What compiles is bounded at every step.
            for token in small().encode("\"aaaa", Specials::Text) {
                if constraint.mask().is_err() || constraint.accept(token).is_err() {
                    break;
                }
            }
        }
    }
    let all: Vec<Value> = (0..20)
        .map(|index| json!({ "type": "string", "pattern": format!("a.*{index}.*b") }))
        .collect();
    refused(json!({ "allOf": all }));
    refused(
        json!({ "$defs": { "p": { "pattern": "a" } }, "allOf": vec![json!({ "$ref": "#/$defs/p" }); 9] }),
    );
    let choice: Vec<Value> = (0..8)
        .map(|value| json!({ "properties": { "a": { "const": value } } }))
        .collect();
    refused(json!({ "allOf": vec![json!({ "anyOf": choice }); 4] }));
    refused(json!({ "type": "integer", "multipleOf": 1_234_567, "minimum": 0, "maximum": 9e15 }));
    let many: serde_json::Map<String, Value> = (0..4000)
        .map(|index| (format!("p{index}"), json!({ "type": "string" })))
        .collect();
    refused(json!({ "type": "object", "properties": many }));
}

#[test]
fn one_of_is_supported_where_branches_exclude_each_other() {
    let tagged = |name: &str| json!({ "type": "object", "properties": { "kind": { "const": name } }, "required": ["kind"], "additionalProperties": false });
    let schema = json!({ "oneOf": [{ "$ref": "#/$defs/a" }, tagged("b"), { "type": "null" }], "$defs": { "a": tagged("a") } });
    assert!(accepts(schema.clone(), "{\"kind\": \"b\"}"));
    assert!(accepts(schema.clone(), "null"));
    assert!(!accepts(schema, "{\"kind\": \"c\"}"));
    assert!(
        refused(json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] }))
            .contains("anyOf")
    );
    assert!(
        refused(json!({ "oneOf": [{ "minLength": 1 }, { "maxLength": 3 }] })).contains("anyOf")
    );
}

#[test]
fn dates_and_times_are_real_ones() {
    let date = || json!({ "type": "string", "format": "date" });
    for good in ["2024-02-29", "2000-02-29", "2023-02-28", "1999-12-31"] {
        assert!(accepts(date(), &format!("\"{good}\"")), "{good}");
    }
    for bad in [
        "2023-02-29",
        "1900-02-29",
        "2024-02-30",
        "2024-04-31",
        "2024-13-01",
        "2024-1-1",
    ] {
        assert!(!accepts(date(), &format!("\"{bad}\"")), "{bad}");
    }
    let moment = json!({ "format": "date-time", "type": "string", "pattern": "Z$" });
    assert!(accepts(moment.clone(), "\"2024-02-29T23:59:59.5Z\""));
    assert!(!accepts(moment.clone(), "\"2024-02-29T23:59:60Z\""));
    assert!(!accepts(moment, "\"2024-02-29T23:59:59+01:00\""));
}

#[test]
fn values_that_look_like_schemas_are_left_alone() {
    let value = json!({ "format": "date", "oneOf": [1, 1], "x-guidance": 2 });
    assert!(accepts(
        json!({ "const": value }),
        "{\"format\": \"date\", \"oneOf\": [1, 1], \"x-guidance\": 2}"
    ));
}

#[test]
fn clients_cannot_set_the_librarys_options() {
    let schema = json!({ "type": "array", "x-guidance": { "whitespace_flexible": true } });
    assert!(!accepts(schema, "[   ]"));
}
