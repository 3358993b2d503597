//! Bounds on what a schema may ask of the grammar compiler.
//!
//! The compiler bounds its own work in most places, but not where keywords multiply: these bounds
//! keep compiling below about a second.

use serde_json::{Map, Value};

use super::{ConstraintError, referenced, refuse};

/// Most nested values of a schema. Reading and compiling recurse.
const MAX_DEPTH: usize = 64;
/// Most values of a schema, counted with everything in it.
const MAX_VALUES: usize = 20_000;
/// Most bytes of all strings of a schema.
const MAX_STRING_BYTES: usize = 256 * 1024;
/// Largest count a schema may ask for (`minItems`, `maxLength`, …).
const MAX_COUNT: f64 = 100_000.0;
/// Keywords whose value is such a count.
const COUNTS: [&str; 8] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
];
/// Most states that counting up to a `multipleOf` takes.
const MAX_MULTIPLE: f64 = 100_000.0;
/// Any order of optional properties costs the square of their number: sum of these squares.
const MAX_PROPERTY_PAIRS: usize = 1_000_000;
/// Most patterns that one text may have to match at once, inside an `allOf`.
const MAX_JOINT_PATTERNS: usize = 8;
/// Most combinations of branches inside an `allOf`.
const MAX_JOINT_BRANCHES: usize = 256;
/// Schemas visited in search of the two above: references can multiply.
const MAX_STEPS: usize = 20_000;

pub(super) fn check(schema: &Value) -> Result<(), ConstraintError> {
    let mut measure = Measure {
        root: schema,
        values: 0,
        string_bytes: 0,
        property_pairs: 0,
    };
    measure.value(schema, 0)
}

struct Measure<'s> {
    root: &'s Value,
    values: usize,
    string_bytes: usize,
    property_pairs: usize,
}

impl Measure<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), ConstraintError> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return refuse(format!("nested more than {MAX_DEPTH} deep"));
        }
        match value {
            Value::String(text) => self.string_bytes += text.len(),
            Value::Array(items) => {
                for item in items {
                    self.value(item, depth + 1)?;
                }
            }
            Value::Object(members) => self.object(members, depth)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if self.values > MAX_VALUES || self.string_bytes > MAX_STRING_BYTES {
            return refuse(format!(
                "too large: at most {MAX_VALUES} values and {MAX_STRING_BYTES} bytes of strings"
            ));
        }
        Ok(())
    }

    fn object(
        &mut self,
        members: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), ConstraintError> {
        for (name, member) in members {
            self.string_bytes += name.len();
            check_number(name, member)?;
            match (name.as_str(), member) {
                ("properties", Value::Object(properties)) => {
                    self.property_pairs += properties.len().pow(2);
                    if self.property_pairs > MAX_PROPERTY_PAIRS {
                        return refuse(
                            "too many properties: about 1000 in one object are supported",
                        );
                    }
                }
                ("allOf", Value::Array(_)) => self.joint(members)?,
                _ => {}
            }
            self.value(member, depth + 1)?;
        }
        Ok(())
    }

    /// Everything under an `allOf` may have to hold of one value.
    fn joint(&self, members: &Map<String, Value>) -> Result<(), ConstraintError> {
        let mut joint = Joint {
            root: self.root,
            patterns: 0,
            branches: 1,
            steps: 0,
        };
        joint.members(members);
        if joint.patterns > MAX_JOINT_PATTERNS {
            return refuse(format!(
                "more than {MAX_JOINT_PATTERNS} patterns under one allOf"
            ));
        }
        if joint.branches > MAX_JOINT_BRANCHES || joint.steps > MAX_STEPS {
            return refuse(format!(
                "more than {MAX_JOINT_BRANCHES} combinations of branches under one allOf"
            ));
        }
        Ok(())
    }
}

struct Joint<'s> {
    root: &'s Value,
    patterns: usize,
    branches: usize,
    steps: usize,
}

impl Joint<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(members) => self.members(members),
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            _ => {}
        }
    }

    fn members(&mut self, members: &Map<String, Value>) {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return;
        }
        if let Some((_, target)) = referenced(self.root, members) {
            self.value(target);
        }
        for (name, member) in members {
            match (name.as_str(), member) {
                ("pattern" | "format", Value::String(_)) => self.patterns += 1,
                ("patternProperties", Value::Object(all)) => self.patterns += all.len(),
                ("anyOf" | "oneOf", Value::Array(branches)) => {
                    self.branches = self.branches.saturating_mul(branches.len().max(1));
                }
                // What they define counts where it is referred to.
                ("$defs" | "definitions", _) => continue,
                _ => {}
            }
            self.value(member);
        }
    }
}

fn check_number(name: &str, value: &Value) -> Result<(), ConstraintError> {
    let Some(number) = value.as_f64() else {
        return Ok(());
    };
    if COUNTS.contains(&name) && number > MAX_COUNT {
        return refuse(format!(
            "{name} is {value}, at most {MAX_COUNT} is supported"
        ));
    }
    if name == "multipleOf" {
        // The automaton counts in units of the last decimal place.
        let digits = value.to_string();
        let places = digits.split_once('.').map_or(0, |(_, after)| after.len());
        let places = i32::try_from(places).unwrap_or(i32::MAX);
        if number.abs() * 10_f64.powi(places) > MAX_MULTIPLE && !digits.contains('e') {
            return refuse(format!("multipleOf {value} has too many digits"));
        }
    }
    Ok(())
}
