//! What the operator must still know after it was restarted: the planner's durable part, the chosen
//! node, and what each revision on that node was made from. Kept in a `ConfigMap` of the resource, which
//! is written before what depends on it is done, and only over the version that was read.
//!
//! Not in the status: a status may be lost (a backup restored, an object re-created) and must be
//! derivable from what is observed; attempts that failed are not.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use super::names::{self, Component};
use super::workloads::{Kind, Object, Owner, Server, state_map};
use crate::api::RevisionId;
use crate::engine::Served;
use crate::model::ModelFacts;
use crate::planner::{Durable, SCHEMA_VERSION};

/// The key in the `ConfigMap`.
const KEY: &str = "state.json";

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// The planner's part.
    pub durable: Durable,
    /// The node that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What is in the node's cache.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revisions: BTreeMap<RevisionId, Stored>,
}

/// A revision whose model is in the cache, complete and with the right digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Where the model came from, for people.
    pub source: String,
    /// What an engine is started with.
    pub served: Served,
    /// Whose server runs it.
    pub server: Server,
    /// Digest of the model.
    pub sha256: String,
    /// What the model's file says of itself.
    pub facts: ModelFacts,
    /// Name of the engine's bundle, where one was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// UID of the claim it lies in: another claim under the same name is empty.
    pub claim_uid: String,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else wrote into it.
    #[error("the state in ConfigMap {name} cannot be read: {source}")]
    Damaged {
        /// Its name.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer operator wrote it.
    #[error("the state in ConfigMap {name} has version {found}, written by a newer operator")]
    Newer {
        /// Its name.
        name: String,
        /// The version found.
        found: u32,
    },
}

impl Saved {
    /// Reads it back; nothing was ever saved where there is no map.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read(map: Option<&ConfigMap>) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            durable: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Some(map) = map else {
            return Ok(Self::default());
        };
        let name = map.metadata.name.clone().unwrap_or_default();
        let Some(text) = map.data.as_ref().and_then(|data| data.get(KEY)) else {
            return Ok(Self::default());
        };
        let damaged = |source| StateError::Damaged {
            name: name.clone(),
            source,
        };
        // Its version first: a newer form need not have the fields of this one.
        let found = serde_json::from_str::<Versioned>(text)
            .map_err(damaged)?
            .durable
            .version;
        if found > SCHEMA_VERSION {
            return Err(StateError::Newer { name, found });
        }
        serde_json::from_str(text).map_err(damaged)
    }

    /// The map to write.
    pub fn object(&self, owner: &Owner) -> Object {
        // Strings, numbers and maps with string keys always serialise.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let map = state_map(
            owner,
            Component::State,
            names::state(&owner.name),
            (KEY, text),
        );
        Object::of(Kind::ConfigMap, &map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let mut saved = Saved {
            node: Some("a".to_owned()),
            ..Saved::default()
        };
        saved.durable.next_instance = 7;
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(Saved::read(Some(&map(&text))).unwrap(), saved);
        assert_eq!(Saved::read(None).unwrap(), Saved::default());
    }

    #[test]
    fn the_state_of_a_newer_operator_is_refused_whatever_else_it_holds() {
        let newer = r#"{"durable":{"version":99,"something":"else"}}"#;
        assert!(matches!(
            Saved::read(Some(&map(newer))),
            Err(StateError::Newer { found: 99, .. })
        ));
        assert!(matches!(
            Saved::read(Some(&map("{"))),
            Err(StateError::Damaged { .. })
        ));
    }
}
