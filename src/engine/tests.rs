use super::*;
use crate::api::{Precision, Residency};
use crate::hardware::{Hardware, Platform, Sm};
use crate::model::{ModelFacts, catalogue};

fn fixture(name: &str) -> Hardware {
    let text = match name {
        "orin-nano-8" => include_str!("../../tests/fixtures/hardware/orin-nano-8.yaml"),
        "orin-nx-8" => include_str!("../../tests/fixtures/hardware/orin-nx-8.yaml"),
        "orin-nx-16" => include_str!("../../tests/fixtures/hardware/orin-nx-16.yaml"),
        "agx-orin-32" => include_str!("../../tests/fixtures/hardware/agx-orin-32.yaml"),
        "agx-orin-64" => include_str!("../../tests/fixtures/hardware/agx-orin-64.yaml"),
        "thor" => include_str!("../../tests/fixtures/hardware/thor.yaml"),
        other => panic!("no fixture {other}"),
    };
    serde_saphyr::from_str(text).unwrap()
}

fn model(name: &str) -> ModelFacts {
    catalogue::find(name).unwrap()
}

fn request(precision: Precision) -> Request {
    Request {
        tensorrt: true,
        precision,
        slots: 2,
        max_input_tokens: 3072,
        max_output_tokens: 1024,
        fallback: Some(Residency::Standby),
        tokens_per_second: None,
    }
}

fn gigabytes(bytes: Bytes) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "compared to two digits")]
    let bytes = bytes.0 as f64;
    bytes / 1e9
}

fn near(found: f64, expected: f64, share: f64) {
    let off = (found / expected - 1.0).abs();
    assert!(off <= share, "{found} instead of {expected}");
}

fn verdict(fit: &Fit, format: Format) -> &Verdict {
    let found = fit.candidates.iter().find(|one| one.format == format);
    &found.unwrap().verdict
}

#[test]
fn hermes_3_on_an_nx_16_is_refused_in_fp16_with_the_numbers_and_fits_in_int4() {
    let (hardware, facts) = (fixture("orin-nx-16"), model("hermes3:8b"));
    let refused = fit(&hardware, &facts, &request(Precision::Fp16));
    assert_eq!(refused.chosen, None);
    let message = refused.refusals.join("\n");
    for part in [
        "FP16 needs",
        "weights 14.96 GiB",
        "KV cache 1.00 GiB",
        "of 15.29 GiB",
        "INT4",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let fits = fit(&hardware, &facts, &request(Precision::Int4));
    assert_eq!((fits.chosen, fits.refusals.len()), (Some(Format::Int4), 0));
    assert!(matches!(
        verdict(&fits, Format::Fp16),
        Verdict::TooLarge { .. }
    ));
}

#[test]
fn auto_is_the_most_precise_that_fits_and_is_fast_enough() {
    for (machine, name, expected) in [
        ("orin-nx-16", "hermes3:8b", Some(Format::Int4)),
        ("agx-orin-64", "hermes3:8b", Some(Format::Int8)),
        ("thor", "hermes3:8b", Some(Format::Fp16)),
        ("orin-nano-8", "hermes3:8b", None),
        ("orin-nano-8", "llama3.2:1b", Some(Format::Fp16)),
        // INT8 needs 5.1 GiB of 5.0: two slots of 4,096 tokens alone take 0.9.
        ("orin-nano-8", "llama3.2:3b", Some(Format::Int4)),
        ("agx-orin-32", "qwen3:4b", Some(Format::Fp16)),
    ] {
        let found = fit(&fixture(machine), &model(name), &request(Precision::Auto));
        assert_eq!(
            found.chosen, expected,
            "{name} on {machine}: {:#?}",
            found.refusals
        );
        assert_eq!(found.refusals.is_empty(), expected.is_some());
    }
}

#[test]
fn auto_is_more_precise_where_a_lower_objective_is_stated() {
    let slow = Request {
        tokens_per_second: Some(10.0),
        ..request(Precision::Auto)
    };
    let found = fit(&fixture("orin-nx-16"), &model("hermes3:8b"), &slow);
    assert_eq!(found.chosen, Some(Format::Int8));
}

#[test]
fn the_arithmetic_agrees_with_what_nvidia_published() {
    // TensorRT Edge-LLM 0.9, INT4, one sequence: 7.9 GB on Orin NX 16, 8.2 GB on AGX Orin 64.
    let request = Request {
        slots: 1,
        ..request(Precision::Int4)
    };
    let qwen = model("qwen3:8b");
    let need = need(&qwen, &request, Format::Int4).unwrap();
    near(gigabytes(need.total), 7.9, 0.05);
    // Measured 19.0 and 32.5 tokens/s are below the ceiling, and not far below.
    for (machine, measured) in [("orin-nx-16", 19.0), ("agx-orin-64", 32.5)] {
        let speed = speed(&fixture(machine), &qwen, Format::Int4, &need);
        let ceiling = speed.decode_tokens_per_second.unwrap();
        assert!(measured < ceiling && measured > 0.7 * ceiling, "{ceiling}");
    }
}

#[test]
fn decode_and_prefill_ceilings_of_an_8b_model_are_the_known_ones() {
    let facts = model("llama3.1:8b");
    let hardware = fixture("orin-nx-16");
    let request = request(Precision::Auto);
    for (format, expected) in [
        (Format::Int4, 21.4),
        (Format::Int8, 12.5),
        (Format::Fp16, 6.8),
    ] {
        let need = need(&facts, &request, format).unwrap();
        let speed = speed(&hardware, &facts, format, &need);
        near(speed.decode_tokens_per_second.unwrap(), expected, 0.03);
        near(speed.prefill_tokens_per_second.unwrap(), 1377.0, 0.01);
    }
}

#[test]
fn kv_cache_and_weights_are_what_paper_and_pencil_say() {
    let facts = model("hermes3:8b");
    assert_eq!(facts.kv_bytes_per_token(), 128 << 10);
    let need = need(&facts, &request(Precision::Auto), Format::Int4).unwrap();
    assert_eq!(need.kv_cache.bytes, Bytes(1 << 30));
    near(gigabytes(need.weights.bytes), 3.6 + 2.1, 0.01);
    assert!(
        need.weights
            .how
            .contains("6.98 B × 4 bits + a 16-bit scale for 128")
    );
}

#[test]
fn orin_has_no_fp8_and_says_so() {
    let orin = Sm::new(8, 7);
    assert!(!Format::Fp8.exists_on(orin) && !Format::Nvfp4.exists_on(orin));
    assert!(Format::Int4.exists_on(orin));
    assert_eq!(
        formats(orin),
        "SM 8.7 has FP16, INT8, INT4, no FP8 (needs 8.9), no NVFP4 (needs 10.0)"
    );
    assert!(Format::Nvfp4.exists_on(Sm::new(11, 0)));
    let found = fit(
        &fixture("orin-nx-16"),
        &model("hermes3:8b"),
        &request(Precision::Auto),
    );
    assert!(
        found.notes.iter().any(|note| note.contains("no FP8")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_model_whose_rows_make_no_groups_has_no_int4() {
    // 960 = 15 × 64 can be grouped by 64, 15 heads of 64 too.
    let mut facts = model("smollm2:360m");
    assert_eq!(super::need::group(&facts), Ok(64));
    facts.feed_forward = 2_570;
    let found = fit(&fixture("orin-nx-16"), &facts, &request(Precision::Int4));
    assert!(
        found.refusals[0].contains("2570") && found.chosen.is_none(),
        "{:?}",
        found.refusals
    );
    assert!(found.refusals[1].contains("FP16"), "{:?}", found.refusals);
}

#[test]
fn an_objective_beyond_the_bandwidth_is_refused_before_anything_is_built() {
    let wanted = Request {
        tokens_per_second: Some(40.0),
        ..request(Precision::Auto)
    };
    let found = fit(&fixture("orin-nx-16"), &model("hermes3:8b"), &wanted);
    let message = found.refusals.join("\n");
    assert!(
        message.contains("INT4: memory bandwidth allows 21.") && message.contains("asks for 40"),
        "{message}"
    );
    assert!(
        fit(&fixture("agx-orin-64"), &model("hermes3:8b"), &wanted).chosen == Some(Format::Int4)
    );
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    let long = Request {
        max_input_tokens: 16_384,
        ..request(Precision::Auto)
    };
    let found = fit(&fixture("thor"), &model("smollm2:135m"), &long);
    assert!(
        found.refusals[0].contains("trained for 8192"),
        "{:?}",
        found.refusals
    );
}

#[test]
fn a_too_long_context_is_refused_with_the_length_that_fits() {
    let long = Request {
        max_input_tokens: 60_000,
        ..request(Precision::Int4)
    };
    let found = fit(&fixture("orin-nx-16"), &model("hermes3:8b"), &long);
    let message = &found.refusals[0];
    let tokens: u32 = message
        .split("engine.maxOutputTokens at most ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{message}"));
    let shorter = Request {
        max_input_tokens: tokens - 1024,
        ..long
    };
    let found = fit(&fixture("orin-nx-16"), &model("hermes3:8b"), &shorter);
    assert_eq!(
        found.chosen,
        Some(Format::Int4),
        "{tokens}: {:?}",
        found.refusals
    );
}

#[test]
fn a_warm_fallback_is_counted_beside_the_engine() {
    let warm = Request {
        fallback: Some(Residency::Warm),
        ..request(Precision::Int4)
    };
    let standby = fit(
        &fixture("orin-nx-16"),
        &model("hermes3:8b"),
        &request(Precision::Int4),
    );
    let warm = fit(&fixture("orin-nx-16"), &model("hermes3:8b"), &warm);
    let resident = |fit: &Fit| fit.fallback.as_ref().unwrap().resident.bytes.0;
    assert!(resident(&warm) > 4 << 30 && resident(&standby) < 1 << 30);
    // Handover: both loaded at once. On this module it is the warm fallback's arithmetic.
    assert_eq!(
        standby.handover.as_ref().unwrap().fits,
        warm.chosen.is_some()
    );
}

#[test]
fn a_fallback_that_does_not_fit_by_itself_is_said() {
    let found = fit(
        &fixture("orin-nano-8"),
        &model("hermes3:8b"),
        &request(Precision::Auto),
    );
    let said = |fit: &Fit| {
        fit.notes
            .iter()
            .any(|note| note.contains("the fallback alone needs"))
    };
    assert!(said(&found), "{:?}", found.notes);
    let found = fit(
        &fixture("orin-nx-16"),
        &model("hermes3:8b"),
        &request(Precision::Auto),
    );
    assert!(!said(&found), "{:?}", found.notes);
}

#[test]
fn a_build_that_does_not_fit_beside_the_fallback_says_so() {
    let found = fit(
        &fixture("orin-nx-16"),
        &model("hermes3:8b"),
        &request(Precision::Int4),
    );
    let build = found.build.unwrap();
    assert!(!build.alone && !build.beside_fallback, "{build:?}");
    let found = fit(
        &fixture("agx-orin-32"),
        &model("hermes3:8b"),
        &request(Precision::Int4),
    );
    assert!(found.build.unwrap().alone);
    let found = fit(
        &fixture("agx-orin-64"),
        &model("hermes3:8b"),
        &request(Precision::Int4),
    );
    assert!(found.build.unwrap().beside_fallback);
}

#[test]
fn a_measured_machine_counts_what_is_in_use_and_an_unmeasured_one_is_estimated() {
    let mut hardware = fixture("orin-nx-16");
    let estimated = budget(&hardware, true);
    assert_eq!(estimated.memory, "unified");
    let held: u64 = estimated.held.iter().map(|line| line.bytes.0).sum();
    assert_eq!(estimated.left.0 + held, estimated.total.0);
    assert!(estimated.held.iter().any(|line| line.what == "k3s"));
    hardware.memory.available = Some(Bytes(6 << 30));
    let measured = budget(&hardware, true);
    assert!(measured.left < Bytes(6 << 30) && measured.held[0].what == "in use now");
    // Just booted, k3s not started: the estimate is not undercut.
    hardware.memory.available = Some(hardware.memory.total);
    assert_eq!(budget(&hardware, true), estimated);
}

#[test]
fn without_a_gpu_the_file_is_run_as_it_is() {
    let mut hardware = fixture("orin-nx-16");
    hardware.jetson = None;
    hardware.gpu = None;
    let mut facts = model("smollm2:135m");
    let estimated = fit(&hardware, &facts, &request(Precision::Auto));
    let how = |fit: &Fit| {
        fit.served()
            .unwrap()
            .need
            .as_ref()
            .unwrap()
            .weights
            .how
            .clone()
    };
    assert!(how(&estimated).contains("estimated"), "{}", how(&estimated));
    facts.bytes_by_type.insert("Q4_1".to_owned(), 96_576_768);
    let found = fit(&hardware, &facts, &request(Precision::Int8));
    assert_eq!(
        (found.engine, found.chosen),
        ("Cpu", Some(Format::AsInFile))
    );
    assert_eq!(found.build, None);
    assert!(how(&found).contains("Q4_1"), "{}", how(&found));
}

#[test]
fn an_old_jetpack_is_refused_with_the_release_to_flash() {
    let mut hardware = fixture("orin-nx-16");
    hardware.jetson.as_mut().unwrap().l4t = "35.4.1".parse().ok();
    let found = fit(&hardware, &model("hermes3:8b"), &request(Precision::Auto));
    assert!(found.refusals[0].contains("35.4.1"), "{:?}", found.refusals);
}

fn key_inputs() -> KeyInputs {
    KeyInputs {
        model_digest: "ab".repeat(32),
        builder_version: "0.1.0".to_owned(),
        format: Format::Int4,
        group: 128,
        slots: 2,
        max_input_tokens: 3072,
        max_output_tokens: 1024,
        chunk: 512,
        tensorrt: "10.3.0.30".to_owned(),
        sm: Sm::new(8, 7),
        platform: Platform::L4t,
    }
}

#[test]
fn the_key_is_stable_over_versions_of_this_program() {
    // A change here orphans every engine in every registry: raise "v2" on purpose only.
    let key = key_inputs().key();
    assert_eq!(key.as_str().len(), 64);
    assert_eq!(key.short(), "56b29e4d8000");
}

#[test]
fn every_input_changes_the_key() {
    type Change = fn(&mut KeyInputs);
    let changes: [Change; 11] = [
        |inputs| inputs.model_digest = "cd".repeat(32),
        |inputs| inputs.builder_version = "0.1.1".to_owned(),
        |inputs| inputs.format = Format::Int8,
        |inputs| inputs.group = 64,
        |inputs| inputs.slots = 3,
        |inputs| inputs.max_input_tokens = 3073,
        |inputs| inputs.max_output_tokens = 1025,
        |inputs| inputs.chunk = 256,
        |inputs| inputs.tensorrt = "10.3.0.31".to_owned(),
        |inputs| inputs.sm = Sm::new(8, 9),
        |inputs| inputs.platform = Platform::X86,
    ];
    let mut keys = vec![key_inputs().key()];
    for change in changes {
        let mut inputs = key_inputs();
        change(&mut inputs);
        keys.push(inputs.key());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), changes.len() + 1);
    let mut upper = key_inputs();
    upper.model_digest = upper.model_digest.to_uppercase();
    assert_eq!(upper.key(), key_inputs().key());
}
