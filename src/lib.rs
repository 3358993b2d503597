//! Enginewright: an LLM endpoint for NVIDIA Jetson that answers at once, gets fast when its
//! engine is ready, and never goes dark when that engine fails.
//!
//! # Layers, from the inside out
//!
//! Pure code decides; shells observe and act. A pure layer imports no client, no clock, no random
//! source and no environment (`tests/suite/layering.rs` fails when one does).
//!
//! | layer | decides or does | purity |
//! |---|---|---|
//! | [`api`] | the resource types, their defaults, bounds and validation | pure |
//! | [`hardware`] | which machine this is, what fits into it (`hardware::probe` is its only I/O) | pure |
//! | [`engine`] | the engine key, memory arithmetic, precision choice | pure |
//! | [`planner`] | the next step: `plan(observed, now) -> Plan` | pure |
//! | [`scheduler`] | which tokens of which request run in the next step | pure |
//! | [`model`] | model files: GGUF metadata and tensor directory | reads files |
//! | [`network`] | a model's network as a typed graph of operations | pure |
//! | [`weights`] | model weights: GGUF and safetensors decoded, rounded to an engine's formats | reads files |
//! | [`text`] | tokens, chat templates, sampling, stop strings, constraints, tool calls | pure |
//! | [`tensorrt`] | TensorRT through its shim: the only `unsafe` code | device |
//! | [`backend`] | the narrow device interface and its implementations | device |
//! | [`wire`] | the request and response shapes of the HTTP APIs | pure |
//! | [`server`] | the inference server: HTTP in front of one engine thread | shell |
//! | [`gateway`] | the stable endpoint in front of engine and fallback | shell |
//! | [`probe`] | proving a server by real generation, and measuring it | shell |
//! | [`build`] | a network becomes an engine: weights laid down, lowered, built, bundled | shell |
//! | [`sources`] | brings models from where they are published (`sources::protocol` is pure) | shell |
//! | [`store`] | the state directory and engine bundles: atomic writes, locks, digests | shell |
//! | [`local`] | `run`: the planner driven with processes | shell |
//! | [`agent`] | publishes its node as an `EdgeNode` and as labels (`agent::decide` is pure) | shell |
//! | [`controller`] | `operator`: the planner driven with pods | pure parts, thin shell |
//! | [`cache`] | what Jobs do with a node's cache: fetch, check, collect | shell |
//! | [`companion`] | keeps the right model in the Ollama beside it | shell |
//! | [`mod@bench`] | load test with latency percentiles | shell |
//! | [`telemetry`] | logs, metrics registry, traces | shell |
//! | [`cli`] | one file per subcommand | shell |

pub mod agent;
pub mod api;
pub mod backend;
pub mod bench;
pub mod build;
pub mod cache;
pub mod cli;
pub mod companion;
pub mod controller;
pub mod engine;
pub mod gateway;
pub mod hardware;
pub mod local;
pub mod model;
pub mod network;
pub mod planner;
pub mod probe;
pub mod scheduler;
pub mod server;
pub mod sources;
pub mod store;
pub mod telemetry;
pub mod tensorrt;
pub mod text;
pub mod weights;
pub mod wire;
