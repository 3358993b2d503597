//! One resource with all that is known about it: what observation, decision and report look at.

use super::names;
use super::node::Chosen;
use super::state::{Saved, Stored};
use super::workloads::{Owner, Server, Site, is_allowed};
use super::world::World;
use crate::api::{Ollama, Reason, RevisionId, RuntimeServer, ValidatedEngine};
use crate::engine::{Fit, Served, fit};
use crate::planner::Lifecycle;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the operator was told.
    pub site: &'a Site,
    /// The resource.
    pub owner: &'a Owner,
    /// Its spec.
    pub engine: &'a ValidatedEngine,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What exists.
    pub world: &'a World,
    /// What is remembered.
    pub saved: &'a Saved,
    /// The node that serves.
    pub node: Option<&'a Chosen>,
}

impl View<'_> {
    /// What is wanted of the whole.
    pub fn lifecycle(&self) -> Lifecycle {
        match (self.deleting, self.engine.suspend) {
            (true, _) => Lifecycle::Remove,
            (false, true) => Lifecycle::Suspended,
            (false, false) => Lifecycle::Run,
        }
    }

    /// Name of the claim of the node's cache.
    pub fn claim_name(&self) -> Option<String> {
        let node = self.node?;
        Some(names::cache(&self.owner.name, &node.name))
    }

    /// A revision whose model is in the node's cache, in the very claim it was written to.
    pub fn stored(&self, revision: &RevisionId) -> Option<&Stored> {
        let claim = self.world.claim(&self.claim_name()?)?;
        let stored = self.saved.revisions.get(revision)?;
        (claim.metadata.uid.as_deref() == Some(stored.claim_uid.as_str())).then_some(stored)
    }

    /// All of them.
    pub fn all_stored(&self) -> impl Iterator<Item = (&RevisionId, &Stored)> {
        self.saved
            .revisions
            .iter()
            .filter(|(id, _)| self.stored(id).is_some())
    }

    /// Whether a revision fits on the node.
    pub fn fit(&self, stored: &Stored) -> Option<Fit> {
        let request = stored.served.request(self.engine);
        Some(fit(&self.node?.hardware, &stored.facts, &request))
    }

    /// The server that the spec asks for, and whether it may run here.
    ///
    /// # Errors
    /// What a person must do.
    pub fn server(&self) -> Result<Server, (Reason, String)> {
        let RuntimeServer::Image(image) = &self.engine.runtime.server else {
            return Ok(Server::Native {
                image: self.site.image.clone(),
            });
        };
        if !is_allowed(&image.image, &self.site.allowed_images) {
            return Err((Reason::SpecInvalid, not_allowed(&image.image)));
        }
        Ok(Server::Image {
            image: image.image.clone(),
            command: image.command.clone(),
            args: image.args.clone(),
            env: image
                .env
                .iter()
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect(),
            port: image.port,
            health_path: image.health_path.clone(),
            model_name: image.model_name.clone(),
            pull_secret: image.pull_secret.as_ref().map(|secret| secret.name.clone()),
        })
    }

    /// The image of the managed fallback.
    ///
    /// # Errors
    /// What a person must do.
    pub fn ollama_image(&self) -> Result<String, (Reason, String)> {
        match &self.engine.fallback.ollama {
            Some(Ollama::Managed {
                image: Some(image), ..
            }) if !is_allowed(image, &self.site.allowed_images) => {
                Err((Reason::FallbackUnavailable, not_allowed(image)))
            }
            Some(Ollama::Managed {
                image: Some(image), ..
            }) => Ok(image.clone()),
            _ => Ok(self.site.ollama_image.clone()),
        }
    }

    /// The arguments of the revision that the spec asks for.
    pub fn served(&self) -> Served {
        Served::of(self.engine)
    }

    /// The revision whose model the fallback serves: one that has proven itself, if there is one.
    pub fn fallback_revision(&self) -> Option<(RevisionId, &Stored)> {
        let durable = &self.saved.durable;
        [
            durable.last_good.clone(),
            durable.active.clone(),
            Some(self.engine.revision()),
        ]
        .into_iter()
        .flatten()
        .find_map(|id| self.stored(&id).map(|stored| (id.clone(), stored)))
    }

    /// Memory of the fallback with its model loaded; 0 while that is not known.
    pub fn fallback_bytes(&self) -> u64 {
        self.fallback_revision()
            .and_then(|(_, stored)| self.fit(stored))
            .and_then(|fit| fit.fallback)
            .map_or(0, |fallback| fallback.serving.bytes.0)
    }
}

fn not_allowed(image: &str) -> String {
    format!(
        "The image {image} is not on the allow-list of the operator. Ask for it to be added to \
         allowedImages in the operator's installation, or use another image."
    )
}
