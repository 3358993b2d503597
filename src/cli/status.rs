//! `enginewright status`: what `kubectl get` and `kubectl describe` would say about what `run` does.

use std::fmt::Write as _;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};

use super::run::StateArgs;
use super::{Exit, fail, out};
use crate::api::{Condition, ConditionStatus, ConditionType};
use crate::local::report::{self, Report};
use crate::store;

/// Show what `enginewright run` serves: back end, conditions, revisions, last measurements
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// Exit with 4 unless `run` runs and something answers requests: for health checks.
    #[arg(long)]
    available: bool,

    #[command(flatten)]
    state: StateArgs,
}

/// The two forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let Self {
            output,
            available,
            state,
        } = self;
        let directory = state.directory();
        let report: Report = match store::read_json(&directory.join(report::FILE)) {
            Ok(Some(report)) => report,
            Ok(None) => {
                let text = format!(
                    "nothing has run with the state directory {}: start `enginewright run -f \
                     FILE`, or name its directory with --state-dir",
                    directory.display()
                );
                return fail(Exit::Environment, &text);
            }
            Err(error) => return fail(Exit::Environment, &error),
        };
        let runs = store::holder(&directory).is_some();
        let printed = match output {
            Output::Table => out(&table(&report, runs)),
            Output::Json => match json(&report, runs) {
                Ok(text) => out(&text),
                Err(error) => fail(Exit::Environment, &error),
            },
        };
        if available && !(runs && answers(&report)) {
            return Exit::Environment;
        }
        printed
    }
}

fn answers(report: &Report) -> bool {
    report.status.conditions.iter().any(|condition| {
        condition.kind == ConditionType::Available && condition.status == ConditionStatus::True
    })
}

fn json(report: &Report, runs: bool) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(report)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("running".to_owned(), runs.into());
    }
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn table(report: &Report, runs: bool) -> String {
    let status = &report.status;
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.kind == ConditionType::Ready);
    let measured = status.measured.clone().unwrap_or_default();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut text = String::new();
    if !runs {
        text.push_str("`enginewright run` does not run; this is its last report.\n\n");
    }
    text.push_str(&rows(
        &[
            "NAME",
            "BACKEND",
            "READY",
            "REASON",
            "FIRST-TOKEN",
            "TOKENS/S",
        ],
        vec![vec![
            report.name.clone(),
            status.active_backend.to_string(),
            or_dash(ready.map(|ready| ready.status.to_string())),
            or_dash(ready.map(|ready| ready.reason.to_string())),
            or_dash(measured.first_token),
            or_dash(measured.tokens_per_second.map(|value| value.to_string())),
        ]],
    ));
    for (name, value) in [
        ("Endpoint", status.endpoint.clone()),
        ("Source", Some(report.source.clone())),
        ("File", Some(report.file.clone())),
        ("Revision desired", status.desired_revision.clone()),
        ("Revision active", status.active_revision.clone()),
        ("Revision last good", status.last_good_revision.clone()),
        ("File problem", report.file_problem.clone()),
        ("State problem", report.state_problem.clone()),
    ] {
        if let Some(value) = value {
            let label = format!("{name}:");
            // Writing to a string cannot fail.
            let _never = write!(text, "\n{label:<20}{value}");
        }
    }
    text.push_str("\n\n");
    text.push_str(&rows(
        &["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"],
        status.conditions.iter().map(condition_row).collect(),
    ));
    if !status.failed_revisions.is_empty() {
        let failed = status.failed_revisions.iter().map(|one| {
            vec![
                one.revision.clone(),
                one.reason.to_string(),
                or_dash(one.exit_code.map(|code| code.to_string())),
                one.attempts.to_string(),
                one.message.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&rows(
            &["FAILED REVISION", "REASON", "EXIT", "ATTEMPTS", "MESSAGE"],
            failed.collect(),
        ));
    }
    let processes = report.processes.iter().map(|process| {
        vec![
            process.role.clone(),
            process.state.clone(),
            or_dash(process.pid.map(|pid| pid.to_string())),
            or_dash(process.address.clone()),
            or_dash(process.revision.clone()),
            or_dash(process.problem.clone()),
        ]
    });
    text.push('\n');
    text.push_str(&rows(
        &["PROCESS", "STATE", "PID", "ADDRESS", "REVISION", "PROBLEM"],
        processes.collect(),
    ));
    text
}

fn condition_row(condition: &Condition) -> Vec<String> {
    vec![
        condition.kind.to_string(),
        condition.status.to_string(),
        condition.reason.to_string(),
        condition.last_transition_time.clone(),
        condition.message.clone(),
    ]
}

fn rows(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header)
        .add_rows(rows);
    format!("{table}\n")
}
