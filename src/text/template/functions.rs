//! What templates of the `transformers` library expect to be able to call.

use std::fmt::Write;

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::{date, json};

/// Marks the message of `raise_exception`, which no other error can carry.
pub(super) const RAISED: &str = "\u{1}raise_exception: ";

/// Adds the functions and filters to `environment`.
pub(super) fn install(environment: &mut Environment<'_>, now: Option<i64>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(write_bounded);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    // A template tests whether it is defined, and has a default.
    if let Some(now) = now {
        environment.add_function("strftime_now", move |format: &str| {
            date::strftime(now, format)
        });
    }
}

/// Writes a value into the prompt. Lists and maps are written only as far as the fuel reaches: one
/// that shares its parts can be longer than any memory, and the engine charges when it is written.
fn write_bounded(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.as_object().is_none() {
        return minijinja::escape_formatter(out, state, value);
    }
    let left = state.fuel_levels().map_or(0, |(_, left)| left);
    let mut bounded = Bounded {
        out,
        left: usize::try_from(left).unwrap_or(usize::MAX),
    };
    write!(bounded, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel))
}

/// A writer that fails after a number of bytes.
struct Bounded<'a, 'o> {
    out: &'a mut Output<'o>,
    left: usize,
}

impl Write for Bounded<'_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(std::fmt::Error)?;
        self.out.write_str(text)
    }
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{message}"),
    ))
}

/// `json.dumps(…, ensure_ascii=False)`, and no escaping for HTML.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the template engine's calling convention"
)]
fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Value> = options.get("separators")?;
    options.assert_all_used()?;
    let pair = separators.filter(|pair| !pair.is_none());
    let separator = |index: usize| {
        let found = pair
            .as_ref()
            .and_then(|pair| pair.get_item_by_index(index).ok());
        found.and_then(|one| one.as_str().map(str::to_owned))
    };
    let style = json::Style {
        indent,
        sort_keys: sort_keys.unwrap_or(false),
        between_items: separator(0),
        after_name: separator(1),
    };
    let text = json::write(value, &style, &mut |bytes| {
        state.consume_fuel(u64::try_from(bytes / 4).unwrap_or(u64::MAX))
    })?;
    // Safe: nothing escapes it again.
    Ok(Value::from_safe_string(text))
}
