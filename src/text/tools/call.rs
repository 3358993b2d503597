//! Reading one call, a JSON object, as its text comes.

/// Names under which models write the arguments.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];

/// What became known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The tool.
    Name(String),
    /// More text of the arguments' object.
    Arguments(String),
}

/// How far the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More text is needed.
    Open,
    /// The object is complete.
    Done,
    /// This is not a call.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeObject,
    BeforeKey,
    InKey,
    BeforeColon,
    BeforeValue,
    InValue,
    AfterValue,
}

/// A call that is being read.
#[expect(
    clippy::struct_excessive_bools,
    reason = "two are the place inside a string, two what was reported: they do not exclude each other"
)]
#[derive(Clone, Debug)]
pub(super) struct CallReader {
    place: Place,
    /// The key, or the value while it is short or not yet wanted, as written.
    key: String,
    value: String,
    /// Open brackets inside the value.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Known, and whether it was reported.
    name: Option<String>,
    reported: bool,
    /// Text of the arguments that waits for the name.
    waiting: String,
    arguments: Arguments,
    /// Without arguments it is no call but some other object.
    needs_arguments: bool,
}

/// How much of the arguments was seen; only the first ones count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arguments {
    None,
    Begun,
    Complete,
}

impl CallReader {
    /// `needs_arguments`: an object with only a name is no call.
    pub(super) fn new(needs_arguments: bool) -> Self {
        Self {
            place: Place::BeforeObject,
            key: String::new(),
            value: String::new(),
            depth: 0,
            in_string: false,
            escaped: false,
            name: None,
            reported: false,
            waiting: String::new(),
            arguments: Arguments::None,
            needs_arguments,
        }
    }

    /// Whether the call was reported by name: it can no longer be taken back.
    pub(super) fn is_reported(&self) -> bool {
        self.reported
    }

    /// Takes one character; adds what became known to `parts`.
    pub(super) fn push(&mut self, character: char, parts: &mut Vec<Part>) -> Progress {
        match self.place {
            Place::InKey => self.key_character(character),
            Place::InValue => return self.value_character(character, parts),
            _ if character.is_ascii_whitespace() => {}
            Place::BeforeObject if character == '{' => self.place = Place::BeforeKey,
            Place::BeforeKey if character == '"' => {
                self.key.clear();
                self.place = Place::InKey;
            }
            Place::BeforeColon if character == ':' => self.place = Place::BeforeValue,
            Place::BeforeValue => return self.begin_value(character, parts),
            Place::AfterValue if character == ',' => self.place = Place::BeforeKey,
            Place::AfterValue | Place::BeforeKey if character == '}' => {
                return self.complete(parts);
            }
            _ => return Progress::Broken,
        }
        Progress::Open
    }

    fn key_character(&mut self, character: char) {
        match character {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = true,
            '"' => self.place = Place::BeforeColon,
            _ => {}
        }
        if self.place == Place::InKey {
            self.key.push(character);
        }
    }

    fn begin_value(&mut self, character: char, parts: &mut Vec<Part>) -> Progress {
        self.value.clear();
        self.depth = 0;
        self.in_string = false;
        if ",:}]".contains(character) {
            return Progress::Broken;
        }
        self.place = Place::InValue;
        self.value_character(character, parts)
    }

    fn value_character(&mut self, character: char, parts: &mut Vec<Part>) -> Progress {
        if self.in_string {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            self.value.push(character);
            let ends = !self.in_string && self.depth == 0;
            return if ends {
                self.end_value(parts)
            } else {
                self.stream(parts)
            };
        }
        match character {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                self.value.push(character);
                return if self.depth == 0 {
                    self.end_value(parts)
                } else {
                    self.stream(parts)
                };
            }
            ',' | '}' | ']' | ' ' | '\n' | '\r' | '\t' if self.depth == 0 => {
                // The end of a number or a word.
                return match self.end_value(parts) {
                    Progress::Open => self.push(character, parts),
                    other => other,
                };
            }
            _ => {}
        }
        self.value.push(character);
        self.stream(parts)
    }

    /// Passes on what is known of an arguments' object.
    fn stream(&mut self, parts: &mut Vec<Part>) -> Progress {
        let wanted = ARGUMENTS.contains(&self.key.as_str());
        if wanted && self.arguments == Arguments::None && self.value == "{" {
            self.arguments = Arguments::Begun;
        }
        if wanted && self.arguments == Arguments::Begun {
            self.waiting.push_str(&std::mem::take(&mut self.value));
            self.report(parts);
        }
        Progress::Open
    }

    fn end_value(&mut self, parts: &mut Vec<Part>) -> Progress {
        self.place = Place::AfterValue;
        let value = std::mem::take(&mut self.value);
        if self.key == "name" && !self.reported {
            match serde_json::from_str(&value) {
                Ok(name) => self.name = Some(name),
                Err(_) => return Progress::Broken,
            }
        } else if ARGUMENTS.contains(&self.key.as_str()) && self.arguments != Arguments::Complete {
            let Some(text) = self.arguments_text(value) else {
                return Progress::Broken;
            };
            self.waiting.push_str(&text);
            self.arguments = Arguments::Complete;
        }
        self.report(parts);
        Progress::Open
    }

    /// The last piece of the arguments' object.
    fn arguments_text(&self, value: String) -> Option<String> {
        if self.arguments == Arguments::Begun {
            return Some(value);
        }
        match value.as_str() {
            "null" | "{}" => Some("{}".to_owned()),
            // Some models write the object as a string.
            _ => serde_json::from_str::<String>(&value)
                .ok()
                .filter(|text| is_object(text)),
        }
    }

    fn report(&mut self, parts: &mut Vec<Part>) {
        if self.arguments == Arguments::None {
            return;
        }
        if let Some(name) = self.name.take() {
            self.reported = true;
            parts.push(Part::Name(name));
        }
        if self.reported && !self.waiting.is_empty() {
            parts.push(Part::Arguments(std::mem::take(&mut self.waiting)));
        }
    }

    fn complete(&mut self, parts: &mut Vec<Part>) -> Progress {
        if self.arguments == Arguments::None && !self.needs_arguments {
            self.waiting.push_str("{}");
            self.arguments = Arguments::Complete;
        }
        self.report(parts);
        if self.reported {
            Progress::Done
        } else {
            Progress::Broken
        }
    }
}

fn is_object(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(serde_json::Value::Object(_)))
}
