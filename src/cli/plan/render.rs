//! An outlook as a page of text.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::engine::{Candidate, Fit, Outlook, Verdict};

/// Width of the left column.
const MARGIN: usize = 12;

pub(super) fn table(outlook: &Outlook) -> String {
    let mut page = Page::default();
    page.line(
        "name",
        &format!("{}, revision {}", outlook.name, outlook.revision),
    );
    page.line("machine", &outlook.machine);
    model(&mut page, outlook);
    if let Some(fit) = &outlook.fit {
        memory(&mut page, fit);
        page.block("precision", &candidates(fit));
    }
    match (&outlook.engine_key, outlook.key_needs.as_slice()) {
        (Some(key), _) => page.line("engine key", key.as_str()),
        (None, []) => {}
        (None, needs) => page.line("engine key", &format!("needs {}", needs.join("; "))),
    }
    page.line("engine from", &outlook.engine_from);
    for (index, step) in outlook.serves.iter().enumerate() {
        let label = if index == 0 { "serves" } else { "" };
        page.line(label, &format!("{}: {}", step.when, step.who));
    }
    page.list("notes", &outlook.notes);
    if outlook.feasible {
        page.line("verdict", "feasible");
    } else {
        page.line("verdict", "cannot work:");
        page.list("", &outlook.refusals);
    }
    page.text
}

fn model(page: &mut Page, outlook: &Outlook) {
    let model = &outlook.model;
    let size = model
        .parameters
        .as_ref()
        .map_or_else(String::new, |count| format!(", {count} parameters"));
    page.line("model", &format!("{}{size}", model.source));
    if let Some(facts) = &model.facts {
        let rest = format!(
            "{} layers, {} heads ({} for keys and values) of {}, hidden {}, vocabulary {}, \
             trained for {} tokens",
            facts.layers,
            facts.heads,
            facts.kv_heads,
            facts.head_length,
            facts.hidden,
            facts.vocabulary,
            facts.context
        );
        page.line("", &rest);
    }
    page.line("", &format!("known from {}", model.known_from));
}

fn memory(page: &mut Page, fit: &Fit) {
    let budget = &fit.budget;
    page.line("memory", &format!("{:>10} {}", budget.total, budget.memory));
    for held in &budget.held {
        page.line(
            "",
            &format!("{:>10} {}: {}", held.bytes, held.what, held.how),
        );
    }
    page.line("", &format!("{:>10} left", budget.left));
    if let Some(candidate) = fit.served()
        && let Some(need) = &candidate.need
    {
        for line in [
            &need.weights,
            &need.kv_cache,
            &need.activations,
            &need.runtime,
        ] {
            page.line(
                "",
                &format!("{:>10} {}: {}", line.bytes, line.what, line.how),
            );
        }
        if let Some(fallback) = &fit.fallback {
            let line = &fallback.resident;
            page.line(
                "",
                &format!("{:>10} {}: {}", line.bytes, line.what, line.how),
            );
        }
        page.line("", &format!("{:>10} needed together", candidate.required));
    }
}

fn candidates(fit: &Fit) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(vec![
        "",
        "needs",
        "weights",
        "KV cache",
        "tokens/s at most",
        "verdict",
    ]);
    for candidate in &fit.candidates {
        let chosen = Some(candidate.format) == fit.chosen;
        let bytes = |line: Option<String>| line.unwrap_or_else(|| "-".to_owned());
        let need = candidate.need.as_ref();
        let decode = candidate
            .speed
            .and_then(|speed| speed.decode_tokens_per_second)
            .map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.1}"));
        table.add_row(vec![
            candidate.format.name().to_owned(),
            bytes(need.map(|_| candidate.required.to_string())),
            bytes(need.map(|need| need.weights.bytes.to_string())),
            bytes(need.map(|need| need.kv_cache.bytes.to_string())),
            decode,
            verdict(candidate, chosen),
        ]);
    }
    for column in 1..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn verdict(candidate: &Candidate, chosen: bool) -> String {
    match &candidate.verdict {
        Verdict::Fits { spare } if chosen => format!("chosen, {spare} to spare"),
        Verdict::Fits { spare } => format!("fits, {spare} to spare"),
        Verdict::TooLarge { short } => format!("refused: {short} too much"),
        Verdict::TooSlow { why } | Verdict::Unsupported { why } => format!("refused: {why}"),
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        // Writing into a string cannot fail.
        let _infallible = writeln!(self.text, "{label:<MARGIN$}{text}");
    }

    fn list(&mut self, label: &str, items: &[String]) {
        for (index, item) in items.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.line(label, &format!("- {item}"));
        }
    }

    fn block(&mut self, label: &str, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.line(label, line.trim_end());
        }
    }
}
