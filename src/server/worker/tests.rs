//! The engine thread on the scripted back end.

use std::sync::Mutex;

use super::super::generation::{
    FinishReason, GenerationEvent, GenerationRequest, SubmitError, Timings, Usage,
};
use super::*;
use crate::backend::scripted::{Control, Fault, Script, ScriptedLoader, replies, reply};
use crate::backend::{SlotId, TokenId};
use crate::text::sampling::SamplingParams;
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::{PreTokenizer, TokenKind, Tokenizer, Vocabulary, VocabularyKind};

const END: TokenId = 256;

/// Every byte is a token; one more ends an answer.
fn byte_text() -> Arc<TextModel> {
    // GPT-2's printable alphabet of bytes.
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256..;
    let letter = |byte: u32| {
        if plain(byte) {
            byte
        } else {
            spare.next().unwrap()
        }
    };
    let letters = (0..256)
        .map(letter)
        .filter_map(char::from_u32)
        .map(String::from);
    let tokens: Vec<_> = letters.chain(["<|end|>".to_owned()]).collect();
    let mut kinds = vec![TokenKind::Normal; 256];
    kinds.push(TokenKind::Control);
    let vocabulary = Vocabulary {
        kind: VocabularyKind::ByteLevelBpe(PreTokenizer::Gpt2),
        tokens,
        kinds,
        scores: vec![],
        merges: vec![],
        ignore_merges: false,
        bos: None,
        eos: Some(END),
        ends: vec![END],
        add_bos: false,
    };
    let template = ChatTemplate::new("", "", "", &[]).unwrap();
    Arc::new(TextModel::new(Tokenizer::new(vocabulary).unwrap(), template).unwrap())
}

fn bytes(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

fn request(prompt: &str) -> GenerationRequest {
    GenerationRequest {
        id: prompt.into(),
        prompt: bytes(prompt),
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_tokens: 100,
        stop: vec![],
        constraint: None,
        top_logprobs: None,
        ignore_eos: false,
        reproducible: false,
    }
}

fn start(script: Script, slots: u32, config: EngineConfig) -> (EngineHandle, Control) {
    let loader = ScriptedLoader::new(script, END + 1).slots(slots);
    let control = loader.control.clone();
    (
        spawn(Box::new(loader), byte_text(), config, Arc::new(())).unwrap(),
        control,
    )
}

fn start_saying(answer: &str, slots: u32) -> (EngineHandle, Control) {
    start(reply(bytes(answer), END), slots, EngineConfig::default())
}

/// Everything a stream gives.
#[derive(Debug, Default)]
struct Told {
    deltas: Vec<String>,
    tokens: Vec<String>,
    end: Option<GenerationEvent>,
}

impl Told {
    fn text(&self) -> String {
        self.deltas.concat()
    }

    fn usage(&self) -> Usage {
        match &self.end {
            Some(GenerationEvent::Finished { usage, .. }) => *usage,
            other => panic!("not finished: {other:?}"),
        }
    }

    fn reason(&self) -> FinishReason {
        match &self.end {
            Some(GenerationEvent::Finished { reason, .. }) => *reason,
            other => panic!("not finished: {other:?}"),
        }
    }

    fn error(&self) -> &GenerationError {
        match &self.end {
            Some(GenerationEvent::Failed(error)) => error,
            other => panic!("did not fail: {other:?}"),
        }
    }
}

async fn listen(mut stream: GenerationStream) -> Told {
    let mut told = Told::default();
    while let Some(event) = stream.next().await {
        assert!(told.end.is_none(), "an event after the last one");
        match event {
            GenerationEvent::Delta { text, tokens } => {
                told.deltas.push(text);
                let texts = tokens
                    .iter()
                    .map(|t| String::from_utf8_lossy(&t.bytes).into_owned());
                told.tokens.extend(texts);
            }
            end => told.end = Some(end),
        }
    }
    told
}

async fn ask(engine: &EngineHandle, request: GenerationRequest) -> Told {
    listen(engine.submit(request).unwrap()).await
}

#[tokio::test]
async fn an_answer_comes_token_by_token_and_ends_with_its_counts() {
    let (engine, _) = start_saying("Paris!", 1);
    let told = ask(&engine, request("Capital?")).await;
    assert_eq!(told.deltas, ["P", "a", "r", "i", "s", "!"]);
    assert_eq!(told.reason(), FinishReason::Stop);
    let usage = told.usage();
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.reused_tokens
        ),
        (8, 6, 0)
    );
}

#[tokio::test]
async fn many_answers_at_once_do_not_mix() {
    let pairs = (0..20).map(|i| {
        (
            bytes(&format!("[{i}]")),
            bytes(&format!("canary {i} sings")),
        )
    });
    let script = replies(pairs.collect(), END);
    let (engine, control) = start(script, 3, EngineConfig::default());
    let asked = (0..20).map(|i| {
        let engine = engine.clone();
        async move {
            ask(&engine, request(&format!("question [{i}]")))
                .await
                .text()
        }
    });
    let answers = futures::future::join_all(asked).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, format!("canary {i} sings"));
    }
    let widest = control.batches().iter().map(Vec::len).max();
    assert_eq!(widest, Some(3), "slots were not used together");
}

#[tokio::test]
async fn an_answer_ends_at_its_token_limit() {
    let (engine, _) = start_saying("abcdefgh", 1);
    let told = ask(
        &engine,
        GenerationRequest {
            max_tokens: 3,
            ..request("?")
        },
    )
    .await;
    assert_eq!(
        (told.text().as_str(), told.reason()),
        ("abc", FinishReason::Length)
    );
    let told = ask(
        &engine,
        GenerationRequest {
            max_tokens: 0,
            ..request("?")
        },
    )
    .await;
    assert_eq!(
        (told.text().as_str(), told.reason()),
        ("", FinishReason::Length)
    );
}

#[tokio::test]
async fn an_answer_ends_where_the_context_does() {
    let mut loader = ScriptedLoader::new(Arc::new(|_| 120), END + 1);
    loader.capabilities.context_tokens = 16;
    let engine = spawn(
        Box::new(loader),
        byte_text(),
        EngineConfig::default(),
        Arc::new(()),
    )
    .unwrap();
    let told = ask(&engine, request("0123456789")).await;
    assert_eq!(
        (told.text().as_str(), told.reason()),
        ("xxxxxx", FinishReason::Length)
    );
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_no_part_of_it_is_sent() {
    let (engine, _) = start_saying("one two STOP three", 1);
    let asked = GenerationRequest {
        stop: vec!["STOP".into(), "never".into()],
        top_logprobs: Some(0),
        ..request("?")
    };
    let told = ask(&engine, asked).await;
    assert_eq!(
        (told.text().as_str(), told.reason()),
        ("one two ", FinishReason::Stop)
    );
    assert_eq!(
        told.tokens.concat(),
        "one two ",
        "log-probabilities of hidden tokens"
    );
}

#[tokio::test]
async fn a_character_is_sent_whole_and_a_broken_one_as_a_replacement() {
    let mut answer = bytes("a🦀é");
    answer.push(0xf0);
    let (engine, _) = start(reply(answer, END), 1, EngineConfig::default());
    let told = ask(&engine, request("?")).await;
    assert_eq!(told.deltas, ["a", "🦀", "é", "\u{fffd}"]);
}

#[tokio::test]
async fn log_probabilities_come_with_the_text_of_their_tokens() {
    let (engine, _) = start_saying("hi", 1);
    let mut stream = engine
        .submit(GenerationRequest {
            top_logprobs: Some(2),
            ..request("?")
        })
        .unwrap();
    let Some(GenerationEvent::Delta { text, tokens }) = stream.next().await else {
        panic!()
    };
    assert_eq!(text, "h");
    assert_eq!(tokens[0].bytes, b"h");
    assert!(tokens[0].logprob > -0.01 && tokens[0].logprob <= 0.0);
    assert_eq!(tokens[0].top.len(), 2);
    assert_eq!(tokens[0].top[0].0, TokenId::from(b'h'));
}

#[tokio::test]
async fn benchmarks_go_on_after_the_end_of_the_answer() {
    let (engine, _) = start_saying("hi", 1);
    let asked = GenerationRequest {
        ignore_eos: true,
        max_tokens: 10,
        ..request("?")
    };
    let told = ask(&engine, asked).await;
    assert_eq!(
        (told.usage().completion_tokens, told.reason()),
        (10, FinishReason::Length)
    );
}

#[tokio::test]
async fn a_repeated_prompt_is_not_computed_again_and_the_usage_says_so() {
    let (engine, control) = start_saying("ok", 2);
    let first = ask(&engine, request("a long system prompt, question")).await;
    let second = ask(&engine, request("a long system prompt, question")).await;
    assert_eq!(first.text(), second.text());
    assert_eq!(second.usage().reused_tokens, 28);
    assert_eq!(
        control.batches()[3],
        [2],
        "only the last prompt tokens were run again"
    );
}

#[tokio::test]
async fn a_cancelled_answer_frees_its_slot_within_one_step() {
    let (engine, control) = start(Arc::new(|_| 120), 1, EngineConfig::default());
    control.close();
    let mut first = engine.submit(request("first")).unwrap();
    control.pass(2);
    assert!(first.next().await.is_some());
    let second = engine
        .submit(GenerationRequest {
            max_tokens: 1,
            ..request("second")
        })
        .unwrap();
    // The next step stands at the gate with the first request in it.
    assert!(control.wait_begun(3));
    drop(first);
    control.pass(2);
    assert_eq!(listen(second).await.text(), "x");
    assert_eq!(
        control.done(),
        4,
        "one step for the first request after it was cancelled"
    );
}

#[tokio::test]
async fn a_request_cancelled_in_the_queue_is_never_run() {
    let (engine, control) = start(Arc::new(|_| 120), 1, EngineConfig::default());
    control.close();
    let first = engine
        .submit(GenerationRequest {
            max_tokens: 1,
            ..request("first")
        })
        .unwrap();
    assert!(control.wait_begun(1));
    let second = engine.submit(request("second")).unwrap();
    let third = engine
        .submit(GenerationRequest {
            max_tokens: 1,
            ..request("third")
        })
        .unwrap();
    drop(second);
    control.open();
    listen(first).await;
    listen(third).await;
    assert_eq!(control.done(), 2);
    assert_eq!(control.held(SlotId(0)), bytes("third"));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let config = EngineConfig {
        queue: 2,
        ..EngineConfig::default()
    };
    let (engine, control) = start(Arc::new(|_| 120), 1, config);
    control.close();
    let ask_short = || {
        engine.submit(GenerationRequest {
            max_tokens: 1,
            ..request("?")
        })
    };
    let taken: Vec<_> = (0..3).map(|_| ask_short().unwrap()).collect();
    let refused = ask_short().unwrap_err();
    assert!(matches!(refused, SubmitError::QueueFull { retry_after } if !retry_after.is_zero()));
    control.open();
    for stream in taken {
        assert_eq!(listen(stream).await.text(), "x");
    }
    assert_eq!(
        ask(&engine, request("?")).await.reason(),
        FinishReason::Length
    );
    assert_eq!(engine.stats().waiting, 0);
}

#[tokio::test]
async fn a_long_prompt_does_not_stall_a_running_answer() {
    let config = EngineConfig {
        prefill: PrefillPolicy::Fixed(8),
        ..EngineConfig::default()
    };
    let (engine, control) = start(Arc::new(|_| 120), 2, config);
    control.close();
    let running = engine
        .submit(GenerationRequest {
            max_tokens: 40,
            ..request("go")
        })
        .unwrap();
    control.pass(1);
    assert!(control.wait_begun(2));
    let long = "l".repeat(100);
    let long = engine
        .submit(GenerationRequest {
            max_tokens: 1,
            ..request(&long)
        })
        .unwrap();
    control.open();
    let (running, long) = futures::future::join(listen(running), listen(long)).await;
    assert_eq!((running.text().len(), long.text().len()), (40, 1));
    let shared: Vec<_> = control
        .batches()
        .into_iter()
        .filter(|runs| runs.len() == 2)
        .collect();
    assert_eq!(shared.len(), 13, "100 tokens, 8 at a time");
    assert!(
        shared.iter().all(|runs| runs[0] == 1 && runs[1] <= 8),
        "{shared:?}"
    );
}

#[tokio::test]
async fn only_the_request_at_fault_fails_when_the_device_rejects_a_batch() {
    let (engine, control) = start_saying("fine", 2);
    control.close();
    let good = engine.submit(request("good")).unwrap();
    let bad = engine.submit(request("bad")).unwrap();
    control.fault(Fault::RejectSlot(SlotId(1)));
    control.open();
    assert_eq!(listen(good).await.text(), "fine");
    assert!(matches!(
        listen(bad).await.error(),
        GenerationError::Request(_)
    ));
    assert!(engine.is_alive());
}

#[tokio::test]
async fn a_batch_rejected_once_costs_no_request() {
    let (engine, control) = start_saying("fine", 2);
    control.close();
    let streams = ["a", "b"].map(|prompt| engine.submit(request(prompt)).unwrap());
    control.fault(Fault::RejectOnce);
    control.open();
    for stream in streams {
        assert_eq!(listen(stream).await.text(), "fine");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_a_number_fails_and_its_cache_serves_nobody() {
    let (engine, control) = start_saying("fine", 1);
    control.fault(Fault::NotANumber);
    let told = ask(&engine, request("poisoned prompt")).await;
    assert!(matches!(told.error(), GenerationError::Request(_)));
    let told = ask(&engine, request("poisoned prompt")).await;
    assert_eq!(
        (told.text().as_str(), told.usage().reused_tokens),
        ("fine", 0)
    );
}

#[tokio::test]
async fn requests_that_could_never_run_fail_alone_with_the_reason() {
    let (engine, _) = start_saying("fine", 1);
    let told = ask(
        &engine,
        GenerationRequest {
            prompt: vec![9_999],
            ..request("")
        },
    )
    .await;
    assert!(
        told.error().to_string().contains("9999"),
        "{:?}",
        told.error()
    );
    let told = ask(&engine, request(&"x".repeat(2_048))).await;
    assert!(
        told.error().to_string().contains("2048"),
        "{:?}",
        told.error()
    );
    let told = ask(&engine, request("")).await;
    assert!(matches!(told.error(), GenerationError::Request(_)));
    assert_eq!(ask(&engine, request("?")).await.text(), "fine");
    assert_eq!(engine.stats().slots_busy + engine.stats().waiting, 0);
}

#[tokio::test]
async fn when_the_device_fails_everyone_is_told_and_nobody_is_let_in() {
    for fault in [Fault::Fatal, Fault::Panic] {
        let (engine, control) = start_saying("never", 1);
        control.close();
        let running = engine.submit(request("first?")).unwrap();
        let waiting = engine.submit(request("second?")).unwrap();
        control.fault(fault);
        control.open();
        for stream in [running, waiting] {
            let told = listen(stream).await;
            let GenerationError::Engine(reason) = told.error() else {
                panic!("{told:?}")
            };
            assert!(reason.contains("told to"), "{reason}");
        }
        assert!(matches!(engine.stopped().await, EngineState::Failed(_)));
        assert!(!engine.is_alive());
        assert_eq!(
            engine.submit(request("late")).unwrap_err(),
            SubmitError::EngineGone
        );
    }
}

#[tokio::test]
async fn a_drain_lets_answers_finish_and_takes_no_more() {
    let (engine, control) = start_saying("goodbye", 1);
    control.close();
    let running = engine.submit(request("first?")).unwrap();
    let waiting = engine.submit(request("second?")).unwrap();
    assert!(control.wait_begun(1));
    let drain = tokio::spawn({
        let engine = engine.clone();
        async move { engine.drain(Duration::from_secs(20)).await }
    });
    while engine.state() == EngineState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        engine.submit(request("late")).unwrap_err(),
        SubmitError::ShuttingDown
    );
    control.open();
    assert_eq!(listen(running).await.text(), "goodbye");
    assert_eq!(listen(waiting).await.text(), "goodbye");
    assert_eq!(drain.await.unwrap(), EngineState::Stopped);
}

#[tokio::test]
async fn a_drain_ends_at_its_grace_time_and_says_so_to_the_rest() {
    let (engine, control) = start(Arc::new(|_| 120), 1, EngineConfig::default());
    control.delay(Duration::from_millis(20));
    let endless = GenerationRequest {
        max_tokens: 2_000,
        ..request("first?")
    };
    let running = engine.submit(endless).unwrap();
    let waiting = engine.submit(request("second?")).unwrap();
    assert!(control.wait_done(1));
    assert_eq!(
        engine.drain(Duration::from_millis(100)).await,
        EngineState::Stopped
    );
    assert_eq!(
        *listen(running).await.error(),
        GenerationError::ShuttingDown
    );
    assert_eq!(
        *listen(waiting).await.error(),
        GenerationError::ShuttingDown
    );
    assert_eq!(
        engine.drain(Duration::ZERO).await,
        EngineState::Stopped,
        "a second drain"
    );
}

#[tokio::test]
async fn an_idle_engine_is_drained_at_once() {
    let (engine, _) = start_saying("hi", 1);
    assert_eq!(
        engine.drain(Duration::from_mins(1)).await,
        EngineState::Stopped
    );
}

#[test]
fn a_model_that_cannot_be_loaded_is_an_error_of_the_start() {
    let mut loader = ScriptedLoader::new(reply(vec![], END), END + 1);
    loader.failure = Some(LoadError::Memory("7 MiB short".into()));
    let started = spawn(
        Box::new(loader),
        byte_text(),
        EngineConfig::default(),
        Arc::new(()),
    );
    assert_eq!(started.err().unwrap().to_string(), "7 MiB short");
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }
}

impl EngineObserver for Notes {
    fn started(&self, _: Duration, prompt: u32, reused: u32) {
        self.add(format!("started {prompt} {reused}"));
    }
    fn first_token(&self, _: Duration) {
        self.add("first".into());
    }
    fn next_token(&self, _: Duration) {
        self.add("next".into());
    }
    fn ended(&self, outcome: Outcome, usage: Usage, _: Timings) {
        self.add(format!("ended {outcome:?} {}", usage.completion_tokens));
    }
    fn step(&self, report: StepReport) {
        self.add(format!(
            "step {} {}",
            report.prefill_tokens, report.decode_tokens
        ));
    }
}

#[tokio::test]
async fn the_observer_hears_of_every_step_token_and_end() {
    let notes = Arc::new(Notes::default());
    let loader = ScriptedLoader::new(reply(bytes("hi"), END), END + 1);
    let observer = Arc::clone(&notes);
    let engine = spawn(
        Box::new(loader),
        byte_text(),
        EngineConfig::default(),
        observer,
    )
    .unwrap();
    ask(&engine, request("abc")).await;
    engine.drain(Duration::from_secs(10)).await;
    let heard = notes.0.lock().unwrap().clone();
    let expected = [
        "started 3 0",
        "first",
        "step 3 0",
        "next",
        "step 0 1",
        "next",
        "ended Finished(Stop) 2",
        "step 0 1",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn nothing_is_left_in_the_books_after_many_requests_and_cancellations() {
    let config = EngineConfig {
        queue: 500,
        ..EngineConfig::default()
    };
    let (engine, _) = start(Arc::new(|_| 120), 3, config);
    let asked = (0..300u32).map(|i| {
        let asked = GenerationRequest {
            max_tokens: 1 + i % 30,
            ..request(&format!("{i}"))
        };
        let mut stream = engine.submit(asked).unwrap();
        async move {
            if i % 3 == 0 {
                // Goes away after some tokens, or at once.
                for _ in 0..i % 7 {
                    stream.next().await;
                }
            } else {
                assert_eq!(listen(stream).await.reason(), FinishReason::Length);
            }
        }
    });
    futures::future::join_all(asked).await;
    ask(
        &engine,
        GenerationRequest {
            max_tokens: 1,
            ..request("last")
        },
    )
    .await;
    engine.drain(Duration::from_secs(10)).await;
    let stats = engine.stats();
    assert_eq!(
        (stats.slots_busy, stats.waiting, stats.waiting_tokens),
        (0, 0, 0)
    );
}
