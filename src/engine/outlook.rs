//! What would happen on a machine, and why: hardware, memory, precision, engine key, where the
//! engine would come from, and who would serve. What `enginewright plan` prints.

use serde::Serialize;

use super::key::{BUILDER_VERSION, CHUNK, EngineKey, KeyInputs, group_in_key};
use super::need::count;
use super::{Fit, Format, Request, fit};
use crate::api::{EnginePolicy, FallbackBackend, Ollama, RuntimeServer, ValidatedEngine};
use crate::hardware::{Bytes, Hardware};
use crate::model::ModelFacts;

/// What is known of the model before anything is fetched.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Its file is here.
    File {
        /// From its header.
        facts: Box<ModelFacts>,
        /// SHA-256, hexadecimal, where it was computed.
        digest: Option<String>,
        /// Where.
        path: String,
    },
    /// Its dimensions are known by name.
    Named(Box<ModelFacts>),
    /// Nothing.
    Unknown,
}

impl Known {
    /// The facts, where there are any.
    pub fn facts(&self) -> Option<&ModelFacts> {
        match self {
            Self::File { facts, .. } | Self::Named(facts) => Some(facts),
            Self::Unknown => None,
        }
    }
}

/// The model, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelOutlook {
    /// Its source, as written.
    pub source: String,
    /// From where its facts are.
    pub known_from: String,
    /// Parameters, for example `8.03 B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// The facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<ModelFacts>,
}

/// Who serves, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// In which situation.
    pub when: String,
    /// What answers.
    pub who: String,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// `metadata.name`.
    pub name: String,
    /// Name of what would be served.
    pub revision: String,
    /// Whether nothing speaks against it.
    pub feasible: bool,
    /// The machine in one line.
    pub machine: String,
    /// The machine.
    pub hardware: Hardware,
    /// The model.
    pub model: ModelOutlook,
    /// Memory and precision; absent where the model is not known or somebody else's image runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Key of the engine; absent where none is built or something is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_key: Option<EngineKey>,
    /// What the key still needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_needs: Vec<String>,
    /// Where the engine would come from.
    pub engine_from: String,
    /// Who would serve.
    pub serves: Vec<Step>,
    /// Why it cannot work, with numbers and what to do.
    pub refusals: Vec<String>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// The arithmetic's view of a spec. `tensorrt` says whether this program could run an engine.
pub fn request(engine: &ValidatedEngine, tensorrt: bool) -> Request {
    let managed = matches!(engine.fallback.ollama, Some(Ollama::Managed { .. }));
    Request {
        tensorrt: tensorrt && engine.engine.policy != EnginePolicy::Never,
        precision: engine.engine.precision,
        slots: engine.engine.slots,
        max_input_tokens: engine.engine.max_input_tokens,
        max_output_tokens: engine.engine.max_output_tokens,
        fallback: managed.then_some(engine.fallback.residency),
        tokens_per_second: engine.objectives.tokens_per_second,
    }
}

/// What would happen with `engine` on `hardware`.
pub fn outlook(engine: &ValidatedEngine, hardware: &Hardware, model: &Known) -> Outlook {
    let request = request(engine, true);
    let native = matches!(engine.runtime.server, RuntimeServer::Native);
    let fit = model
        .facts()
        .filter(|_| native)
        .map(|facts| fit(hardware, facts, &request));
    let on_gpu = request.tensorrt && hardware.platform().is_some();
    let mut notes = fit
        .as_ref()
        .map_or_else(|| hardware.notes.clone(), |fit| fit.notes.clone());
    if !native {
        notes.push("the memory of runtime.image is its own: it is not known here".to_owned());
    } else if fit.is_none() {
        notes.push(
            "the model's dimensions are not known before it is fetched: memory is checked then"
                .to_owned(),
        );
    } else if on_gpu {
        notes.push(
            "where libenginewright_trt.so for this machine's TensorRT is not installed, the processor \
             serves the same model"
                .to_owned(),
        );
    }
    let refusals = fit
        .as_ref()
        .map(|fit| fit.refusals.clone())
        .unwrap_or_default();
    let chosen = fit.as_ref().and_then(|fit| fit.chosen);
    let (engine_key, key_needs) = match (native && on_gpu, chosen) {
        (true, Some(format)) => {
            let stated = engine.model.sha256.as_ref().map(ToString::to_string);
            key(hardware, model, stated, &request, format)
        }
        _ => (None, Vec::new()),
    };
    Outlook {
        name: engine.name.to_string(),
        revision: engine.revision().to_string(),
        feasible: refusals.is_empty(),
        machine: hardware.summary(),
        hardware: hardware.clone(),
        model: describe(engine, model),
        engine_from: engine_from(engine, fit.as_ref(), native && on_gpu),
        serves: serves(engine, fit.as_ref(), native, on_gpu),
        fit,
        engine_key,
        key_needs,
        refusals,
        notes,
    }
}

fn describe(engine: &ValidatedEngine, model: &Known) -> ModelOutlook {
    let known_from = match model {
        Known::File { path, .. } => format!("the header of {path}"),
        Known::Named(facts) => format!(
            "the table of known models ({}); the file is not here",
            facts.name
        ),
        Known::Unknown => "nothing yet: the file is not here, and its name is in no table".into(),
    };
    ModelOutlook {
        source: engine.model.source.to_string(),
        known_from,
        parameters: model.facts().map(|facts| count(facts.parameters())),
        facts: model.facts().cloned(),
    }
}

fn key(
    hardware: &Hardware,
    model: &Known,
    stated: Option<String>,
    request: &Request,
    format: Format,
) -> (Option<EngineKey>, Vec<String>) {
    let digest = match model {
        Known::File { digest, .. } => digest.clone(),
        Known::Named(_) | Known::Unknown => stated,
    };
    let mut needs = Vec::new();
    let mut need = |what: &str, missing: bool| {
        if missing {
            needs.push(what.to_owned());
        }
    };
    need(
        "the model's digest, known once it is fetched",
        digest.is_none(),
    );
    let tensorrt = hardware.software.tensorrt.clone();
    need(
        "TensorRT's version: install libnvinfer10 on the device",
        tensorrt.is_none(),
    );
    need("the GPU's compute capability", hardware.sm().is_none());
    let group = model.facts().map(|facts| group_in_key(facts, format));
    let key = digest
        .zip(tensorrt)
        .zip(hardware.sm())
        .zip(hardware.platform())
        .zip(group)
        .map(|((((model_digest, tensorrt), sm), platform), group)| {
            let inputs = KeyInputs {
                model_digest,
                builder_version: BUILDER_VERSION.to_owned(),
                format,
                group,
                slots: request.slots,
                max_input_tokens: request.max_input_tokens,
                max_output_tokens: request.max_output_tokens,
                chunk: CHUNK.min(request.context_tokens()),
                tensorrt,
                sm,
                platform,
            };
            inputs.key()
        });
    (key, needs)
}

fn engine_from(engine: &ValidatedEngine, fit: Option<&Fit>, built: bool) -> String {
    if built && fit.is_some_and(|fit| fit.chosen.is_none()) {
        return "nowhere: no engine fits".to_owned();
    }
    if !built {
        return "no engine is built: the model itself is run".to_owned();
    }
    let mut places = Vec::new();
    let policy = engine.engine.policy;
    if policy != EnginePolicy::BuildOnly {
        places.push("the node's cache".to_owned());
        if let Some(registry) = &engine.engine.registry {
            places.push(format!("the registry {}", registry.repository));
        }
    }
    if policy != EnginePolicy::FetchOnly {
        let size = fit.and_then(|fit| fit.build.as_ref()).map(|build| {
            let where_ = match (build.beside_fallback, build.alone) {
                (true, _) => "beside the serving fallback",
                (false, true) => "only while the fallback is unloaded",
                (false, false) => "more than this machine has: set engine.registry and fetch it",
            };
            format!(" ({} at its peak: {where_})", build.need.bytes)
        });
        places.push(format!("a build on the node{}", size.unwrap_or_default()));
    }
    places.join(", then ")
}

fn serves(engine: &ValidatedEngine, fit: Option<&Fit>, native: bool, on_gpu: bool) -> Vec<Step> {
    let step = |when: &str, who: String| Step {
        when: when.to_owned(),
        who,
    };
    let ollama = engine.fallback.ollama.as_ref().map(|ollama| match ollama {
        Ollama::Managed { model, .. } => format!("Ollama, run by us, with {model}"),
        Ollama::External { url, model } => format!("Ollama at {url} with {model}"),
    });
    let mut steps = vec![step(
        "at once",
        ollama
            .clone()
            .unwrap_or_else(|| "nothing, until the engine is ready".to_owned()),
    )];
    let served = fit.and_then(|fit| fit.chosen);
    let who = match (&engine.runtime.server, served) {
        (RuntimeServer::Image(image), _) => Some(format!("the image {}", image.image)),
        (RuntimeServer::Native, _) if fit.is_none() => Some(if on_gpu {
            "a TensorRT engine, if it fits".to_owned()
        } else {
            "the CPU back end, if it fits".to_owned()
        }),
        (RuntimeServer::Native, Some(Format::AsInFile)) => Some("the CPU back end".to_owned()),
        (RuntimeServer::Native, Some(format)) => {
            Some(format!("a TensorRT engine in {}", format.name()))
        }
        (RuntimeServer::Native, None) => None,
    };
    let Some(who) = who else {
        steps.push(step(
            "later",
            "the same: no engine fits, see above".to_owned(),
        ));
        return steps;
    };
    steps.push(step("once proven", who));
    for (index, fallback) in engine.fallback.order.iter().enumerate() {
        let when = if index == 0 {
            "when it fails"
        } else {
            "when that fails too"
        };
        let who = match fallback {
            FallbackBackend::LastGood if native => "the last good engine, if there is one".into(),
            FallbackBackend::LastGood => "the last good image, if there is one".to_owned(),
            FallbackBackend::Ollama => ollama.clone().unwrap_or_default(),
        };
        steps.push(step(when, who));
    }
    steps
}

/// Memory in the words of `status.memory`.
impl Fit {
    /// Weights, KV cache, runtime, fallback, what they need together and what is left for them.
    pub fn account(&self) -> Option<[(&'static str, Bytes); 6]> {
        let candidate = self.served()?;
        let need = candidate.need.as_ref()?;
        let runtime = Bytes(need.activations.bytes.0 + need.runtime.bytes.0);
        let fallback = self
            .fallback
            .as_ref()
            .map_or(Bytes(0), |fallback| fallback.resident.bytes);
        Some([
            ("weights", need.weights.bytes),
            ("KV cache", need.kv_cache.bytes),
            ("runtime", runtime),
            ("fallback", fallback),
            ("together", candidate.required),
            ("left for them", self.budget.left),
        ])
    }
}
