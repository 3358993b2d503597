//! The safe wrapper with a real TensorRT.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use enginewright::tensorrt::{
    Builder, BuilderOptions, Constant, Elementwise, Engine, Library, Progress, Search,
    TensorRtError, TrustedPlan, Type, load,
};
use sha2::{Digest, Sha256};

use crate::tools;

pub fn library() -> Library {
    let folder = tools::tensorrt();
    load(&Search {
        shim: Some(folder.clone()),
        tensorrt: Some(folder),
    })
    .unwrap()
}

#[derive(Default)]
struct Counter {
    steps: AtomicU32,
    most: Option<u32>,
}

impl Progress for Counter {
    fn started(&self, phase: &str, _parent: &str, _steps: u32) {
        assert!(!phase.is_empty());
    }

    fn step(&self, _phase: &str, _step: u32) -> ControlFlow<()> {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        match self.most {
            Some(most) if steps > most => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn finished(&self, _phase: &str) {}
}

fn small(library: &Library) -> Builder {
    let mut builder = Builder::new(library, &BuilderOptions::default()).unwrap();
    let x = builder.input("x", Type::F16, &[-1, 64]).unwrap();
    let bytes = Constant::Owned(vec![0; 64 * 64 * 2]);
    let w = builder.constant(Type::F16, &[64, 64], bytes).unwrap();
    let y = builder.matmul((x, false), (w, true)).unwrap();
    let z = builder.elementwise(Elementwise::Add, x, y).unwrap();
    builder.output(z, "z").unwrap();
    assert_eq!(builder.describe(z).unwrap(), (Type::F16, vec![-1, 64]));
    let shapes: [&[i64]; 3] = [&[1, 64], &[4, 64], &[8, 64]];
    builder.profile(&[("x", shapes)]).unwrap();
    builder
}

#[test]
fn what_this_tensorrt_is_and_can_do_is_told() {
    let library = library();
    assert_eq!(library.version_in_key(), "rtx-1.6.1.120");
    let can = library.capabilities();
    assert!(can.llm_layers && can.stream_writer && can.targets && !can.timing_cache);
}

#[test]
fn a_network_becomes_a_plan_with_progress() {
    let library = library();
    let (mut plan, counter) = (Vec::new(), Counter::default());
    small(&library).build(&counter, &mut plan).unwrap();
    assert!(plan.len() > 1000);
    assert!(counter.steps.load(Ordering::Relaxed) > 3);
}

#[test]
fn a_build_that_is_told_to_stop_stops_and_says_so() {
    let counter = Counter {
        most: Some(2),
        ..Counter::default()
    };
    let error = small(&library())
        .build(&counter, &mut Vec::new())
        .unwrap_err();
    assert!(matches!(error, TensorRtError::Cancelled), "{error}");
}

#[test]
fn a_full_disk_is_the_error_that_the_disk_gave() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = small(&library())
        .build(&Counter::default(), &mut Full)
        .unwrap_err();
    let TensorRtError::Write(source) = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_tensor_of_another_network_is_refused() {
    let library = library();
    let mut one = Builder::new(&library, &BuilderOptions::default()).unwrap();
    let mut other = Builder::new(&library, &BuilderOptions::default()).unwrap();
    let x = one.input("x", Type::F32, &[4]).unwrap();
    other.input("x", Type::F32, &[4]).unwrap();
    let error = other.elementwise(Elementwise::Add, x, x).unwrap_err();
    assert!(error.to_string().contains("no such tensor"), "{error}");
}

#[test]
fn a_constant_of_the_wrong_length_is_refused_before_tensorrt_reads_it() {
    let mut builder = Builder::new(&library(), &BuilderOptions::default()).unwrap();
    for bytes in [0, 15, 17] {
        let constant = Constant::Owned(vec![0; bytes]);
        let error = builder.constant(Type::F32, &[2, 2], constant).unwrap_err();
        assert!(error.to_string().contains("16"), "{error}");
    }
    // Two 4-bit integers lie in a byte, an odd one in a byte of its own.
    builder
        .constant(Type::I4, &[2, 2], Constant::Owned(vec![0; 2]))
        .unwrap();
}

#[test]
fn tensorrts_own_words_are_in_the_error() {
    let mut builder = Builder::new(&library(), &BuilderOptions::default()).unwrap();
    let a = builder.input("a", Type::F32, &[2, 3]).unwrap();
    let b = builder.input("b", Type::F32, &[2, 3]).unwrap();
    let product = builder.matmul((a, false), (b, false));
    // TensorRT checks dimensions when it is asked for them.
    let error = product.and_then(|product| builder.describe(product).map(drop));
    let failed = error.is_err() || {
        builder.output(a, "c").unwrap();
        builder.build(&Counter::default(), &mut Vec::new()).is_err()
    };
    assert!(failed, "2x3 times 2x3 cannot be multiplied");
}

#[test]
fn a_plan_without_a_gpu_is_an_error_and_not_the_end_of_the_process() {
    let library = library();
    let mut plan = Vec::new();
    small(&library)
        .build(&Counter::default(), &mut plan)
        .unwrap();
    let digest = hex::encode(Sha256::digest(&plan));
    let trusted = TrustedPlan::check(&plan, &digest).unwrap();
    // Where there is a GPU this is the engine; here TensorRT says what it misses.
    match Engine::load(&library, trusted) {
        Ok(engine) => assert_eq!(engine.profiles().unwrap(), 1),
        Err(error) => assert!(error.to_string().contains("the engine's plan"), "{error}"),
    }
}

#[test]
fn a_truncated_plan_is_refused() {
    let library = library();
    let mut plan = Vec::new();
    small(&library)
        .build(&Counter::default(), &mut plan)
        .unwrap();
    plan.truncate(plan.len() / 2);
    let digest = hex::encode(Sha256::digest(&plan));
    let trusted = TrustedPlan::check(&plan, &digest).unwrap();
    Engine::load(&library, trusted).unwrap_err();
}
