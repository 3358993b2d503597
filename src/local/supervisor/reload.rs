//! The YAML file: at the start and whenever it may have changed.

use super::super::config::{self, Served};
use super::super::model::Origin;
use super::Supervisor;

impl Supervisor {
    /// Reads the file again. A file that cannot be used changes nothing but the report.
    pub(super) fn reload(&mut self) {
        match config::load(&self.settings.file) {
            Ok(wanted) => {
                self.problems.file = None;
                if wanted == self.wanted {
                    return;
                }
                if wanted.revision == self.wanted.revision {
                    self.screen.say("the file has changed");
                } else {
                    self.screen.say(&format!(
                        "the file has changed: revision {}",
                        wanted.revision
                    ));
                }
                self.wanted = wanted;
                self.note_wanted();
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problems.file.as_deref() != Some(problem.as_str()) {
                    self.screen.say(&format!(
                        "{problem}\nWhat was read before stays in force. Correct the file."
                    ));
                }
                self.problems.file = Some(problem);
            }
        }
    }

    /// Makes the desired revision known.
    pub(super) fn note_wanted(&mut self) {
        let engine = &self.wanted.engine;
        let source = match &self.wanted.model_file {
            Some(file) => format!("file://{}", file.display()),
            None => engine.model.source.to_string(),
        };
        let origin = Origin {
            source,
            served: Served::of(engine),
            declared: engine.model.sha256.clone(),
        };
        let known = self.known.entry(self.wanted.revision.clone()).or_default();
        known.origin = Some(origin);
        // Revisions that are neither stored nor wanted any more are not known any more.
        let desired = &self.wanted.revision;
        self.known
            .retain(|id, known| id == desired || known.stored.is_some() || known.running.is_some());
    }
}
