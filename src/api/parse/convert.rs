//! From the types of the resource to [`ValidatedEngine`]: the last checks, those that only a program
//! can do, and text into values.

use std::time::Duration;

use crate::api::inference_engine::{
    FallbackSpec, InferenceEngineSpec, ModelSpec, RuntimeImageSpec, RuntimeSpec,
};
use crate::api::validated::{
    Engine, Fallback, Health, Model, Objectives, Ollama, Placement, Registry, Rollout, Runtime,
    RuntimeImage, RuntimeServer, Trust, ValidatedEngine, Wave,
};
use crate::api::{
    ByteSize, FallbackBackend, InferenceEngine, ModelSource, Name, Problem, Sha256Hex, Span,
};

/// Collects problems while values are made; a value that cannot be made gets a stand-in.
#[derive(Default)]
struct Converter {
    problems: Vec<Problem>,
}

/// Makes the validated form. It means something only where no problem came with it.
pub(super) fn convert(engine: InferenceEngine) -> (ValidatedEngine, Vec<Problem>) {
    let mut converter = Converter::default();
    let InferenceEngine {
        metadata,
        spec,
        status: _,
    } = engine;
    let name = converter.name(metadata.name.as_deref().unwrap_or_default());
    let validated = converter.spec(name, spec);
    let validated = ValidatedEngine {
        namespace: metadata.namespace.unwrap_or_else(|| "default".to_owned()),
        generation: metadata.generation,
        ..validated
    };
    (validated, converter.problems)
}

impl Converter {
    fn span<const MIN: u64, const MAX: u64>(
        &mut self,
        path: &str,
        span: &Span<MIN, MAX>,
    ) -> Duration {
        span.get().unwrap_or_else(|error| {
            let found = format!("{:?}", error.found);
            self.problems.push(Problem::new(
                path,
                found,
                error.allowed,
                "write for example 30s",
            ));
            Duration::ZERO
        })
    }

    fn bytes(&mut self, path: &str, size: &ByteSize) -> u64 {
        size.bytes().unwrap_or_else(|| {
            self.problems.push(Problem::new(
                path,
                format!("{:?}", size.as_str()),
                "an amount is a whole number with the unit Mi or Gi",
                "write for example 12Gi",
            ));
            0
        })
    }

    fn name(&mut self, text: &str) -> Name {
        Name::new(text).unwrap_or_else(|| {
            self.problems.push(Problem::new(
                "metadata.name",
                format!("{text:?}"),
                "a name is at most 40 lower-case letters, digits and '-', starts with a letter and \
                 does not end with '-'",
                "write for example hermes3",
            ));
            Name::stand_in()
        })
    }

    fn spec(&mut self, name: Name, spec: InferenceEngineSpec) -> ValidatedEngine {
        let InferenceEngineSpec {
            model,
            engine,
            runtime,
            placement,
            objectives,
            health,
            fallback,
            rollout,
            suspend,
        } = spec;
        let written_name = model.served_name.clone();
        let model = self.model(model);
        let served_name = written_name
            .or_else(|| model.source.ollama_name().map(str::to_owned))
            .unwrap_or_else(|| name.to_string());
        ValidatedEngine {
            engine: self.engine(engine),
            runtime: self.runtime(runtime, &served_name),
            placement: Placement {
                cache_bytes: self.bytes("spec.placement.cache.size", &placement.cache.size),
                node_selector: placement.node_selector,
                tolerations: placement.tolerations,
                runtime_class_name: placement.runtime_class_name,
                storage_class_name: placement.cache.storage_class_name,
            },
            objectives: Objectives {
                first_token: objectives
                    .first_token
                    .map(|span| self.span("spec.objectives.firstToken", &span)),
                completion: objectives
                    .completion
                    .map(|span| self.span("spec.objectives.completion", &span)),
                tokens_per_second: objectives.tokens_per_second,
                tool_call_accuracy: objectives.tool_call_accuracy,
            },
            health: self.health(&health),
            fallback: fallback_of(fallback, &model, &name),
            rollout: self.rollout(rollout),
            namespace: String::new(),
            generation: None,
            name,
            model,
            served_name,
            suspend,
        }
    }

    fn model(&mut self, model: ModelSpec) -> Model {
        let ModelSpec {
            source,
            sha256,
            endpoint,
            served_name: _,
            credentials,
        } = model;
        let parsed = ModelSource::parse(&source).unwrap_or_else(|error| {
            let (allowed, fix) = error.message().split_once("; ").unwrap_or_default();
            self.problems.push(Problem::new(
                "spec.model.source",
                format!("{source:?}"),
                allowed,
                fix,
            ));
            ModelSource::Ollama {
                name: String::new(),
            }
        });
        Model {
            source: parsed,
            // The schema has looked at the digits.
            sha256: sha256.as_deref().and_then(Sha256Hex::new),
            endpoint: endpoint.map(|text| text.trim_end_matches('/').to_owned()),
            credentials,
        }
    }

    fn engine(&mut self, engine: crate::api::inference_engine::EngineSpec) -> Engine {
        let build = engine.build;
        Engine {
            precision: engine.precision,
            max_input_tokens: engine.max_input_tokens,
            max_output_tokens: engine.max_output_tokens,
            slots: engine.slots,
            policy: engine.policy,
            registry: engine.registry.map(|registry| Registry {
                repository: registry.repository,
                push: registry.push,
                plain_http: registry.plain_http,
                credentials: registry.credentials,
            }),
            trust: Trust {
                require_signature: engine.trust.require_signature,
                public_keys: engine.trust.public_keys,
                signing_key: engine.trust.signing_key,
            },
            progress_deadline: self.span(
                "spec.engine.build.progressDeadline",
                &build.progress_deadline,
            ),
            build_memory_limit: build
                .memory_limit
                .map(|size| self.bytes("spec.engine.build.memoryLimit", &size)),
        }
    }

    fn runtime(&mut self, runtime: RuntimeSpec, served_name: &str) -> Runtime {
        let RuntimeSpec {
            // The rules tie the kind to the presence of an image.
            kind: _,
            image,
            startup_deadline,
        } = runtime;
        Runtime {
            server: image.map_or(RuntimeServer::Native, |image| {
                RuntimeServer::Image(runtime_image(image, served_name))
            }),
            startup_deadline: self.span("spec.runtime.startupDeadline", &startup_deadline),
        }
    }

    fn health(&mut self, health: &crate::api::inference_engine::HealthSpec) -> Health {
        Health {
            probe_interval: self.span("spec.health.probeInterval", &health.probe_interval),
            probe_timeout: self.span("spec.health.probeTimeout", &health.probe_timeout),
            failure_threshold: health.failure_threshold,
            soak: self.span("spec.health.soak", &health.soak),
            first_token_timeout: self
                .span("spec.health.firstTokenTimeout", &health.first_token_timeout),
            stall_timeout: self.span("spec.health.stallTimeout", &health.stall_timeout),
        }
    }

    fn rollout(&mut self, rollout: crate::api::inference_engine::RolloutSpec) -> Rollout {
        Rollout {
            strategy: rollout.strategy,
            retry_limit: rollout.retry_limit,
            backoff_initial: self.span("spec.rollout.backoff.initial", &rollout.backoff.initial),
            backoff_max: self.span("spec.rollout.backoff.max", &rollout.backoff.max),
            retry_token: rollout.retry_token,
            drain_timeout: self.span("spec.rollout.drainTimeout", &rollout.drain_timeout),
            max_unavailable: rollout.max_unavailable,
            waves: rollout
                .waves
                .into_iter()
                .enumerate()
                .map(|(index, wave)| Wave {
                    pause: self.span(&format!("spec.rollout.waves[{index}].pause"), &wave.pause),
                    name: wave.name,
                    node_selector: wave.node_selector,
                })
                .collect(),
        }
    }
}

fn runtime_image(image: RuntimeImageSpec, served_name: &str) -> RuntimeImage {
    RuntimeImage {
        image: image.image,
        command: image.command,
        args: image.args,
        env: image.env,
        port: image.port,
        health_path: image.health_path,
        model_name: image.model_name.unwrap_or_else(|| served_name.to_owned()),
        pull_secret: image.pull_secret,
    }
}

fn fallback_of(fallback: FallbackSpec, source: &Model, name: &Name) -> Fallback {
    let FallbackSpec {
        order,
        residency,
        ollama,
    } = fallback;
    // A managed Ollama pulls from where a name says, and from nowhere else.
    let of_ollama = source.source.ollama_name();
    let pulls = source.endpoint.is_none() || ollama.address.is_some();
    let pulled = of_ollama.filter(|_| pulls);
    let known = ollama.model.or_else(|| pulled.map(str::to_owned));
    let import = known.is_none();
    // A name that Ollama's own library cannot have, so nothing of the user's is overwritten.
    let model = known.unwrap_or_else(|| format!("enginewright/{name}:imported"));
    let ollama = match ollama.address {
        Some(address) => Ollama::External {
            url: address.trim_end_matches('/').to_owned(),
            model,
        },
        None => Ollama::Managed {
            model,
            import,
            image: ollama.image,
        },
    };
    let wanted = order.contains(&FallbackBackend::Ollama);
    Fallback {
        order,
        residency,
        ollama: wanted.then_some(ollama),
    }
}
