//! `enginewright engine verify`: whether a bundle is whole, and for this machine.

use std::path::PathBuf;

use serde::Serialize;

use super::progress::Bar;
use super::{Output, TensorRtArgs, exit_of, pairs};
use crate::cli::{Exit, fail, out};
use crate::engine::KeyInputs;
use crate::hardware::{Hardware, Platform, Sm, probe};
use crate::store::bundle::{Bundle, SIGNATURE};
use crate::tensorrt;

/// Check that an engine bundle is whole and was built for this machine
///
/// Reads every file and compares its digest with the manifest, the manifest with its own, the key with
/// its inputs, and the inputs with this machine's TensorRT, GPU and platform. What is not known here
/// (there is no GPU, or no TensorRT) is said and not checked. Signatures are not checked yet. Exit
/// codes: 0 whole and nothing speaks against it here, 1 no bundle, 4 cannot be read, 5 damaged or of a
/// newer schema, 6 whole but for another machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle's directory.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,

    /// Check the files only, not whether they fit this machine.
    #[arg(long)]
    files_only: bool,

    /// Table for people, JSON for programs.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    #[command(flatten)]
    tensorrt: TensorRtArgs,
}

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Ok,
    NotKnownHere,
    Differs,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    what: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let bundle = match Bundle::open(&self.bundle) {
            Ok(bundle) => bundle,
            Err(error) => return fail(exit_of(&error), &error),
        };
        let bar = Bar::bytes("verifying");
        let verified = bundle.verify(&mut |done, total| bar.set(done, total));
        bar.clear();
        if let Err(error) = verified {
            return fail(exit_of(&error), &error);
        }
        let manifest = bundle.manifest();
        let count = manifest.files.len();
        let mut checks = vec![
            ok(
                "files",
                format!("{count} files, sizes and SHA-256 as stated"),
            ),
            ok("manifest", format!("digest {}", manifest.digest)),
            ok("key", format!("{} is the hash of its inputs", manifest.key)),
            Check {
                what: "signature",
                verdict: Verdict::NotKnownHere,
                detail: if bundle.file(SIGNATURE).exists() {
                    "there is one; this version does not check it".to_owned()
                } else {
                    "none".to_owned()
                },
            },
        ];
        if !self.files_only {
            checks.extend(machine(
                &manifest.inputs,
                &probe::probe(),
                self.tensorrt_here(),
            ));
        }
        let differs = checks.iter().any(|check| check.verdict == Verdict::Differs);
        let printed = match self.output {
            Output::Table => out(&table(&checks)),
            Output::Json => match serde_json::to_string_pretty(&checks) {
                Ok(text) => out(&(text + "\n")),
                Err(error) => fail(Exit::Environment, &error),
            },
        };
        match printed {
            Exit::Ok if differs => fail(
                Exit::Mismatch,
                &"the engine was built for another machine: an engine is native code, build it here",
            ),
            printed => printed,
        }
    }

    /// TensorRT's version here, or why it is not known.
    fn tensorrt_here(&self) -> Result<String, String> {
        let library = tensorrt::load(&self.tensorrt.search());
        library
            .map(|library| library.version_in_key())
            .map_err(|error| error.to_string())
    }
}

fn ok(what: &'static str, detail: String) -> Check {
    Check {
        what,
        verdict: Verdict::Ok,
        detail,
    }
}

/// Compares what the engine was built for with what is here.
fn machine(inputs: &KeyInputs, hardware: &Hardware, library: Result<String, String>) -> [Check; 3] {
    let version = match (library, &hardware.software.tensorrt) {
        (Ok(version), _) => Ok(version),
        // Without a shim the package's version is what there is.
        (Err(_), Some(version)) => Ok(version.clone()),
        (Err(why), None) => Err(why),
    };
    let no_gpu = || "this machine has no GPU".to_owned();
    [
        compare("TensorRT", &inputs.tensorrt, version),
        compare::<Sm>("SM", &inputs.sm, hardware.sm().ok_or_else(no_gpu)),
        compare(
            "platform",
            &name(inputs.platform),
            hardware.platform().map(name).ok_or_else(no_gpu),
        ),
    ]
}

fn name(platform: Platform) -> String {
    format!("{platform:?}")
}

fn compare<T: PartialEq + std::fmt::Display>(
    what: &'static str,
    built: &T,
    here: Result<T, String>,
) -> Check {
    let (verdict, detail) = match here {
        Ok(here) if here == *built => (Verdict::Ok, format!("{built}, as here")),
        Ok(here) => (
            Verdict::Differs,
            format!("built for {built}, here is {here}"),
        ),
        Err(why) => (Verdict::NotKnownHere, format!("built for {built}; {why}")),
    };
    Check {
        what,
        verdict,
        detail,
    }
}

fn table(checks: &[Check]) -> String {
    let rows: Vec<(&str, String)> = checks
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::NotKnownHere => "not checked",
                Verdict::Differs => "DIFFERS",
            };
            (check.what, format!("{verdict:<12} {}", check.detail))
        })
        .collect();
    pairs(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Format;
    use crate::hardware::Gpu;

    fn inputs() -> KeyInputs {
        KeyInputs {
            model_digest: "ab".repeat(32),
            builder_version: "1".into(),
            format: Format::Int4,
            group: 64,
            slots: 1,
            max_input_tokens: 16,
            max_output_tokens: 16,
            chunk: 32,
            tensorrt: "rtx-1.6.1.120".into(),
            sm: Sm::new(8, 9),
            platform: Platform::X86,
        }
    }

    fn verdicts(checks: &[Check]) -> Vec<Verdict> {
        checks.iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn every_difference_to_this_machine_is_found() {
        let gpu = |sm| Hardware {
            gpu: Some(Gpu {
                name: "GPU".into(),
                sm: Some(sm),
                memory: None,
                free: None,
            }),
            ..Hardware::default()
        };
        let same = machine(&inputs(), &gpu(Sm::new(8, 9)), Ok("rtx-1.6.1.120".into()));
        assert_eq!(verdicts(&same), [Verdict::Ok; 3]);
        let other = machine(&inputs(), &gpu(Sm::new(9, 0)), Ok("rtx-1.6.1.121".into()));
        assert_eq!(
            verdicts(&other),
            [Verdict::Differs, Verdict::Differs, Verdict::Ok]
        );
        assert!(other[0].detail.contains("1.6.1.120") && other[0].detail.contains("1.6.1.121"));
    }

    #[test]
    fn what_is_not_known_here_is_said_and_no_difference() {
        let checks = machine(&inputs(), &Hardware::default(), Err("no shim".into()));
        assert_eq!(verdicts(&checks), [Verdict::NotKnownHere; 3]);
        assert!(checks[0].detail.contains("no shim"));
    }
}
