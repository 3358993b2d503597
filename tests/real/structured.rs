//! Constrained answers are valid whatever the model says: 50 schemas, 1,000 answers drawn at
//! temperature 1 from noise over a real vocabulary, each checked by an independent validator.

use enginewright::model::gguf::GgufFile;
use enginewright::text::TextModel;
use enginewright::text::constraint::{Constraint, GrammarSpec};
use enginewright::text::detokenizer::Detokenizer;
use enginewright::text::sampling::{Sampler, SamplingParams};
use enginewright::text::template::ToolDefinition;
use enginewright::text::tools::{ToolChoice, ToolDelta, ToolFormat, ToolParser};
use serde_json::{Value, json};

use crate::tools;

const ANSWERS_PER_SCHEMA: u64 = 20;
const MOST_TOKENS: usize = 4_000;

/// A model that knows nothing: noise, with a leaning towards what closes a value, so that answers
/// come to an end.
struct Noise {
    row: Vec<f32>,
    state: u64,
    lean: Vec<f32>,
}

impl Noise {
    fn new(text: &TextModel, seed: u64) -> Self {
        let tokenizer = &text.tokenizer;
        let lean = (0..tokenizer.vocabulary_size()).map(|id| {
            if tokenizer.is_end_of_generation(id) {
                return 14.0;
            }
            match tokenizer.token_bytes(id) {
                b"\"" | b"}" | b"]" | b"\"," | b"\"}" | b"null" => 10.0,
                bytes if bytes.len() == 1 => 3.0,
                _ => 0.0,
            }
        });
        Self {
            row: Vec::new(),
            state: seed,
            lean: lean.collect(),
        }
    }

    fn logits(&mut self) -> &[f32] {
        self.row.clear();
        for lean in &self.lean {
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bits = u16::try_from(self.state >> 48).unwrap();
            self.row.push(lean + f32::from(bits) / 16_384.0);
        }
        &self.row
    }
}

fn model() -> TextModel {
    TextModel::from_gguf(&GgufFile::open(&tools::model()).unwrap()).unwrap()
}

/// An answer that follows `constraint`, drawn from noise.
fn answer(text: &TextModel, mut constraint: Constraint, seed: u64) -> String {
    let params = SamplingParams {
        seed,
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(params, &[]).unwrap();
    let mut noise = Noise::new(text, seed);
    let mut detokenizer = Detokenizer::new();
    let mut out = String::new();
    for _ in 0..MOST_TOKENS {
        let mask = constraint.mask().unwrap();
        let token = sampler.sample(noise.logits(), Some(&mask)).unwrap();
        if text.tokenizer.is_end_of_generation(token) {
            return out + &detokenizer.finish();
        }
        constraint.accept(token).unwrap();
        sampler.accept(token);
        out.push_str(&detokenizer.push(&text.tokenizer, token));
        if constraint.is_complete() {
            return out + &detokenizer.finish();
        }
    }
    panic!("no end after {MOST_TOKENS} tokens: {out}");
}

fn object(properties: &Value) -> Value {
    let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": false,
    })
}

fn scalars() -> Vec<Value> {
    vec![
        json!({ "type": "string" }),
        json!({ "type": "string", "minLength": 3, "maxLength": 12 }),
        json!({ "type": "string", "maxLength": 0 }),
        json!({ "type": "string", "pattern": "^[a-z]{2,5}-[0-9]{3}$" }),
        json!({ "type": "string", "pattern": "^(red|green|blue)$" }),
        json!({ "type": "string", "pattern": "^\\p{Lu}\\w{1,8}$" }),
        json!({ "type": "string", "format": "date" }),
        json!({ "type": "string", "format": "time" }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "format": "uuid" }),
        json!({ "type": "string", "format": "ipv4" }),
        json!({ "type": "integer" }),
        json!({ "type": "integer", "minimum": -5, "maximum": 17 }),
        json!({ "type": "integer", "exclusiveMinimum": 100, "maximum": 1_000_000 }),
        json!({ "type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 10_000 }),
        json!({ "type": "number" }),
        json!({ "type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25 }),
        json!({ "type": "boolean" }),
        json!({ "type": "null" }),
        json!({ "type": ["string", "null"] }),
        json!({ "enum": ["a", 1, null, true, [1, "x"], { "k": "v" }] }),
        json!({ "const": { "fixed": [1, 2.5, "é\"\\"] } }),
        json!({ "enum": ["日本", "naïve", "tab\there", "quote\"d"] }),
    ]
}

fn containers() -> Vec<Value> {
    let person = object(&json!({ "name": { "type": "string" }, "age": { "type": "integer" } }));
    vec![
        json!({ "type": "object" }),
        json!({ "type": "object", "properties": { "a": { "type": "string" } } }),
        json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
        json!({ "type": "object", "properties": { "é \"x\"": { "type": "null" } }, "required": ["é \"x\""] }),
        json!({ "type": "object", "patternProperties": { "^n[0-9]$": { "type": "number" } }, "additionalProperties": false }),
        person.clone(),
        object(&json!({ "people": { "type": "array", "items": person.clone(), "maxItems": 3 } })),
        object(
            &json!({ "a": { "enum": [1, 2] }, "b": object(&json!({ "c": { "type": "boolean" } })) }),
        ),
        json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "integer" }, "c": { "type": "boolean" } }, "required": ["b"], "additionalProperties": false }),
        json!({ "type": "array" }),
        json!({ "type": "array", "items": { "type": "integer" }, "minItems": 2, "maxItems": 5 }),
        json!({ "type": "array", "items": { "enum": ["x", "y"] }, "maxItems": 0 }),
        json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "number" }], "items": false, "minItems": 2 }),
        json!({ "type": "array", "items": { "type": "array", "items": { "type": "boolean" }, "maxItems": 2 }, "maxItems": 3 }),
        json!({}),
    ]
}

fn combined() -> Vec<Value> {
    let tagged =
        |tag: &str, extra: &Value| object(&json!({ "kind": { "const": tag }, "value": extra }));
    vec![
        json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] }),
        json!({ "anyOf": [tagged("s", &json!({ "type": "string" })), tagged("n", &json!({ "type": "number" }))] }),
        json!({ "oneOf": [tagged("s", &json!({ "type": "string" })), tagged("n", &json!({ "type": "number" }))] }),
        json!({ "oneOf": [{ "type": "null" }, { "type": "array", "items": { "type": "integer" }, "maxItems": 2 }] }),
        json!({ "allOf": [{ "type": "integer", "minimum": 3 }, { "maximum": 9 }] }),
        json!({ "allOf": [object(&json!({ "a": { "type": "string" } })), { "properties": { "a": { "maxLength": 4 } } }] }),
        json!({ "$ref": "#/$defs/p", "$defs": { "p": object(&json!({ "x": { "$ref": "#/$defs/i" } })), "i": { "type": "integer" } } }),
        json!({ "$ref": "#/$defs/tree", "$defs": { "tree": object(&json!({ "children": { "type": "array", "items": { "$ref": "#/$defs/tree" }, "maxItems": 1 } })) } }),
        json!({ "$ref": "#/definitions/list", "definitions": { "list": { "anyOf": [{ "type": "null" }, object(&json!({ "head": { "type": "integer" }, "tail": { "$ref": "#/definitions/list" } }))] } } }),
        json!({ "title": "T", "description": "D", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": { "when": { "type": "string", "format": "date", "description": "day", "default": "2020-01-01" } }, "required": ["when"] }),
        object(
            &json!({ "steps": { "type": "array", "items": object(&json!({ "explanation": { "type": "string" }, "output": { "type": "string" } })), "minItems": 1, "maxItems": 2 }, "final_answer": { "type": "string" } }),
        ),
        object(
            &json!({ "sku": { "type": "string", "pattern": "^[A-Z]{3}[0-9]{4}$" }, "price": { "type": "number", "minimum": 0 }, "tags": { "type": "array", "items": { "type": "string", "maxLength": 8 }, "maxItems": 3 }, "size": { "type": ["object", "null"], "properties": { "w": { "type": "integer" } }, "required": ["w"], "additionalProperties": false } }),
        ),
    ]
}

/// The fifty schemas.
pub fn schemas() -> Vec<Value> {
    let all = [scalars(), containers(), combined()].concat();
    assert_eq!(all.len(), 50);
    all
}

#[test]
fn a_thousand_answers_to_fifty_schemas_are_valid() {
    let text = model();
    for (schema, number) in schemas().iter().zip(0..) {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(schema)
            .unwrap();
        for run in 0..ANSWERS_PER_SCHEMA {
            let spec = GrammarSpec::JsonSchema(schema.clone());
            let constraint = text.constraints.compile(&spec).unwrap();
            let written = answer(&text, constraint, number * 1000 + run);
            let value: Value = serde_json::from_str(&written)
                .unwrap_or_else(|error| panic!("{schema} gave {written:?}: {error}"));
            assert!(validator.is_valid(&value), "{schema} gave {written}");
        }
    }
}

#[test]
fn forced_tool_calls_are_read_back_valid() {
    let text = model();
    let parameters = object(&json!({
        "city": { "type": "string", "maxLength": 20 },
        "days": { "type": "integer", "minimum": 1, "maximum": 14 },
    }));
    let validator = jsonschema::validator_for(&parameters).unwrap();
    let tool = |name: &str| ToolDefinition {
        name: name.into(),
        description: None,
        parameters: parameters.clone(),
    };
    let offered = [tool("weather"), tool("climate")];
    for format in [ToolFormat::Hermes, ToolFormat::Llama3] {
        for choice in [ToolChoice::Required, ToolChoice::Named("climate".into())] {
            for run in 0..25 {
                let grammar = format.grammar(&offered, &choice, true).unwrap();
                let constraint = text.constraints.compile(&grammar).unwrap();
                let written = answer(&text, constraint, run);
                let mut parser = ToolParser::new(format);
                let mut deltas = parser.push(&written);
                deltas.extend(parser.finish());
                let mut calls: Vec<(String, String)> = Vec::new();
                for delta in deltas {
                    match delta {
                        ToolDelta::CallStart { name, .. } => calls.push((name, String::new())),
                        ToolDelta::CallArguments { fragment, .. } => {
                            calls.last_mut().unwrap().1.push_str(&fragment);
                        }
                        ToolDelta::Content(text) => panic!("{text:?} in {written:?}"),
                    }
                }
                assert!(!calls.is_empty(), "{written:?}");
                for (name, arguments) in calls {
                    let known = offered.iter().any(|tool| tool.name == name);
                    assert!(known && (choice == ToolChoice::Required || name == "climate"));
                    let arguments: Value = serde_json::from_str(&arguments).unwrap();
                    assert!(validator.is_valid(&arguments), "{written:?}");
                }
            }
        }
    }
}
