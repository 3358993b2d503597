//! The engine on the real model: what comes out is what llama.cpp alone gives, whatever else runs,
//! and nothing is left behind.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use enginewright::backend::llama::{LlamaConfig, LlamaLoader, library};
use enginewright::backend::{
    Backend, BackendError, LoadError, Loader, LogitsWanted, Run, SlotId, TokenId,
};
use enginewright::model::gguf::GgufFile;
use enginewright::server::generation::{FinishReason, GenerationEvent, GenerationRequest, Usage};
use enginewright::server::worker::{
    EngineConfig, EngineHandle, EngineState, GenerationStream, PrefillPolicy, spawn,
};
use enginewright::text::TextModel;
use enginewright::text::sampling::SamplingParams;
use enginewright::text::tokenizer::Specials;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;

use crate::tools;

const CONTEXT: u32 = 1_024;

fn text() -> Arc<TextModel> {
    static TEXT: OnceLock<Arc<TextModel>> = OnceLock::new();
    let load = || {
        let file = GgufFile::open(&tools::model()).unwrap();
        Arc::new(TextModel::from_gguf(&file).unwrap())
    };
    Arc::clone(TEXT.get_or_init(load))
}

fn tokens(text_: &str) -> Vec<TokenId> {
    text().tokenizer.encode(text_, Specials::Parse)
}

fn config(slots: u32) -> LlamaConfig {
    LlamaConfig {
        slots,
        context_tokens: Some(CONTEXT),
        // Threads of one step wait for each other actively, which other tests would pay for.
        threads: Some(1),
        ..LlamaConfig::new(tools::model())
    }
}

/// Runs `with` on a loaded back end.
fn on_backend(slots: u32, mut with: impl FnMut(&mut dyn Backend)) {
    Box::new(LlamaLoader::new(config(slots)))
        .run(&mut with)
        .unwrap();
}

fn chat(question: &str) -> Vec<TokenId> {
    tokens(&format!(
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ))
}

fn best(logits: &[f32]) -> TokenId {
    let best = (0..).zip(logits).fold((0, f32::MIN), |best, (id, logit)| {
        if *logit > best.1 { (id, *logit) } else { best }
    });
    best.0
}

/// Greedy decoding with nothing but llama.cpp.
fn bare_greedy(prompt: &[TokenId], count: usize) -> Vec<TokenId> {
    static MODEL: OnceLock<LlamaModel> = OnceLock::new();
    let library = library().unwrap();
    let model = MODEL.get_or_init(|| {
        let params = LlamaModelParams::default();
        LlamaModel::load_from_file(library, tools::model(), &params).unwrap()
    });
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(CONTEXT))
        .with_n_batch(512)
        .with_n_ubatch(512)
        .with_flash_attention_policy(0)
        .with_n_threads(1)
        .with_n_threads_batch(1);
    let mut context = model.new_context(library, params).unwrap();
    let mut batch = LlamaBatch::new(512, 1);
    let signed = |id: TokenId| LlamaToken(i32::try_from(id).unwrap());
    for (position, token) in (0..).zip(prompt) {
        let last = position + 1 == i32::try_from(prompt.len()).unwrap();
        batch.add(signed(*token), position, &[0], last).unwrap();
    }
    let mut position = batch.n_tokens();
    let mut answer = Vec::new();
    while answer.len() < count {
        context.decode(&mut batch).unwrap();
        let token = best(context.get_logits_ith(batch.n_tokens() - 1));
        answer.push(token);
        batch.clear();
        batch.add(signed(token), position, &[0], true).unwrap();
        position += 1;
    }
    answer
}

fn run(slot: u32, start: u32, tokens: &[TokenId]) -> Run {
    Run {
        slot: SlotId(slot),
        start,
        tokens: tokens.to_vec(),
        logits: LogitsWanted::Last,
    }
}

/// Runs tokens in a slot and gives the last row.
fn row(backend: &mut dyn Backend, slot: u32, start: u32, tokens: &[TokenId]) -> Vec<f32> {
    let mut row = Vec::new();
    backend
        .forward(&[run(slot, start, tokens)], &mut |_, _, logits| {
            row = logits.to_vec();
        })
        .unwrap();
    row
}

/// Not nearly: a chunk of at least two tokens gives the same bits however it came about.
fn same(left: &[f32], right: &[f32]) -> bool {
    left.iter()
        .zip(right)
        .all(|(a, b)| a.to_bits() == b.to_bits())
        && left.len() == right.len()
}

fn request(prompt: Vec<TokenId>, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        id: "test".into(),
        prompt,
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_tokens,
        stop: vec![],
        constraint: None,
        top_logprobs: None,
        ignore_eos: true,
        reproducible: false,
    }
}

fn engine(slots: u32, config_: EngineConfig) -> EngineHandle {
    let loader = Box::new(LlamaLoader::new(config(slots)));
    spawn(loader, text(), config_, Arc::new(())).unwrap()
}

async fn listen(mut stream: GenerationStream) -> (String, Usage) {
    let mut said = String::new();
    while let Some(event) = stream.next().await {
        match event {
            GenerationEvent::Delta { text, .. } => said.push_str(&text),
            GenerationEvent::Finished { usage, .. } => return (said, usage),
            GenerationEvent::Failed(error) => panic!("{error}"),
        }
    }
    panic!("no last event")
}

async fn ask(engine: &EngineHandle, prompt: &[TokenId], max_tokens: u32) -> (String, Usage) {
    listen(engine.submit(request(prompt.to_vec(), max_tokens)).unwrap()).await
}

fn visible(tokens: &[TokenId]) -> String {
    let tokenizer = &text().tokenizer;
    let shown = tokens.iter().filter(|id| tokenizer.is_visible(**id));
    let bytes: Vec<u8> = shown
        .flat_map(|id| tokenizer.token_bytes(*id).to_vec())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

const QUESTIONS: [&str; 4] = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
    "Name three colours.",
];

#[tokio::test]
async fn greedy_answers_equal_a_bare_llama_cpp_loop() {
    let engine = engine(2, EngineConfig::default());
    for question in QUESTIONS {
        let prompt = chat(question);
        let expected = visible(&bare_greedy(&prompt, 24));
        let (said, usage) = ask(&engine, &prompt, 24).await;
        assert_eq!(said, expected, "{question}");
        assert_eq!(usage.completion_tokens, 24);
    }
    engine.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn four_answers_at_once_equal_each_one_alone() {
    let engine = engine(4, EngineConfig::default());
    let together = QUESTIONS.map(|question| engine.submit(request(chat(question), 24)).unwrap());
    let together = futures::future::join_all(together.map(listen)).await;
    for (question, (said, _)) in QUESTIONS.iter().zip(together) {
        let expected = visible(&bare_greedy(&chat(question), 24));
        assert_eq!(said, expected, "{question}");
    }
    engine.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reused_prefix_gives_the_text_of_a_recomputed_one() {
    let engine = engine(3, EngineConfig::default());
    let system = "You are a careful assistant who answers briefly. ".repeat(12);
    let ask_about = |question: &str| {
        tokens(&format!(
            "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n\
             <|im_start|>assistant\n"
        ))
    };
    for (i, question) in QUESTIONS.iter().enumerate() {
        let prompt = ask_about(question);
        let expected = visible(&bare_greedy(&prompt, 32));
        let (said, usage) = ask(&engine, &prompt, 32).await;
        assert_eq!(said, expected, "{question}");
        // The first is computed, the others find the system prompt in some slot, copied or kept.
        assert_eq!(usage.reused_tokens > 100, i > 0, "{usage:?}");
        let (again, usage) = ask(&engine, &prompt, 32).await;
        assert_eq!(again, expected, "{question}, a second time");
        assert_eq!(usage.reused_tokens, usage.prompt_tokens - 2);
    }
    engine.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_prompt_cut_into_chunks_gives_the_text_of_a_whole_one() {
    let config = EngineConfig {
        prefill: PrefillPolicy::Fixed(16),
        ..EngineConfig::default()
    };
    let engine = engine(2, config);
    let prompt = chat(&"Tell me about the history of the city of Paris. ".repeat(20));
    let expected = visible(&bare_greedy(&prompt, 24));
    // A running answer is what makes the scheduler cut.
    let mut other = engine.submit(request(chat(QUESTIONS[1]), 600)).unwrap();
    other.next().await;
    let (said, _) = ask(&engine, &prompt, 24).await;
    assert_eq!(said, expected);
    drop(other);
    engine.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn cancelled_answers_free_their_slots_at_once() {
    let engine = engine(2, EngineConfig::default());
    for _ in 0..3 {
        let mut endless: Vec<_> = QUESTIONS[..2]
            .iter()
            .map(|q| engine.submit(request(chat(q), 900)).unwrap())
            .collect();
        for stream in &mut endless {
            assert!(matches!(
                stream.next().await,
                Some(GenerationEvent::Delta { .. })
            ));
        }
        assert_eq!(engine.stats().slots_busy, 2);
        drop(endless);
        let (said, _) = ask(&engine, &chat(QUESTIONS[0]), 4).await;
        assert!(!said.is_empty());
        assert_eq!((engine.stats().slots_busy, engine.stats().waiting), (0, 0));
    }
    assert_eq!(
        engine.drain(Duration::from_secs(5)).await,
        EngineState::Stopped
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own, because other tests load models meanwhile.
#[test]
fn many_requests_leave_nothing_behind() {
    if std::env::var_os("ENGINEWRIGHT_LEAK_CHILD").is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "engine::many_requests_leave_nothing_behind",
                "--nocapture",
            ])
            .env("ENGINEWRIGHT_LEAK_CHILD", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = engine(
        4,
        EngineConfig {
            queue: 1_000,
            ..EngineConfig::default()
        },
    );
    let batch = |seed: u32| {
        let asked = (0..40).map(|i| {
            let prompt = chat(&format!(
                "{} {}",
                QUESTIONS[i as usize % 4],
                seed * 1_000 + i
            ));
            let mut stream = engine.submit(request(prompt, 3 + i % 5)).unwrap();
            async move {
                if i % 3 == 0 {
                    stream.next().await;
                } else {
                    listen(stream).await;
                }
            }
        });
        runtime.block_on(futures::future::join_all(asked.collect::<Vec<_>>()));
    };
    batch(0);
    batch(1);
    let before = resident_kib();
    for seed in 2..6 {
        batch(seed);
    }
    let after = resident_kib();
    assert!(
        after < before + 4_096,
        "resident memory grew from {before} to {after} KiB"
    );
    runtime.block_on(engine.drain(Duration::from_secs(5)));
    assert_eq!((engine.stats().slots_busy, engine.stats().waiting), (0, 0));
}

#[test]
fn a_truncated_slot_goes_on_as_if_it_had_never_held_more() {
    let prompt = chat(QUESTIONS[0]);
    on_backend(1, |backend| {
        let expected = row(backend, 0, 0, &prompt);
        row(
            backend,
            0,
            u32::try_from(prompt.len()).unwrap(),
            &chat(QUESTIONS[1]),
        );
        backend.truncate(SlotId(0), 5).unwrap();
        let again = row(backend, 0, 5, &prompt[5..]);
        assert!(same(&expected, &again));
    });
}

#[test]
fn a_copied_prefix_is_the_same_as_a_computed_one_and_leaves_the_source_alone() {
    let prompt = chat(QUESTIONS[2]);
    on_backend(3, |backend| {
        let expected = row(backend, 0, 0, &prompt);
        row(backend, 2, 0, &chat(QUESTIONS[3]));
        let length = u32::try_from(prompt.len()).unwrap();
        backend
            .copy_prefix(SlotId(0), SlotId(2), length - 3)
            .unwrap();
        let copied = row(backend, 2, length - 3, &prompt[prompt.len() - 3..]);
        assert!(same(&expected, &copied));
        // Both go on, side by side and in any order.
        let next = best(&expected);
        let mut rows = vec![Vec::new(); 2];
        let runs = [run(2, length, &[next]), run(0, length, &[next])];
        backend
            .forward(&runs, &mut |i, _, logits| rows[i] = logits.to_vec())
            .unwrap();
        assert!(same(&rows[0], &rows[1]));
    });
}

#[test]
fn what_breaks_the_rules_is_rejected_and_changes_nothing() {
    let prompt = chat(QUESTIONS[0]);
    on_backend(2, |backend| {
        let vocabulary = backend.capabilities().vocabulary;
        let expected = row(backend, 0, 0, &prompt);
        let length = u32::try_from(prompt.len()).unwrap();
        let full = vec![1; 256];
        let wrong = [
            vec![run(0, 0, &[1])],
            vec![run(0, length + 1, &[1])],
            vec![run(9, 0, &[1])],
            vec![run(1, 0, &[])],
            vec![],
            vec![run(1, 0, &[vocabulary])],
            vec![run(1, 0, &[u32::MAX])],
            vec![run(1, 0, &[1]), run(1, 1, &[1])],
            vec![run(1, 0, &full), run(0, length, &[1])],
        ];
        for runs in wrong {
            let outcome = backend.forward(&runs, &mut |_, _, _| panic!("a row"));
            assert!(
                matches!(outcome, Err(BackendError::Rejected(_))),
                "{runs:?}: {outcome:?}"
            );
        }
        let copy = backend.copy_prefix(SlotId(0), SlotId(1), length + 1);
        assert!(matches!(copy, Err(BackendError::Rejected(_))));
        backend.truncate(SlotId(0), length - 2).unwrap();
        assert!(same(
            &expected,
            &row(backend, 0, length - 2, &prompt[prompt.len() - 2..])
        ));
    });
}

#[test]
fn a_slot_holds_exactly_its_context() {
    let config = LlamaConfig {
        context_tokens: Some(256),
        ..config(2)
    };
    let loader = Box::new(LlamaLoader::new(config));
    let mut with = |backend: &mut dyn Backend| {
        let text: Vec<TokenId> = (1_000..1_256).collect();
        assert_eq!(backend.capabilities().context_tokens, 256);
        row(backend, 1, 0, &text);
        let more = backend.forward(&[run(1, 256, &[1])], &mut |_, _, _| ());
        assert!(matches!(more, Err(BackendError::Rejected(_))));
        row(backend, 0, 0, &text);
    };
    loader.run(&mut with).unwrap();
}

fn load_error(config: LlamaConfig) -> LoadError {
    Box::new(LlamaLoader::new(config))
        .run(&mut |_| panic!("loaded"))
        .unwrap_err()
}

#[test]
fn a_context_without_memory_is_refused_with_the_numbers_and_at_once() {
    let began = Instant::now();
    let config = LlamaConfig {
        slots: 256,
        context_tokens: Some(8_192),
        ..LlamaConfig::new(tools::model())
    };
    let error = load_error(config);
    assert!(matches!(error, LoadError::Memory(_)), "{error}");
    let said = error.to_string();
    for part in ["256 slots × 8192 tokens", "MiB", "at most"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "the memory was touched"
    );
}

#[test]
fn a_context_beyond_the_models_training_is_refused_with_both_numbers() {
    let config = LlamaConfig {
        context_tokens: Some(100_000),
        ..config(1)
    };
    let said = load_error(config).to_string();
    assert!(said.contains("100000") && said.contains("8192"), "{said}");
}

#[test]
fn files_that_are_no_model_are_load_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::fs::read(tools::model()).unwrap();
    let files: [(&str, &[u8]); 4] = [
        ("empty.gguf", b""),
        (
            "text.gguf",
            b"this is not a model, it is a text of some length",
        ),
        ("header.gguf", &real[..20]),
        ("half.gguf", &real[..real.len() / 2]),
    ];
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = load_error(LlamaConfig::new(&path));
        assert!(
            matches!(&error, LoadError::Model(said) if said.contains(name)),
            "{error}"
        );
    }
    for name in ["missing.gguf", "."] {
        let error = load_error(LlamaConfig::new(folder.path().join(name)));
        assert!(matches!(error, LoadError::Model(_)), "{error}");
    }
}

#[tokio::test]
async fn a_drain_unloads_the_model_and_it_can_be_loaded_again() {
    for _ in 0..2 {
        let engine = engine(1, EngineConfig::default());
        let (said, usage) = ask(&engine, &chat(QUESTIONS[0]), 8).await;
        assert!(!said.is_empty());
        assert_eq!(usage.completion_tokens, 8);
        assert_eq!(
            engine.drain(Duration::from_secs(5)).await,
            EngineState::Stopped
        );
    }
}

#[tokio::test]
async fn the_model_ends_its_answer_by_itself() {
    let engine = engine(1, EngineConfig::default());
    let asked = GenerationRequest {
        ignore_eos: false,
        ..request(chat(QUESTIONS[0]), 200)
    };
    let mut stream = engine.submit(asked).unwrap();
    let mut said = String::new();
    while let Some(event) = stream.next().await {
        match event {
            GenerationEvent::Delta { text, .. } => said.push_str(&text),
            GenerationEvent::Finished { reason, .. } => assert_eq!(reason, FinishReason::Stop),
            GenerationEvent::Failed(error) => panic!("{error}"),
        }
    }
    assert!(
        said.contains("Paris") && !said.contains("<|im_end|>"),
        "{said}"
    );
    engine.drain(Duration::ZERO).await;
}
