//! One resource with all that is known about it: what observation, decision and report look at.

use super::names;
use super::node::Chosen;
use super::state::{Saved, Stored};
use super::workloads::{Owner, Server, Site, is_allowed};
use super::world::World;
use crate::api::{EnginePolicy, Ollama, Reason, RevisionId, RuntimeServer, ValidatedEngine};
use crate::engine::{Fit, Served, fit};
use crate::hardware::Sm;
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

/// What engines are built and run with on the node's GPU.
#[derive(Clone, Copy, Debug)]
pub struct TensorRt<'a> {
    /// Image of this program with the shim.
    pub image: &'a str,
    /// Runtime class of the GPU.
    pub runtime_class: &'a str,
    /// Compute capability of the GPU.
    pub sm: Sm,
}

impl View<'_> {
    /// TensorRT, where the node has it and the operator was told of an image for it.
    pub fn tensorrt(&self) -> Option<TensorRt<'_>> {
        let node = self.node?;
        node.hardware.software.tensorrt.as_ref()?;
        Some(TensorRt {
            image: self.site.tensorrt_image.as_deref()?,
            runtime_class: node.runtime_class.as_deref()?,
            sm: node.hardware.sm()?,
        })
    }

    /// Whether a revision runs on the GPU: one that an engine was built for, and the desired one where
    /// it wants one. What was proven on the processor stays there.
    pub fn on_gpu(&self, revision: &RevisionId) -> bool {
        let stored = self.stored(revision);
        let wanted = *revision == self.engine.revision()
            && self.engine.engine.policy != EnginePolicy::Never
            && matches!(self.engine.runtime.server, RuntimeServer::Native);
        let foreign = stored.is_some_and(|one| matches!(one.server, Server::Image { .. }));
        let built = stored.is_some_and(|one| one.bundle.is_some());
        self.tensorrt().is_some() && !foreign && (built || wanted)
    }

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
    pub fn fit(&self, revision: &RevisionId, stored: &Stored) -> Option<Fit> {
        let on_gpu = self.on_gpu(revision);
        let request = stored.served.request_for(self.engine, on_gpu);
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
            .and_then(|(id, stored)| self.fit(&id, stored))
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
