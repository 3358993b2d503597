//! `enginewright crds`: prints the custom resource definitions, or writes them to files.

use std::path::PathBuf;

use super::{Exit, fail, out};
use crate::api::{all_crds, file_name, to_yaml};

/// Print the custom resource definitions as YAML, for `kubectl apply --server-side -f -`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write one file for each definition into this directory instead.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let Self { dir } = self;
        let mut documents = Vec::new();
        for crd in all_crds() {
            match to_yaml(&crd) {
                Ok(yaml) => documents.push((file_name(&crd), yaml)),
                Err(error) => return fail(Exit::Environment, &error),
            }
        }
        let Some(dir) = dir else {
            let yaml: Vec<String> = documents.into_iter().map(|(_, yaml)| yaml).collect();
            return out(&yaml.join("---\n"));
        };
        for (name, yaml) in documents {
            let path = dir.join(name);
            if let Err(error) = std::fs::write(&path, yaml) {
                let message = format!("cannot write {}: {error}", path.display());
                return fail(Exit::Environment, &message);
            }
        }
        Exit::Ok
    }
}
