//! Whether an object is as it shall be: everything that is ours has our value. What the API server
//! fills in and what others add is not ours. Pure, so that nothing is written where nothing is wrong.

use serde_json::{Map, Value};

/// Whether `live` has everything that `wanted` says.
pub fn agrees(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => object_agrees(wanted, live),
        (Value::Array(wanted), Value::Array(live)) => array_agrees(wanted, live),
        (Value::Null, _) => true,
        (wanted, live) => wanted == live,
    }
}

fn object_agrees(wanted: &Map<String, Value>, live: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, value)| match live.get(key) {
        Some(live) => agrees(value, live),
        None => is_empty(value),
    })
}

/// The API server leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Lists of named things (containers, volumes, ports, mounts) are compared by their names, so that an
/// entry that somebody else added is left to them; all others are compared whole.
fn array_agrees(wanted: &[Value], live: &[Value]) -> bool {
    for key in ["name", "uid", "mountPath"] {
        if !wanted.is_empty() && wanted.iter().all(|item| item.get(key).is_some()) {
            return wanted.iter().all(|item| {
                live.iter()
                    .any(|live| live.get(key) == item.get(key) && agrees(item, live))
            });
        }
    }
    wanted.len() == live.len()
        && wanted
            .iter()
            .zip(live)
            .all(|(wanted, live)| agrees(wanted, live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_fill_in_is_theirs() {
        let wanted = json!({"spec": {"containers": [{"name": "a", "args": ["x"]}]}});
        let live = json!({
            "spec": {"dnsPolicy": "ClusterFirst", "containers": [
                {"name": "sidecar"},
                {"name": "a", "args": ["x"], "terminationMessagePath": "/dev/termination-log"},
            ]},
            "status": {},
        });
        assert!(agrees(&wanted, &live));
    }

    #[test]
    fn what_somebody_edited_is_noticed() {
        let wanted = json!({"args": ["a", "b"], "mounts": [{"name": "v", "mountPath": "/v"}]});
        for live in [
            json!({"args": ["a", "c"], "mounts": [{"name": "v", "mountPath": "/v"}]}),
            json!({"args": ["a", "b", "c"], "mounts": [{"name": "v", "mountPath": "/v"}]}),
            json!({"args": ["a", "b"], "mounts": [{"name": "v", "mountPath": "/w"}]}),
            json!({"args": ["a", "b"], "mounts": []}),
            json!({"mounts": [{"name": "v", "mountPath": "/v"}]}),
        ] {
            assert!(!agrees(&wanted, &live), "{live}");
        }
    }

    #[test]
    fn what_is_empty_may_be_left_out() {
        assert!(agrees(&json!({"a": {}, "b": [], "c": null}), &json!({})));
        assert!(!agrees(&json!({"a": false}), &json!({})));
    }
}
