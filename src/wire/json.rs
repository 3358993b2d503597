//! Reading JSON bodies: bounded depth, and errors that name the field. It does not know what a
//! field means.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};

/// Deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 64;

/// Why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not UTF-8.
    #[error("the body is not UTF-8: invalid byte at offset {offset}")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        offset: usize,
    },
    /// Nested too deeply.
    #[error("the body is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Not JSON.
    #[error("the body is not valid JSON: {problem}")]
    Syntax {
        /// What and where.
        problem: String,
    },
    /// JSON, but a field is missing or of the wrong type.
    #[error("{path}: {problem}")]
    Field {
        /// The field, such as `messages[0].role`.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads `body` as `T`.
///
/// # Errors
/// See [`JsonError`]; the first problem found.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(body).map_err(|error| JsonError::NotUtf8 {
        offset: error.valid_up_to(),
    })?;
    if deeper_than(text.as_bytes(), MAX_DEPTH) {
        return Err(JsonError::TooDeep);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        classify(path, error.inner())
    })?;
    deserializer
        .end()
        .map_err(|error| classify(".".into(), &error))?;
    Ok(value)
}

fn classify(path: String, error: &serde_json::Error) -> JsonError {
    let full = error.to_string();
    // A number that does not fit its field is valid JSON.
    if !error.is_data() && !full.starts_with("number out of range") {
        return JsonError::Syntax { problem: full };
    }
    // serde_json appends the position, which says nothing beside the path.
    let problem = full
        .rsplit_once(" at line ")
        .map_or(full.as_str(), |(problem, _)| problem);
    let path = if path == "." { String::new() } else { path };
    let (path, problem) = match missing_field(problem) {
        Some(name) => (join(&path, name), "is required"),
        None => (path, problem),
    };
    let path = if path.is_empty() {
        "body".to_owned()
    } else {
        path
    };
    JsonError::Field {
        path,
        problem: problem.to_owned(),
    }
}

fn missing_field(problem: &str) -> Option<&str> {
    problem.strip_prefix("missing field `")?.strip_suffix('`')
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Whether arrays and objects in `json` nest deeper than `limit`; linear, without recursion.
fn deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// For `deserialize_with`: an integer that may be written as a float without a fraction, as clients
/// in languages with one number type do.
///
/// # Errors
/// When the value is not a whole number.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if let Some(integer) = number.as_i64() {
        return Ok(Some(integer));
    }
    match number.as_f64() {
        #[allow(clippy::cast_possible_truncation)] // whole and far inside the range of i64
        Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => Ok(Some(float as i64)),
        _ => Err(D::Error::custom(format!(
            "{number} is not a whole number in range"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        role: String,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        items: Vec<Inner>,
        #[serde(default, deserialize_with = "whole_number")]
        count: Option<i64>,
    }

    fn error(body: &str) -> String {
        parse::<Outer>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_type_names_its_path() {
        assert_eq!(
            error(r#"{"items":[{"role":"a"},{"role":7}]}"#),
            "items[1].role: invalid type: integer `7`, expected a string"
        );
        assert_eq!(error(r#"{"items":[{}]}"#), "items[0].role: is required");
        assert_eq!(error("{}"), "items: is required");
        assert!(error("[]").starts_with("items: is required") || error("[]").starts_with("body: "));
        assert_eq!(
            error("7"),
            "body: invalid type: integer `7`, expected struct Outer"
        );
    }

    #[test]
    fn broken_json_says_where() {
        assert!(error("{\"items\":").starts_with("the body is not valid JSON: EOF"));
        assert!(error("{} x").contains("is required"));
        assert!(error(r#"{"items":[]} x"#).contains("trailing characters"));
        assert!(error(r#"{"items":[{"role":"\ud800"}]}"#).contains("not valid JSON"));
        assert!(error(r#"{"items":NaN}"#).contains("not valid JSON"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_the_offset() {
        let error = parse::<Outer>(b"{\"items\":[{\"role\":\"\xff\"}]}").unwrap_err();
        assert_eq!(error, JsonError::NotUtf8 { offset: 19 });
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion_and_brackets_in_strings_do_not_count() {
        let deep = format!("{{\"items\":{}", "[".repeat(100_000));
        assert_eq!(
            parse::<Outer>(deep.as_bytes()).unwrap_err(),
            JsonError::TooDeep
        );
        let text = format!(r#"{{"items":[{{"role":"{}\"["}}]}}"#, "[{".repeat(1000));
        assert!(parse::<Outer>(text.as_bytes()).is_ok());
    }

    #[test]
    fn whole_floats_are_integers_and_others_are_not() {
        let count = |text: &str| {
            parse::<Outer>(format!(r#"{{"items":[],"count":{text}}}"#).as_bytes())
                .map(|outer| outer.count)
        };
        assert_eq!(count("4096.0").unwrap(), Some(4096));
        assert_eq!(count("null").unwrap(), None);
        assert!(count("1.5").is_err());
        assert!(count("1e300").is_err());
    }
}
