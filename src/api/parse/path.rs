//! Where in a document something is: `spec.rollout.waves[0].name`.

use std::fmt;

use serde_json::Value;

/// A step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

/// A place in a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// Reads `spec.model.source`, `spec.rollout.waves[0].name`.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (field, items) = part.split_once('[').unwrap_or((part, ""));
            if !field.is_empty() {
                steps.push(Step::Field(field.to_owned()));
            }
            let items = items.trim_end_matches(']').split("][");
            steps.extend(items.filter_map(|item| item.parse().ok().map(Step::Item)));
        }
        Self(steps)
    }

    /// Reads a JSON pointer, `/spec/rollout/waves/0/name`.
    pub(super) fn from_pointer(pointer: &str, document: &Value) -> Self {
        let mut steps = Vec::new();
        let mut here = Some(document);
        for part in pointer.split('/').skip(1) {
            let name = part.replace("~1", "/").replace("~0", "~");
            if let (Some(Value::Array(items)), Ok(index)) = (here, name.parse::<usize>()) {
                here = items.get(index);
                steps.push(Step::Item(index));
            } else {
                here = here.and_then(|value| value.get(&name));
                steps.push(Step::Field(name));
            }
        }
        Self(steps)
    }

    /// The place of a field in the object at this place.
    pub(super) fn field(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Field(name.to_owned()));
        Self(steps)
    }

    /// The place of an item in the list at this place.
    pub(super) fn item(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Item(index));
        Self(steps)
    }

    /// The place around this one.
    pub(super) fn parent(&self) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        Self(steps)
    }

    /// Name of the field, where the last step is one.
    pub(super) fn last_field(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Field(name)) => Some(name),
            _ => None,
        }
    }

    /// What is there.
    pub(super) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Item(index) => value.get(index),
        })
    }

    /// What is there, to be changed.
    pub(super) fn get_mut<'a>(&self, document: &'a mut Value) -> Option<&'a mut Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Item(index) => value.get_mut(index),
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Field(name) if is_plain(name) => {
                    write!(f, "{}{name}", if position == 0 { "" } else { "." })?;
                }
                Step::Field(name) => write!(f, "[{name:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let document = json!({"a": [{"b": 1}], "c": {"d.e": 2, "0": 3}});
        for (pointer, text) in [
            ("/a/0/b", "a[0].b"),
            ("/c/d.e", "c[\"d.e\"]"),
            ("/c/0", "c.0"),
            ("", ""),
        ] {
            let path = Path::from_pointer(pointer, &document);
            assert_eq!(path.to_string(), text);
            assert_eq!(path.get(&document), document.pointer(pointer));
        }
        assert_eq!(Path::parse("a[0].b").get(&document), Some(&json!(1)));
    }
}
