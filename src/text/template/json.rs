//! JSON the way Python writes it, which is what models were trained on.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Most nested lists and maps.
const MAX_DEPTH: usize = 128;

/// The options of Python's `json.dumps`.
pub(super) struct Style {
    pub(super) indent: Option<usize>,
    pub(super) sort_keys: bool,
    pub(super) between_items: Option<String>,
    pub(super) after_name: Option<String>,
}

/// Writes `value`. `charge` is told of the bytes written and may stop it: a small value can be
/// long, when its parts are shared.
pub(super) fn write(
    value: &Value,
    style: &Style,
    charge: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<String, Error> {
    let mut writer = Writer {
        style,
        out: String::new(),
        charged: 0,
        charge,
    };
    writer.value(value, 0)?;
    writer.settle()?;
    Ok(writer.out)
}

struct Writer<'a> {
    style: &'a Style,
    out: String,
    charged: usize,
    charge: &'a mut dyn FnMut(usize) -> Result<(), Error>,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let problem = format!("a value is nested more than {MAX_DEPTH} deep");
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool if value.is_true() => self.out.push_str("true"),
            ValueKind::Bool => self.out.push_str("false"),
            ValueKind::Number => {
                write!(self.out, "{value}").map_err(|_| unwritable(value))?;
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            _ => return Err(unwritable(value)),
        }
        self.settle()
    }

    fn string(&mut self, text: &str) {
        self.out
            .push_str(&serde_json::Value::from(text).to_string());
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(&mut empty, depth + 1);
            self.value(&item, depth + 1)?;
        }
        self.close(empty, ']', depth);
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut names: Vec<Value> = value.try_iter()?.collect();
        if self.style.sort_keys {
            names.sort();
        }
        self.out.push('{');
        let mut empty = true;
        for name in names {
            self.separate(&mut empty, depth + 1);
            match name.kind() {
                ValueKind::None => self.string("null"),
                _ => self.string(&name.to_string()),
            }
            self.out
                .push_str(self.style.after_name.as_deref().unwrap_or(": "));
            self.value(&value.get_item(&name)?, depth + 1)?;
        }
        self.close(empty, '}', depth);
        Ok(())
    }

    fn separate(&mut self, first: &mut bool, depth: usize) {
        if !std::mem::take(first) {
            let usual = if self.style.indent.is_some() {
                ","
            } else {
                ", "
            };
            self.out
                .push_str(self.style.between_items.as_deref().unwrap_or(usual));
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, bracket: char, depth: usize) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out
                .extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    }

    fn settle(&mut self) -> Result<(), Error> {
        let written = self.out.len() - self.charged;
        self.charged = self.out.len();
        (self.charge)(written)
    }
}

fn unwritable(value: &Value) -> Error {
    let problem = format!("{} cannot be written as JSON", value.kind());
    Error::new(ErrorKind::InvalidOperation, problem)
}
