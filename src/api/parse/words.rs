//! Values, types and near misses in words.

use serde_json::Value;

/// A value as it would be written, with its type where that is not plain.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) if fields.is_empty() => "an empty block".to_owned(),
        Value::Object(fields) => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("a block with {}", names.join(", "))
        }
    }
}

/// What a rule looked at: the value itself, or those fields of a block that the rule names.
pub(super) fn describe_for_rule(value: &Value, rule: &str) -> String {
    let Value::Object(_) = value else {
        return describe(value);
    };
    let mut seen: Vec<String> = Vec::new();
    for mention in rule.split("self.").skip(1) {
        let end = mention
            .find(|c: char| !(c.is_alphanumeric() || c == '.'))
            .unwrap_or(mention.len());
        let mut names = mention.get(..end).unwrap_or_default().split('.');
        let (mut here, mut path) = (Some(value), Vec::new());
        for name in names.by_ref() {
            match here.and_then(|inside| inside.get(name)) {
                Some(inside) => {
                    path.push(name);
                    here = Some(inside);
                }
                None => break,
            }
        }
        let Some(inside) = here.filter(|_| !path.is_empty()) else {
            continue;
        };
        let text = format!("{}: {}", path.join("."), plain(inside));
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen.join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        other => describe(other),
    }
}

/// The name of a type, as in `must be a whole number`.
pub(super) fn type_name(json_type: &str) -> &'static str {
    match json_type {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "array" => "a list",
        "object" => "a block of fields",
        _ => "nothing",
    }
}

/// The candidate that was probably meant: the same but for capitals, or few letters away.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, a) in left.chars().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let cost = diagonal + usize::from(a != *b);
            diagonal = *cell;
            before = cost.min(*cell + 1).min(before + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn distance_counts_the_letters_to_change() {
        for (left, right, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let names = ["precision", "slots", "policy"];
        assert_eq!(nearest("Precison", names.into_iter()), Some("precision"));
        assert_eq!(nearest("SLOTS", names.into_iter()), Some("slots"));
        assert_eq!(nearest("replicas", names.into_iter()), None);
    }

    #[test]
    fn a_rule_shows_the_fields_it_names() {
        let block = json!({"a": 1, "b": {"c": "x"}, "d": 2});
        let text = describe_for_rule(&block, "self.a + size(self.b.c) > 0 && !has(self.missing)");
        assert_eq!(text, "a: 1, b.c: x");
    }
}
