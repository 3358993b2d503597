//! Keeping the names of control tokens in text from outside from becoming control tokens.
//!
//! A character that occurs nowhere else is put into every such name before the template sees it.
//! The tokenizer then finds only the names that the template itself wrote, and takes the character
//! out again.

use std::borrow::Cow;

use serde_json::Value;

use super::RenderInput;

/// The names to be broken, with a quick test for where one may begin.
#[derive(Debug)]
pub(super) struct Names {
    all: Vec<String>,
    /// First and second bytes of any name.
    first: [bool; 256],
    second: [bool; 256],
}

impl Names {
    pub(super) fn new(names: &[&str]) -> Self {
        let mut all = Self {
            all: Vec::new(),
            first: [false; 256],
            second: [false; 256],
        };
        for name in names {
            // A name of one character has no inside where it could be broken.
            if let [first, second, ..] = name.as_bytes()
                && name.chars().nth(1).is_some()
            {
                all.first[usize::from(*first)] = true;
                all.second[usize::from(*second)] = true;
                all.all.push((*name).to_owned());
            }
        }
        all
    }

    /// Where in `text` names begin.
    fn begins<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = text.as_bytes();
        bytes
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| {
                self.first[usize::from(pair[0])] && self.second[usize::from(pair[1])]
            })
            .map(|(at, _)| at)
            .filter(|at| {
                self.all
                    .iter()
                    .any(|name| bytes[*at..].starts_with(name.as_bytes()))
            })
    }
}

/// Puts the sentinel into names.
pub(super) struct Breaker<'n> {
    names: &'n Names,
    sentinel: char,
}

impl<'n> Breaker<'n> {
    pub(super) fn new(names: &'n Names, sentinel: char) -> Self {
        Self { names, sentinel }
    }

    /// `text` with every name broken after its first character.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = if text.contains(self.sentinel) {
            Cow::Owned(text.replace(self.sentinel, ""))
        } else {
            Cow::Borrowed(text)
        };
        let mut broken = String::new();
        let mut done = 0;
        for at in self.names.begins(&text) {
            let first = text[at..].chars().next().map_or(1, char::len_utf8);
            broken.push_str(&text[done..at + first]);
            broken.push(self.sentinel);
            done = at + first;
        }
        if done == 0 {
            return text;
        }
        broken.push_str(&text[done..]);
        Cow::Owned(broken)
    }
}

/// A character to break names with; `None` where no text from outside holds a name.
pub(super) fn choose(names: &Names, input: &RenderInput<'_>) -> Option<char> {
    let mut found = false;
    for_each_text(input, &mut |text| {
        found = found || names.begins(text).next().is_some();
    });
    if !found {
        return None;
    }
    // Characters that Unicode sets aside for internal use, so that none should occur.
    let mut used = [false; 32];
    for_each_text(input, &mut |text| {
        for character in text
            .chars()
            .filter(|c| ('\u{fdd0}'..='\u{fdef}').contains(c))
        {
            used[character as usize - 0xFDD0] = true;
        }
    });
    let free = ('\u{fdd0}'..='\u{fdef}').zip(used).find(|(_, used)| !used);
    // All in use: the first is taken out of the text, as Unicode allows for such characters.
    Some(free.map_or('\u{fdd0}', |(character, _)| character))
}

/// Calls `each` for every piece of text from outside.
fn for_each_text(input: &RenderInput<'_>, each: &mut dyn FnMut(&str)) {
    for message in input.messages {
        each(&message.role);
        message.content.as_deref().into_iter().for_each(&mut *each);
        message.name.as_deref().into_iter().for_each(&mut *each);
        message
            .tool_call_id
            .as_deref()
            .into_iter()
            .for_each(&mut *each);
        for call in &message.tool_calls {
            each(&call.id);
            each(&call.name);
            in_json(&call.arguments, each);
        }
    }
    for tool in input.tools {
        each(&tool.name);
        tool.description.as_deref().into_iter().for_each(&mut *each);
        in_json(&tool.parameters, each);
    }
    for (name, value) in &input.variables {
        each(name);
        in_json(value, each);
    }
}

fn in_json(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| in_json(item, each)),
        Value::Object(members) => {
            for (name, member) in members {
                each(name);
                in_json(member, each);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
