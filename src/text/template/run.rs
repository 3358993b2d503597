//! Running a template within bounds.
//!
//! Work and memory are bounded by the template engine's fuel. The stack is not: templates can nest
//! values, and the engine frees and compiles recursively. So it runs on a stack of its own that is
//! long enough for all that the fuel and the size of the source allow.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind};

use super::functions::{self, RAISED};
use super::values::Values;
use super::{RenderInput, TemplateError};

/// Largest template in bytes; the longest in use have about 30 kB.
const MAX_SOURCE_BYTES: usize = 64 * 1024;
/// Address space for compiling; memory is only taken as far as it is used. Every byte of a
/// template can open one level.
const COMPILE_STACK_BYTES: usize = MAX_SOURCE_BYTES * 4096;
/// Fuel for the template itself: an instruction or 64 bytes each. Usual templates take some
/// thousands.
const FUEL: u64 = 200_000;
/// Further fuel for each message and each tool.
const FUEL_PER_ITEM: u64 = 500;
/// Most fuel altogether.
const MAX_FUEL: u64 = 2_000_000;
/// Address space per fuel: more than one level of nesting needs to be freed.
const STACK_BYTES_PER_FUEL: u64 = 512;
/// Deepest nesting of macro calls and recursive loops.
const MAX_CALLS: usize = 100;
/// Longest message of an error.
const MAX_MESSAGE_CHARACTERS: usize = 500;

/// A template whose source was checked.
#[derive(Debug)]
pub(super) struct Program {
    /// As the model states it.
    source: String,
    /// As it is run.
    adapted: String,
}

impl Program {
    pub(super) fn new(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::Invalid(format!(
                "it has {} bytes, at most {MAX_SOURCE_BYTES} are supported",
                source.len()
            )));
        }
        let program = Self {
            source: source.to_owned(),
            adapted: without_training_marks(source),
        };
        stacker::grow(COMPILE_STACK_BYTES, || {
            let environment = environment(0, None);
            let compiled = environment.template_from_str(&program.adapted);
            compiled
                .map(|_| ())
                .map_err(|error| TemplateError::Invalid(brief(&error)))
        })?;
        Ok(program)
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template does something with tools.
    pub(super) fn knows_tools(&self) -> bool {
        self.source.contains("tools")
    }

    pub(super) fn run(
        &self,
        input: &RenderInput<'_>,
        values: &Values<'_>,
    ) -> Result<String, TemplateError> {
        let fuel = fuel(input);
        let stack = usize::try_from(fuel * STACK_BYTES_PER_FUEL).unwrap_or(usize::MAX);
        stacker::grow(COMPILE_STACK_BYTES.saturating_add(stack), || {
            let environment = environment(fuel, input.now);
            let template = environment.template_from_str(&self.adapted);
            let rendered = template.and_then(|one| one.render(values.context(input)));
            rendered.map_err(|error| classify(&error))
        })
    }
}

fn environment<'s>(fuel: u64, now: Option<i64>) -> Environment<'s> {
    let mut environment = Environment::new();
    // As the `transformers` library sets them.
    let mut syntax = SyntaxConfig::builder();
    if let Ok(syntax) = syntax.trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_debug(false);
    environment.set_recursion_limit(MAX_CALLS);
    environment.set_fuel(Some(fuel));
    functions::install(&mut environment, now);
    environment
}

/// Enough for a conversation of this length, however the template goes over it.
fn fuel(input: &RenderInput<'_>) -> u64 {
    let texts = input.messages.iter().map(|message| {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| call.arguments.to_string().len());
        message.content.as_ref().map_or(0, String::len) + calls.sum::<usize>()
    });
    let tools = input
        .tools
        .iter()
        .map(|tool| tool.parameters.to_string().len());
    let bytes = texts.chain(tools).sum::<usize>() as u64;
    let items = (input.messages.len() + input.tools.len()) as u64;
    FUEL.saturating_add(bytes)
        .saturating_add(items.saturating_mul(FUEL_PER_ITEM))
        .min(MAX_FUEL)
}

/// Templates may mark what a trainer should learn from; the marks mean nothing here.
fn without_training_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        if name == "generation" || name == "endgeneration" {
            // An empty tag with the same white-space control.
            let control = |c: Option<char>| c.filter(|c| "-+".contains(*c)).map(String::from);
            let left = control(inner.chars().next()).unwrap_or_default();
            let right = control(inner.chars().last()).unwrap_or_default();
            out.push_str(&["{%", &left, " set _ = none ", &right, "%}"].concat());
        } else {
            out.push_str(&tag[..end + 2]);
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

fn classify(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        let detail = current.downcast_ref::<Error>().and_then(Error::detail);
        if let Some(message) = detail.and_then(|detail| detail.strip_prefix(RAISED)) {
            return TemplateError::Refused(message.chars().take(MAX_MESSAGE_CHARACTERS).collect());
        }
        cause = current.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Failed("it takes more work than is allowed".to_owned());
    }
    TemplateError::Failed(brief(error))
}

fn brief(error: &Error) -> String {
    let text = error.to_string();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MAX_MESSAGE_CHARACTERS)
        .collect()
}
