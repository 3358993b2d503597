//! The labels of a `Node`: what `spec.placement.nodeSelector` can select by. The NVIDIA device plugin
//! publishes neither compute capability nor memory of a Jetson.

use std::collections::BTreeMap;

use crate::api::EdgeNodeStatus;

/// Longest value of a label.
const MAX_VALUE: usize = 63;

/// Keys of all labels that the agent may write. Others below `enginewright.dev/` are the user's, for
/// example `enginewright.dev/wave`.
pub const KEYS: [&str; 8] = [
    "enginewright.dev/module",
    "enginewright.dev/sm",
    "enginewright.dev/memory",
    "enginewright.dev/l4t",
    "enginewright.dev/jetpack",
    "enginewright.dev/cuda",
    "enginewright.dev/tensorrt",
    "enginewright.dev/runtime-class",
];

/// The labels that a status gives.
pub fn labels(status: &EdgeNodeStatus) -> BTreeMap<String, String> {
    let module = status.module.as_ref().map(|module| module.name.as_str());
    let software = &status.software;
    let values = [
        module.map(|name| name.trim_start_matches("Jetson ")),
        status.gpu.as_ref().map(|gpu| gpu.sm.as_str()),
        status.memory.as_deref(),
        software.l4t.as_deref(),
        software.jetpack.as_deref(),
        software.cuda.as_deref(),
        software.tensorrt.as_deref(),
        status.runtime_class.as_deref(),
    ];
    KEYS.iter()
        .zip(values)
        .filter_map(|(key, value)| {
            let value = value_of(value?, *key == "enginewright.dev/module")?;
            Some(((*key).to_owned(), value))
        })
        .collect()
}

/// A text as the value of a label: letters, digits, `-`, `_` and `.`, at most 63, a letter or digit
/// at both ends. Names are written in lower case. `None` where nothing is left.
fn value_of(text: &str, name: bool) -> Option<String> {
    let text = if name {
        text.to_lowercase()
    } else {
        text.to_owned()
    };
    let mut value = String::new();
    for letter in text.chars() {
        let plain = letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        let letter = if plain { letter } else { '-' };
        if letter != '-' || !value.ends_with('-') {
            value.push(letter);
        }
    }
    value.truncate(MAX_VALUE);
    let value = value.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_becomes_the_value_that_people_select_by() {
        assert_eq!(
            value_of("Orin NX 16GB", true).as_deref(),
            Some("orin-nx-16gb")
        );
        assert_eq!(value_of("10.3.0.30", false).as_deref(), Some("10.3.0.30"));
        assert_eq!(value_of("15Gi", false).as_deref(), Some("15Gi"));
        assert_eq!(value_of("(?)", false), None);
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_value_that_kubernetes_takes_or_none(text in "\\PC{0,90}") {
            if let Some(value) = value_of(&text, true) {
                prop_assert!(value.len() <= MAX_VALUE);
                let ends = [value.chars().next(), value.chars().last()];
                prop_assert!(ends.iter().flatten().all(char::is_ascii_alphanumeric));
                prop_assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
            }
        }
    }
}
