//! Flags for what sources of models demand, shared by `fetch` and `run`.

use std::path::PathBuf;

use crate::sources::{Access, Credentials, SourceError};

/// What sources of models demand.
#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// Folder with the credentials of the model's source, as a Secret is mounted: `token` for `hf://`
    /// and `https://`, `.dockerconfigjson` or `config.json` for `oci://` and `ollama://`.
    #[arg(long, value_name = "DIR", env = "ENGINEWRIGHT_CREDENTIALS")]
    credentials: Option<PathBuf>,

    /// Token for `hf://`, where no folder has one.
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    hf_token: Option<String>,

    /// Address of a mirror of Hugging Face, for resources without `model.endpoint`.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT")]
    hf_endpoint: Option<String>,
}

impl AccessArgs {
    /// Reads the files. A token of Hugging Face's is sent nowhere else.
    pub(super) fn access(self, endpoint: Option<String>) -> Result<Access, SourceError> {
        let mut credentials = match &self.credentials {
            Some(folder) => Credentials::read(folder)?,
            None => Credentials::default(),
        };
        if let Some(token) = self.hf_token {
            credentials = credentials.with_hub_token(&token);
        }
        Ok(Access {
            endpoint,
            hub: self.hf_endpoint.filter(|text| !text.is_empty()),
            credentials,
        })
    }
}
