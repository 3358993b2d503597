//! What rounding costs on a real model: `weights MODEL [FORMAT…]`.
//!
//! Prints one markdown table: error of the weights, error of each kind of layer's outputs on a
//! calibration text, perplexity on another text, seconds. The figures are in
//! `docs/measurements/weights.md`. It measures and judges nothing.

mod forward;
mod q4_0;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use enginewright::model::gguf::GgufFile;
use enginewright::network::{Encoding, WeightSource};
use enginewright::text::tokenizer::{Specials, Tokenizer};
use enginewright::weights::{
    Loss, OutputError, Perplexity, Rounded, Rounding, RoundingReport, Weights,
};
use sha2::{Digest, Sha256};

use forward::Llama;
use q4_0::AsQ4_0;

type Failure = Box<dyn std::error::Error>;

/// The text that is predicted, and the one whose activations are the calibration inputs.
const TEXT: &str = include_str!("../../tests/fixtures/weights/opticks-31.txt");
const CALIBRATION: &str = include_str!("../../tests/fixtures/weights/opticks-30.txt");
/// Tokens of one window of the text; every window starts without a past.
const WINDOW: usize = 512;
/// Tokens whose activations are kept.
const CALIBRATION_TOKENS: usize = 96;

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A way of rounding: its name, what the values are rounded from, and how.
struct Format {
    name: &'static str,
    /// Rounded to `Q4_0` first, as a file of that encoding would be.
    from_q4_0: bool,
    encoding: Encoding,
    rounding: Rounding,
}

const fn format(
    name: &'static str,
    from_q4_0: bool,
    encoding: Encoding,
    rounding: Rounding,
) -> Format {
    Format {
        name,
        from_q4_0,
        encoding,
        rounding,
    }
}

const B32: Encoding = Encoding::Int4 { block: 32 };
const B64: Encoding = Encoding::Int4 { block: 64 };
const FORMATS: [Format; 12] = [
    format("fp16", false, Encoding::F16, Rounding::LeastSquares),
    format("int8-max", false, Encoding::Int8, Rounding::MaxAbs),
    format("int8", false, Encoding::Int8, Rounding::LeastSquares),
    format("int4-64-max", false, B64, Rounding::MaxAbs),
    format("int4-64", false, B64, Rounding::LeastSquares),
    format("int4-32-max", false, B32, Rounding::MaxAbs),
    format("int4-32", false, B32, Rounding::LeastSquares),
    format("q4_0-fp16", true, Encoding::F16, Rounding::LeastSquares),
    format("q4_0-int4-64-max", true, B64, Rounding::MaxAbs),
    format("q4_0-int4-64", true, B64, Rounding::LeastSquares),
    format("q4_0-int4-32-max", true, B32, Rounding::MaxAbs),
    format("q4_0-int4-32", true, B32, Rounding::LeastSquares),
];

/// The kinds of linear layers, in the order of a block.
const KINDS: [&str; 7] = [
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
];

struct Subject<'a> {
    weights: &'a Weights,
    names: Vec<String>,
    tokens: Vec<u32>,
    calibration: Vec<u32>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, wanted) = arguments.split_first().ok_or("weights MODEL [FORMAT…]")?;
    let path = Path::new(path);
    let weights = Weights::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&GgufFile::open(path)?)?;
    let subject = Subject {
        weights: &weights,
        names: weights.names().map(str::to_owned).collect(),
        tokens: tokenizer.encode(TEXT, Specials::Text),
        calibration: tokenizer.encode(CALIBRATION, Specials::Text),
    };
    say(&format!(
        "| format | weights | {} | exact | perplexity | rounding s |\n|---|---|{}---|---|---|",
        KINDS.join(" | "),
        "---|".repeat(KINDS.len())
    ));
    let reference = measured(&subject, &FORMATS[0], None)?;
    for format in &FORMATS[1..] {
        if wanted.is_empty() || wanted.iter().any(|one| one == format.name) {
            measured(&subject, format, Some(reference))?;
        }
    }
    Ok(())
}

/// Measures one format, prints its line, returns its perplexity.
fn measured(
    subject: &Subject<'_>,
    format: &Format,
    reference: Option<f64>,
) -> Result<f64, Failure> {
    let q4_0 = AsQ4_0(subject.weights);
    let source: &dyn WeightSource = if format.from_q4_0 {
        &q4_0
    } else {
        subject.weights
    };
    let rounded = Rounded::new(source, format.encoding, format.rounding);
    let linear = |name: &&String| name.starts_with("blk.") && !name.contains("norm");
    let start = Instant::now();
    let losses: Vec<(String, Loss)> = subject
        .names
        .iter()
        .filter(linear)
        .map(|name| Ok((name.clone(), rounded.loss(name)?)))
        .collect::<Result<_, Failure>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut all = Loss::default();
    for (_, loss) in &losses {
        all.add(loss);
    }
    let mut report = RoundingReport::new(format.name, format.rounding, losses);
    let kinds = output_errors(subject, source, &rounded, &mut report)?;
    let perplexity = perplexity(subject, &rounded)?;
    report.perplexity = Some(Perplexity {
        text_sha256: hex::encode(Sha256::digest(TEXT)),
        tokens: subject.tokens.len() as u64,
        rounded: perplexity,
        reference: reference.unwrap_or(perplexity),
    });
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let exact = all.exact as f64 / all.elements as f64 * 100.0;
    say(&format!(
        "| {} | {:.4} | {} | {exact:.1} % | {perplexity:.3} | {seconds:.1} |",
        report.format,
        report.weight_error,
        kinds.map(|error| format!("{error:.4}")).join(" | "),
    ));
    if let Some(worst) = report.worst() {
        say(&format!(
            "<!-- worst: {} {:?} -->",
            worst.name, worst.output_error
        ));
    }
    Ok(perplexity)
}

/// The error of each weight's outputs into the report; over all layers, that of each kind of layer.
fn output_errors(
    subject: &Subject<'_>,
    source: &dyn WeightSource,
    rounded: &dyn WeightSource,
    report: &mut RoundingReport,
) -> Result<[f64; 7], Failure> {
    let model = Llama::load(subject.weights.facts(), source, &subject.names)?;
    let mut found = BTreeMap::new();
    let tokens = subject
        .calibration
        .get(..CALIBRATION_TOKENS)
        .ok_or("short text")?;
    let mut failed = None;
    let mut watch = |name: &str, inputs: &[f32]| {
        let one = || -> Result<f64, Failure> {
            let meta = source.tensor(name).ok_or("no tensor")?;
            let columns = usize::try_from(meta.row_length())?;
            let (mut values, mut other) = (Vec::new(), Vec::new());
            source.read_f32(name, 0..meta.rows(), &mut values)?;
            rounded.read_f32(name, 0..meta.rows(), &mut other)?;
            let mut error = OutputError::default();
            error.add(&values, &other, inputs, columns);
            Ok(error.relative())
        };
        match one() {
            Ok(error) => {
                found.insert(name.to_owned(), error);
            }
            Err(error) => failed = Some(error),
        }
    };
    model.log_probabilities(tokens, &mut watch);
    if let Some(error) = failed {
        return Err(error);
    }
    for weight in &mut report.weights {
        weight.output_error = found.get(&weight.name).copied();
    }
    Ok(KINDS.map(|kind| {
        let part = format!(".{kind}.weight");
        let errors: Vec<f64> = found
            .iter()
            .filter(|(name, _)| name.ends_with(&part))
            .map(|(_, error)| *error)
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "as many as layers")]
        let count = errors.len() as f64;
        errors.iter().sum::<f64>() / count
    }))
}

/// Exponential of the mean of the negative logarithms over all windows.
fn perplexity(subject: &Subject<'_>, rounded: &dyn WeightSource) -> Result<f64, Failure> {
    let model = Llama::load(subject.weights.facts(), rounded, &subject.names)?;
    let logarithms: Vec<f64> = subject
        .tokens
        .chunks_exact(WINDOW)
        .flat_map(|window| model.log_probabilities(window, &mut |_, _| ()))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let count = logarithms.len() as f64;
    Ok((-logarithms.iter().sum::<f64>() / count).exp())
}
