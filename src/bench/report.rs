//! Percentiles, the table and the JSON of a benchmark. Pure: samples in, numbers out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use comfy_table::{Cell as TableCell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::client::{Outcome, Sample, Target};

/// What one target did in one cell.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Requests answered to their end.
    pub samples: Vec<Sample>,
    /// Requests that were not, by reason; HTTP refusals as `HTTP 429`.
    pub errors: BTreeMap<String, usize>,
    /// Time during which requests were in flight.
    pub wall: Duration,
}

/// One row of the table: a concurrency and a prompt length.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Prompt tokens asked for (what the server counted is reported beside it).
    pub prompt_tokens: usize,
    /// One entry per target, in the order given.
    pub sides: Vec<Side>,
}

/// A finished benchmark.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was measured.
    pub targets: Vec<Target>,
    /// The cells in the order they ran.
    pub cells: Vec<Cell>,
}

/// The 50th, 90th and 99th percentile and the largest value, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Percentiles {
    /// Nearest-rank percentiles; `None` without values.
    pub fn of(values: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().map(|d| d.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let last = *sorted.last()?;
        let rank = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(index).copied().unwrap_or(last)
        };
        Some(Self {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: last,
        })
    }

    fn json(self) -> Value {
        json!({ "p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max })
    }
}

impl Side {
    pub(super) fn add(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Done(sample) => self.samples.push(sample),
                Outcome::Refused { status } => self.count(format!("HTTP {status}")),
                Outcome::Failed { why } => self.count(why),
            }
        }
    }

    fn count(&mut self, reason: String) {
        *self.errors.entry(reason).or_default() += 1;
    }

    /// Time to the first token.
    pub fn first_token(&self) -> Option<Percentiles> {
        Percentiles::of(self.samples.iter().map(|sample| sample.first_token))
    }

    /// Gaps between pieces of the answer.
    pub fn inter_token(&self) -> Option<Percentiles> {
        Percentiles::of(
            self.samples
                .iter()
                .flat_map(|sample| sample.gaps.iter().copied()),
        )
    }

    /// Median over the answers of the decode rate of one stream, tokens per second.
    pub fn stream_rate(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self
            .samples
            .iter()
            .filter_map(Sample::decode_rate)
            .collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }

    /// Answer tokens of all streams per second of wall time.
    pub fn total_rate(&self) -> f64 {
        let tokens: f64 = self
            .samples
            .iter()
            .map(|s| f64::from(s.completion_tokens))
            .sum();
        if self.wall.is_zero() {
            0.0
        } else {
            tokens / self.wall.as_secs_f64()
        }
    }

    fn failures(&self) -> usize {
        self.errors.values().sum()
    }

    fn prompt_tokens(&self) -> Option<u32> {
        let mut counts: Vec<u32> = self.samples.iter().map(|s| s.prompt_tokens).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied()
    }

    fn json(&self) -> Value {
        json!({
            "requests": self.samples.len() + self.failures(),
            "failed": self.failures(),
            "errors": self.errors,
            "promptTokens": self.prompt_tokens(),
            "firstTokenMs": self.first_token().map(Percentiles::json),
            "interTokenMs": self.inter_token().map(Percentiles::json),
            "tokensPerSecondPerStream": self.stream_rate(),
            "tokensPerSecond": self.total_rate(),
            "wallSeconds": self.wall.as_secs_f64(),
            "backends": self.backends(),
        })
    }

    /// How many answers each back end gave, as the responses named it.
    fn backends(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for sample in &self.samples {
            *counts
                .entry(sample.backend.as_deref().unwrap_or("unnamed"))
                .or_default() += 1;
        }
        counts
    }
}

impl Report {
    /// Machine-readable form; durations in milliseconds, rates in tokens per second.
    pub fn json(&self) -> Value {
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|t| json!({ "url": t.url, "api": t.api.as_str(), "model": t.model }))
            .collect();
        let cells: Vec<Value> = self
            .cells
            .iter()
            .map(|cell| {
                json!({
                    "concurrency": cell.concurrency,
                    "promptTokens": cell.prompt_tokens,
                    "results": cell.sides.iter().map(Side::json).collect::<Vec<_>>(),
                    "ratios": cell.ratios().map(|r| json!({
                        "firstToken": r.first_token,
                        "interToken": r.inter_token,
                        "tokensPerSecondPerStream": r.stream_rate,
                        "tokensPerSecond": r.total_rate,
                    })),
                })
            })
            .collect();
        json!({ "targets": targets, "cells": cells })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "target",
            "streams",
            "prompt",
            "TTFT p50",
            "p90",
            "p99",
            "ITL p50",
            "p90",
            "p99",
            "tok/s stream",
            "tok/s all",
            "failed",
        ]);
        for cell in &self.cells {
            for (index, side) in cell.sides.iter().enumerate() {
                table.add_row(row(index, cell, side));
            }
            if let Some(ratios) = cell.ratios() {
                table.add_row(ratio_row(cell, ratios));
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        for (index, target) in self.targets.iter().enumerate() {
            let Target {
                url, api, model, ..
            } = target;
            let _ = writeln!(
                text,
                "{}: {url} ({}, model {model})",
                letter(index),
                api.as_str()
            );
        }
        let _ = writeln!(text, "times in ms\n{table}");
        for cell in &self.cells {
            for (index, side) in cell.sides.iter().enumerate() {
                let place = format!(
                    "{}, {} streams, {} tokens",
                    letter(index),
                    cell.concurrency,
                    cell.prompt_tokens
                );
                for (reason, count) in &side.errors {
                    let _ = writeln!(text, "{place}: {count} × {reason}");
                }
            }
        }
        text
    }
}

/// Second target over first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Median TTFT; below 1 the second is sooner.
    pub first_token: f64,
    /// Median gap; below 1 the second is faster. `None` where an answer came in one piece.
    pub inter_token: Option<f64>,
    /// Decode rate of a stream; above 1 the second is faster.
    pub stream_rate: Option<f64>,
    /// Rate of all streams; above 1 the second is faster.
    pub total_rate: f64,
}

impl Cell {
    /// The second side over the first, where both were measured.
    pub fn ratios(&self) -> Option<Ratios> {
        let [a, b] = self.sides.as_slice() else {
            return None;
        };
        Some(Ratios {
            first_token: b.first_token()?.p50 / a.first_token()?.p50,
            inter_token: pair(a.inter_token(), b.inter_token()).map(|(a, b)| b.p50 / a.p50),
            stream_rate: pair(a.stream_rate(), b.stream_rate()).map(|(a, b)| b / a),
            total_rate: b.total_rate() / a.total_rate(),
        })
    }
}

fn pair<T>(a: Option<T>, b: Option<T>) -> Option<(T, T)> {
    Some((a?, b?))
}

fn letter(index: usize) -> &'static str {
    if index == 0 { "A" } else { "B" }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

fn row(index: usize, cell: &Cell, side: &Side) -> Vec<TableCell> {
    let (ttft, itl) = (side.first_token(), side.inter_token());
    let tokens = side
        .prompt_tokens()
        .map_or_else(|| "-".to_owned(), |count| count.to_string());
    [
        letter(index).to_owned(),
        cell.concurrency.to_string(),
        tokens,
        number(ttft.map(|p| p.p50), 1),
        number(ttft.map(|p| p.p90), 1),
        number(ttft.map(|p| p.p99), 1),
        number(itl.map(|p| p.p50), 2),
        number(itl.map(|p| p.p90), 2),
        number(itl.map(|p| p.p99), 2),
        number(side.stream_rate(), 1),
        number(Some(side.total_rate()), 1),
        side.failures().to_string(),
    ]
    .map(TableCell::new)
    .to_vec()
}

fn ratio_row(cell: &Cell, ratios: Ratios) -> Vec<TableCell> {
    [
        "B/A".to_owned(),
        cell.concurrency.to_string(),
        String::new(),
        number(Some(ratios.first_token), 2),
        String::new(),
        String::new(),
        number(ratios.inter_token, 2),
        String::new(),
        String::new(),
        number(ratios.stream_rate, 2),
        number(Some(ratios.total_rate), 2),
        String::new(),
    ]
    .map(TableCell::new)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|&v| Duration::from_millis(v)).collect()
    }

    fn side(first_token: u64, gaps: &[u64], wall: u64) -> Side {
        Side {
            samples: vec![Sample {
                first_token: Duration::from_millis(first_token),
                gaps: ms(gaps),
                prompt_tokens: 10,
                completion_tokens: u32::try_from(gaps.len()).unwrap() + 1,
                backend: None,
            }],
            errors: BTreeMap::new(),
            wall: Duration::from_millis(wall),
        }
    }

    #[test]
    fn percentiles_are_nearest_rank_values_that_were_measured() {
        let all: Vec<u64> = (1..=200).rev().collect();
        let p = Percentiles::of(ms(&all)).unwrap();
        assert_eq!((p.p50, p.p90, p.p99, p.max), (100.0, 180.0, 198.0, 200.0));
        assert_eq!(Percentiles::of(ms(&[7])).unwrap().p99, 7.0);
        assert_eq!(Percentiles::of(Vec::new()), None);
    }

    #[test]
    fn ratios_divide_the_second_target_by_the_first() {
        let cell = Cell {
            concurrency: 1,
            prompt_tokens: 10,
            sides: vec![side(100, &[10, 10], 1000), side(50, &[20, 20], 500)],
        };
        let ratios = cell.ratios().unwrap();
        assert_eq!(ratios.first_token, 0.5);
        assert_eq!(ratios.inter_token, Some(2.0));
        assert_eq!(ratios.stream_rate, Some(0.5));
        assert_eq!(ratios.total_rate, 2.0);
    }

    #[test]
    fn failed_requests_are_counted_by_reason_and_shown_under_the_table() {
        let mut failing = side(100, &[10], 1000);
        failing.add(vec![
            Outcome::Refused { status: 429 },
            Outcome::Refused { status: 429 },
            Outcome::Failed {
                why: "stream ended early".to_owned(),
            },
        ]);
        let report = Report {
            targets: vec![Target {
                url: "http://127.0.0.1:1".to_owned(),
                api: super::super::client::Api::OpenAi,
                model: "m".to_owned(),
                api_key: None,
            }],
            cells: vec![Cell {
                concurrency: 1,
                prompt_tokens: 10,
                sides: vec![failing],
            }],
        };
        let table = report.table();
        assert!(table.contains("2 × HTTP 429"), "{table}");
        assert!(table.contains("1 × stream ended early"), "{table}");
        assert_eq!(report.json()["cells"][0]["results"][0]["failed"], 3);
    }
}
