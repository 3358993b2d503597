//! Whether a model can be served on a machine, in which precision, and why not in the others.

use serde::Serialize;

use super::need::build_need;
use super::{
    Budget, FallbackNeed, Format, Line, Need, Speed, budget, fallback_need, formats, need, speed,
};
use crate::api::{Precision, Residency};
use crate::hardware::{Bytes, Hardware};
use crate::model::ModelFacts;

/// Generated tokens per second below which `Auto` prefers fewer bits, where no objective is stated:
/// about twice as fast as people read.
const COMFORTABLE: f64 = 15.0;

/// What is asked of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Whether a TensorRT engine is wanted where there is a GPU; else the CPU back end runs the file.
    pub tensorrt: bool,
    /// Number format, or `Auto`.
    pub precision: Precision,
    /// Concurrent sequences.
    pub slots: u32,
    /// Longest prompt, in tokens.
    pub max_input_tokens: u32,
    /// Longest answer, in tokens.
    pub max_output_tokens: u32,
    /// How ready a fallback on the same machine is kept; `None` where there is none.
    pub fallback: Option<Residency>,
    /// Objective of one stream.
    pub tokens_per_second: Option<f64>,
}

impl Request {
    /// Tokens of one sequence.
    pub fn context_tokens(&self) -> u32 {
        self.max_input_tokens.saturating_add(self.max_output_tokens)
    }
}

/// What became of one format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It fits.
    Fits {
        /// What is left after it.
        spare: Bytes,
    },
    /// It needs more memory than there is.
    TooLarge {
        /// How much is missing.
        short: Bytes,
    },
    /// Even at the hardware's ceiling the objective is out of reach.
    TooSlow {
        /// With the numbers.
        why: String,
    },
    /// It does not exist on this GPU, or not for this model.
    Unsupported {
        /// Why.
        why: String,
    },
}

/// One format that was considered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Which.
    pub format: Format,
    /// What it needs; absent where it cannot exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need: Option<Need>,
    /// Engine and resident fallback together.
    pub required: Bytes,
    /// Ceilings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Whether it can be served.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether the fallback can stay loaded while the engine starts, so that the endpoint never waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handover {
    /// Engine and serving fallback together.
    pub required: Bytes,
    /// Whether both fit.
    pub fits: bool,
}

/// Where an engine could be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildFit {
    /// What it needs at its peak.
    pub need: Line,
    /// Whether it fits while the fallback serves.
    pub beside_fallback: bool,
    /// Whether it fits with nothing else running.
    pub alone: bool,
}

/// The verdict on a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// What runs the model there.
    pub engine: &'static str,
    /// Memory of the machine.
    pub budget: Budget,
    /// The fallback's share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackNeed>,
    /// Every format that was considered, most precise first.
    pub candidates: Vec<Candidate>,
    /// What would be served; `None` when nothing can be.
    pub chosen: Option<Format>,
    /// Whether the endpoint answers without a pause while the engine starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// Whether the engine can be built there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildFit>,
    /// Why nothing can be served, each with numbers and what to do.
    pub refusals: Vec<String>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

impl Fit {
    /// The candidate that would be served.
    pub fn served(&self) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| Some(candidate.format) == self.chosen)
    }

    /// Memory of the engine that would be served, in bytes.
    pub fn engine_bytes(&self) -> Option<u64> {
        Some(self.served()?.need.as_ref()?.total.0)
    }
}

/// Weighs `facts` and `request` against `hardware`.
pub fn fit(hardware: &Hardware, facts: &ModelFacts, request: &Request) -> Fit {
    let on_gpu = request.tensorrt && hardware.platform().is_some();
    let budget = budget(hardware, on_gpu);
    let fallback = fallback_need(facts, request);
    let offered: &[Format] = if on_gpu {
        &Format::OFFERED
    } else {
        &[Format::AsInFile]
    };
    let candidates: Vec<Candidate> = offered
        .iter()
        .map(|&format| consider(hardware, facts, request, &budget, fallback.as_ref(), format))
        .collect();
    let mut fit = Fit {
        engine: if on_gpu { "TensorRT" } else { "Cpu" },
        budget,
        fallback,
        candidates,
        chosen: None,
        handover: None,
        build: None,
        refusals: refusals(hardware, facts, request),
        notes: notes(hardware, request, on_gpu),
    };
    if fit.refusals.is_empty() {
        fit.chosen = choose(&fit.candidates, request);
        if fit.chosen.is_none() {
            fit.refusals = too_large(&fit, facts, request);
        }
    }
    weigh_fallback(&mut fit);
    weigh_beside_fallback(&mut fit, facts);
    fit
}

/// A fallback that does not fit by itself is no fallback.
fn weigh_fallback(fit: &mut Fit) {
    if let Some(fallback) = &fit.fallback
        && fallback.serving.bytes > fit.budget.left
    {
        fit.notes.push(format!(
            "the fallback alone needs {} ({}), but {} are left: it will be slow or fail; give it a \
             smaller model or another machine (fallback.ollama)",
            fallback.serving.bytes, fallback.serving.how, fit.budget.left
        ));
    }
}

fn consider(
    hardware: &Hardware,
    facts: &ModelFacts,
    request: &Request,
    budget: &Budget,
    fallback: Option<&FallbackNeed>,
    format: Format,
) -> Candidate {
    let unsupported = |why: String| Candidate {
        format,
        need: None,
        required: Bytes(0),
        speed: None,
        verdict: Verdict::Unsupported { why },
    };
    if let Some(sm) = hardware.sm()
        && !format.exists_on(sm)
    {
        return unsupported(formats(sm));
    }
    let need = match need(facts, request, format) {
        Ok(need) => need,
        Err(why) => return unsupported(why),
    };
    // A discrete GPU's memory is not shared with an idle Ollama; a loaded one is on it too.
    let beside = fallback.map_or(0, |fallback| fallback.resident.bytes.0);
    let required = need.total.0.saturating_add(beside);
    let speed = speed(hardware, facts, format, &need);
    let left = budget.left.0;
    let verdict = match (request.tokens_per_second, speed.decode_tokens_per_second) {
        _ if required > left => Verdict::TooLarge {
            short: Bytes(required - left),
        },
        (Some(wanted), Some(ceiling)) if ceiling < wanted => Verdict::TooSlow {
            why: format!(
                "memory bandwidth allows {ceiling:.1} tokens/s at most, \
                 objectives.tokensPerSecond asks for {wanted}"
            ),
        },
        _ => Verdict::Fits {
            spare: Bytes(left - required),
        },
    };
    Candidate {
        format,
        need: Some(need),
        required: Bytes(required),
        speed: Some(speed),
        verdict,
    }
}

/// `Auto`: the most precise that fits and is fast enough; if none is, the fastest that fits.
fn choose(candidates: &[Candidate], request: &Request) -> Option<Format> {
    let fitting = || {
        candidates
            .iter()
            .filter(|candidate| matches!(candidate.verdict, Verdict::Fits { .. }))
    };
    let asked = match request.precision {
        Precision::Auto => None,
        Precision::Fp16 => Some(Format::Fp16),
        Precision::Int8 => Some(Format::Int8),
        Precision::Int4 => Some(Format::Int4),
    };
    if let Some(asked) = asked {
        // The CPU back end runs the file as it is, whatever precision an engine would have.
        return fitting()
            .map(|candidate| candidate.format)
            .find(|&format| format == asked || format == Format::AsInFile);
    }
    let wanted = request.tokens_per_second.unwrap_or(COMFORTABLE);
    let fast_enough = |candidate: &&Candidate| {
        let ceiling = candidate
            .speed
            .and_then(|speed| speed.decode_tokens_per_second);
        ceiling.is_none_or(|ceiling| ceiling >= wanted)
    };
    fitting()
        .find(fast_enough)
        .or_else(|| fitting().next_back())
        .map(|candidate| candidate.format)
}

/// What no precision can help.
fn refusals(hardware: &Hardware, facts: &ModelFacts, request: &Request) -> Vec<String> {
    let mut refusals = Vec::new();
    let context = request.context_tokens();
    if context > facts.context {
        refusals.push(format!(
            "engine.maxInputTokens {} + engine.maxOutputTokens {} is {context} tokens, but {} \
             was trained for {}: lower one of them",
            request.max_input_tokens, request.max_output_tokens, facts.name, facts.context
        ));
    }
    if let Some(l4t) = hardware.jetson.as_ref().and_then(|jetson| jetson.l4t)
        && l4t.major < 36
        && request.tensorrt
    {
        refusals.push(format!(
            "L4T {l4t} is older than 36 (JetPack 6), whose TensorRT 10 engines need: flash \
             JetPack 6.2 or 7.2"
        ));
    }
    if hardware.memory.total == Bytes(0) {
        refusals.push("the amount of memory is unknown: see the hardware's notes".to_owned());
    }
    refusals
}

/// Why no candidate was chosen, with the numbers and what to do.
fn too_large(fit: &Fit, facts: &ModelFacts, request: &Request) -> Vec<String> {
    let asked = |candidate: &&Candidate| match request.precision {
        Precision::Auto => true,
        Precision::Fp16 => candidate.format == Format::Fp16,
        Precision::Int8 => candidate.format == Format::Int8,
        Precision::Int4 => candidate.format == Format::Int4,
    };
    let mut wanted: Vec<&Candidate> = fit.candidates.iter().filter(asked).collect();
    if wanted.is_empty() {
        wanted = fit.candidates.iter().collect();
    }
    let fitting: Vec<&str> = fit
        .candidates
        .iter()
        .filter(|candidate| matches!(candidate.verdict, Verdict::Fits { .. }))
        .map(|candidate| candidate.format.name())
        .collect();
    let mut refusals: Vec<String> = wanted
        .iter()
        .map(|candidate| refusal(candidate, fit, facts, request))
        .collect();
    if !fitting.is_empty() {
        refusals.push(format!(
            "{} would fit: set engine.precision to Auto",
            fitting.join(" and ")
        ));
    }
    refusals
}

fn refusal(candidate: &Candidate, fit: &Fit, facts: &ModelFacts, request: &Request) -> String {
    let name = candidate.format.name();
    match (&candidate.verdict, &candidate.need) {
        (Verdict::TooLarge { short }, Some(need)) => {
            let beside = fit.fallback.as_ref().map_or_else(String::new, |fallback| {
                format!(" + fallback {}", fallback.resident.bytes)
            });
            format!(
                "{name} needs {} (weights {}, KV cache {}, activations {}, runtime {}{beside}), \
                 but {} of {} are left: {short} too much; {}",
                candidate.required,
                need.weights.bytes,
                need.kv_cache.bytes,
                need.activations.bytes,
                need.runtime.bytes,
                fit.budget.left,
                fit.budget.total,
                remedy(candidate.format, need, *short, facts, request)
            )
        }
        (Verdict::TooSlow { why } | Verdict::Unsupported { why }, _) => format!("{name}: {why}"),
        _ => format!("{name} fits"),
    }
}

/// What would make a too large engine fit.
fn remedy(
    format: Format,
    need: &Need,
    short: Bytes,
    facts: &ModelFacts,
    request: &Request,
) -> String {
    let each = facts
        .kv_bytes_per_token()
        .saturating_mul(u64::from(request.slots))
        .max(1);
    let tokens = short.0.div_ceil(each);
    let context = u64::from(request.context_tokens());
    // A tenth of the context is left: anything less would be no remedy.
    if need.kv_cache.bytes > short && context - tokens > context / 10 {
        format!(
            "make engine.maxInputTokens + engine.maxOutputTokens at most {}, or lower engine.slots",
            context - tokens
        )
    } else if matches!(format, Format::Fp16 | Format::Int8) {
        "use fewer bits, a smaller model, or a module with more memory".to_owned()
    } else {
        "use a smaller model, or a machine with more memory".to_owned()
    }
}

fn notes(hardware: &Hardware, request: &Request, on_gpu: bool) -> Vec<String> {
    let mut notes = hardware.notes.clone();
    if let Some(sm) = hardware.sm()
        && on_gpu
    {
        notes.push(formats(sm));
    }
    if !on_gpu && request.precision != Precision::Auto {
        notes.push(
            "engine.precision is for TensorRT engines; the CPU back end runs the file as it is"
                .to_owned(),
        );
    }
    notes
}

fn weigh_beside_fallback(fit: &mut Fit, facts: &ModelFacts) {
    let (Some(chosen), Some(engine)) = (fit.chosen, fit.engine_bytes()) else {
        return;
    };
    let left = fit.budget.left.0;
    let serving = fit
        .fallback
        .as_ref()
        .map_or(0, |fallback| fallback.serving.bytes.0);
    if fit.fallback.is_some() {
        let required = Bytes(engine.saturating_add(serving));
        let fits = required.0 <= left;
        fit.handover = Some(Handover { required, fits });
        if !fits {
            fit.notes.push(format!(
                "engine and loaded fallback together need {required} of {}: while the engine \
                 starts, the fallback must be unloaded and requests wait; fewer slots or a shorter \
                 context would avoid that",
                Bytes(left)
            ));
        }
    }
    fit.build = build_need(facts, chosen).map(|need| BuildFit {
        beside_fallback: need.bytes.0.saturating_add(serving) <= left,
        alone: need.bytes.0 <= left,
        need,
    });
}
