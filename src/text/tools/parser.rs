//! Content and calls out of a stream of text.

use super::ToolFormat;
use super::call::{CallReader, Part, Progress};
use crate::text::stop::overlap;

const OPENING: &str = "<tool_call>";
const CLOSING: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolDelta {
    /// Text for the reader.
    Content(String),
    /// A call begins.
    CallStart {
        /// Which call of this answer, from 0.
        index: u32,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments: JSON text.
    CallArguments {
        /// Which call of this answer.
        index: u32,
        /// The next piece.
        fragment: String,
    },
}

/// Reads calls out of generated text as it comes. What looks like a call and is none becomes
/// content: nothing that was generated is lost.
#[derive(Clone, Debug)]
pub struct ToolParser {
    format: ToolFormat,
    state: State,
    /// Text not yet understood: what may be the beginning of a tag, or white space before one.
    held: String,
    calls: u32,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing but white space so far (Llama 3: only here, and after a call, a call may begin).
    Beginning,
    Content,
    Call {
        reader: Box<CallReader>,
        /// The call as written, while it can still turn out to be none.
        raw: String,
    },
    /// Skips to the end of a call that was read or is past reading.
    AfterCall,
}

impl ToolParser {
    /// Starts an answer.
    pub fn new(format: ToolFormat) -> Self {
        Self {
            format,
            state: State::Beginning,
            held: String::new(),
            calls: 0,
        }
    }

    /// Adds generated text.
    pub fn push(&mut self, text: &str) -> Vec<ToolDelta> {
        let mut deltas = Vec::new();
        self.held.push_str(text);
        while self.step(&mut deltas) {}
        deltas
    }

    /// The answer is over.
    pub fn finish(&mut self) -> Vec<ToolDelta> {
        let mut deltas = Vec::new();
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Content) {
            State::Call { reader, raw } if !reader.is_reported() => content(raw, &mut deltas),
            State::Call { .. } | State::AfterCall => {}
            State::Beginning | State::Content => content(held, &mut deltas),
        }
        deltas
    }

    /// Understands as much of what is held as possible; says whether to go on.
    fn step(&mut self, deltas: &mut Vec<ToolDelta>) -> bool {
        match (&self.state, self.format) {
            (State::Call { .. }, _) => self.read_call(deltas),
            (State::AfterCall, ToolFormat::Hermes) => self.skip_closing(),
            (State::Beginning | State::Content, ToolFormat::Hermes) => self.find_opening(deltas),
            (State::Beginning | State::AfterCall, ToolFormat::Llama3) => self.expect_object(),
            (State::Content, ToolFormat::Llama3) => {
                content(std::mem::take(&mut self.held), deltas);
                false
            }
        }
    }

    fn begin_call(&mut self, raw: &str) {
        let reader = Box::new(CallReader::new(self.format == ToolFormat::Llama3));
        self.state = State::Call {
            reader,
            raw: raw.to_owned(),
        };
    }

    /// Hermes: content up to the tag that opens a call.
    fn find_opening(&mut self, deltas: &mut Vec<ToolDelta>) -> bool {
        if let Some(at) = self.held.find(OPENING) {
            let rest = self.held.split_off(at + OPENING.len());
            let mut before = std::mem::replace(&mut self.held, rest);
            before.truncate(at);
            before.truncate(before.trim_end().len());
            content(before, deltas);
            self.begin_call(OPENING);
            return true;
        }
        // White space before a tag belongs to the tag.
        let certain = &self.held[..self.held.len() - overlap(&self.held, OPENING)];
        let certain = certain.trim_end().len();
        let rest = self.held.split_off(certain);
        let ready = std::mem::replace(&mut self.held, rest);
        if !ready.is_empty() {
            self.state = State::Content;
        }
        content(ready, deltas);
        false
    }

    fn read_call(&mut self, deltas: &mut Vec<ToolDelta>) -> bool {
        let State::Call { reader, raw } = &mut self.state else {
            return false;
        };
        let mut parts = Vec::new();
        let mut progress = Progress::Open;
        let mut used = 0;
        for character in self.held.chars() {
            used += character.len_utf8();
            progress = reader.push(character, &mut parts);
            if progress != Progress::Open {
                break;
            }
        }
        let reported = reader.is_reported();
        raw.push_str(&self.held[..used]);
        let raw = if reported { String::new() } else { raw.clone() };
        self.held.drain(..used);
        self.emit(parts, deltas);
        match progress {
            Progress::Open => return false,
            Progress::Broken if !reported => {
                self.state = State::Content;
                content(raw, deltas);
            }
            Progress::Done | Progress::Broken => {
                self.calls += 1;
                self.state = State::AfterCall;
            }
        }
        true
    }

    /// Joins the pieces of one step, so that a client gets few deltas.
    fn emit(&self, parts: Vec<Part>, deltas: &mut Vec<ToolDelta>) {
        for part in parts {
            match (part, deltas.last_mut()) {
                (Part::Arguments(more), Some(ToolDelta::CallArguments { index, fragment }))
                    if *index == self.calls =>
                {
                    fragment.push_str(&more);
                }
                (Part::Arguments(fragment), _) => {
                    deltas.push(ToolDelta::CallArguments {
                        index: self.calls,
                        fragment,
                    });
                }
                (Part::Name(name), _) => {
                    deltas.push(ToolDelta::CallStart {
                        index: self.calls,
                        name,
                    });
                }
            }
        }
    }

    /// Hermes: everything up to the closing tag is part of the call.
    fn skip_closing(&mut self) -> bool {
        let closing = self.held.find(CLOSING);
        let opening = self.held.find(OPENING);
        match (closing, opening) {
            // The tag was forgotten.
            (None, Some(at)) => {
                self.held.drain(..at);
            }
            (Some(closing), Some(opening)) if opening < closing => {
                self.held.drain(..opening);
            }
            (Some(at), _) => {
                self.held.drain(..at + CLOSING.len());
            }
            (None, None) => {
                let keep = overlap(&self.held, CLOSING).max(overlap(&self.held, OPENING));
                self.held.drain(..self.held.len() - keep);
                return false;
            }
        }
        self.state = State::Beginning;
        true
    }

    /// Llama 3: an object, where one can begin.
    fn expect_object(&mut self) -> bool {
        let after_call = matches!(self.state, State::AfterCall);
        let separators: &[char] = if after_call { &[';', ','] } else { &[] };
        let skipped = |c: char| c.is_whitespace() || separators.contains(&c);
        let text = self.held.trim_start_matches(skipped);
        let text = text
            .strip_prefix(PYTHON_TAG)
            .map_or(text, |rest| rest.trim_start());
        if text.starts_with('{') {
            let before = self.held[..self.held.len() - text.len()].to_owned();
            self.held.drain(..before.len());
            self.begin_call(if after_call { "" } else { &before });
            return true;
        }
        if text.is_empty() || PYTHON_TAG.starts_with(text) {
            return false;
        }
        self.state = State::Content;
        true
    }
}

fn content(text: String, deltas: &mut Vec<ToolDelta>) {
    if !text.is_empty() {
        deltas.push(ToolDelta::Content(text));
    }
}
