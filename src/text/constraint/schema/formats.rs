//! Dates and times as patterns of our own: the grammar compiler's formats allow the 30th of
//! February and leap seconds at any minute, which validators refuse.

use serde_json::{Map, Value, json};

const LEAP_YEAR: &str =
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)";
const DAY: &str = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)\
    |02-(0[1-9]|1[0-9]|2[0-8]))";
const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?\
    (Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";

/// Replaces the formats of one schema that are dates or times.
pub(super) fn rewrite(members: &mut Map<String, Value>) {
    let date = || format!("([0-9]{{4}}-{DAY}|{LEAP_YEAR}-02-29)");
    let pattern = match members.get("format").and_then(Value::as_str) {
        Some("date") => date(),
        Some("time") => TIME.to_owned(),
        Some("date-time") => format!("{}T{TIME}", date()),
        _ => return,
    };
    members.remove("format");
    let pattern = Value::String(format!("^{pattern}$"));
    if !members.contains_key("pattern") {
        members.insert("pattern".into(), pattern);
        return;
    }
    match members.entry("allOf").or_insert_with(|| json!([])) {
        Value::Array(all) => all.push(json!({ "pattern": pattern })),
        other => *other = json!([{ "pattern": pattern }]),
    }
}
