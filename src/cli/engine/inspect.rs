//! `enginewright engine inspect`: what a bundle says about itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Output, exit_of, pairs};
use crate::cli::{Exit, fail, out};
use crate::hardware::Bytes;
use crate::store::bundle::{Bundle, Manifest};

/// Show what an engine bundle says about itself: key, inputs, layers, profiles, sizes, measured speed
///
/// Needs neither a GPU nor TensorRT. The manifest's own digest is checked, the other files only for
/// their sizes: `engine verify` reads them. Exit codes: 0 done, 1 no bundle, 4 cannot be read, 5
/// damaged or of a newer schema.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle's directory.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,

    /// Table for people, JSON for programs.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let bundle = match Bundle::open(&self.bundle) {
            Ok(bundle) => bundle,
            Err(error) => return fail(exit_of(&error), &error),
        };
        match self.output {
            Output::Table => out(&table(bundle.manifest())),
            Output::Json => match serde_json::to_string_pretty(bundle.manifest()) {
                Ok(text) => out(&(text + "\n")),
                Err(error) => fail(Exit::Environment, &error),
            },
        }
    }
}

fn table(manifest: &Manifest) -> String {
    let (inputs, built, engine) = (&manifest.inputs, &manifest.built, &manifest.engine);
    let group = match inputs.group {
        0 => String::new(),
        group => format!(", groups of {group}"),
    };
    let measured = manifest.measured.as_ref().map_or_else(
        || "not measured".to_owned(),
        |measured| {
            format!(
                "{:.1} tokens/s, prompts {:.0} tokens/s",
                measured.decode_tokens_per_second, measured.prefill_tokens_per_second
            )
        },
    );
    let mut text = pairs(&[
        ("KEY", manifest.key.to_string()),
        ("DIGEST", manifest.digest.clone()),
        (
            "MODEL",
            format!("{} (sha256 {})", engine.model, inputs.model_digest),
        ),
        (
            "WEIGHTS",
            format!(
                "{}{group}, {}",
                inputs.format.name(),
                Bytes(engine.weight_bytes)
            ),
        ),
        ("TENSORRT", inputs.tensorrt.clone()),
        ("SM", inputs.sm.to_string()),
        ("PLATFORM", format!("{:?}", inputs.platform)),
        ("SLOTS", inputs.slots.to_string()),
        (
            "TOKENS",
            format!(
                "{} in, {} out",
                inputs.max_input_tokens, inputs.max_output_tokens
            ),
        ),
        (
            "BUILDER",
            format!("{}, version {}", built.by, inputs.builder_version),
        ),
        (
            "BUILT",
            format!(
                "in {:.1} s with {} on {} ({}), at most {} of memory",
                built.seconds,
                built.tensorrt,
                built.machine,
                if built.on_gpu {
                    "with its GPU"
                } else {
                    "without a GPU"
                },
                Bytes(built.peak_memory)
            ),
        ),
        ("SPEED", measured),
    ]);
    // Writing to a string cannot fail.
    let _never = write!(text, "\nFILES\n");
    for (name, file) in &manifest.files {
        let _never = writeln!(
            text,
            "  {name:<22}{:>10}  {}",
            Bytes(file.size),
            file.sha256
        );
    }
    let operations: Vec<String> = engine
        .operations
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let _never = write!(
        text,
        "\nLAYERS\n  {} given to TensorRT, {} attention: {}\n\nPROFILES\n",
        engine.layers,
        engine.attention,
        operations.join(", ")
    );
    for profile in &engine.profiles {
        let bounds: Vec<String> = profile
            .bounds
            .iter()
            .map(|(name, one)| format!("{name} {}..{} (best {})", one.min, one.max, one.opt))
            .collect();
        let _never = writeln!(text, "  {:<10}{}", profile.name, bounds.join(", "));
    }
    text.push_str(&ports(manifest));
    text
}

/// Inputs and outputs; those of the second and later layers are like those of the first.
fn ports(manifest: &Manifest) -> String {
    let mut text = String::new();
    for (title, is_input) in [("INPUTS", true), ("OUTPUTS", false)] {
        let all: Vec<_> = manifest
            .engine
            .ports
            .iter()
            .filter(|port| port.is_input == is_input)
            .collect();
        let _never = write!(text, "\n{title} ({})\n", all.len());
        for port in all.iter().take(8) {
            let _never = writeln!(text, "  {:<22}{:<6}{}", port.name, port.kind, port.shape);
        }
        if all.len() > 8 {
            let _never = writeln!(text, "  and {} more, see -o json", all.len() - 8);
        }
    }
    text
}
