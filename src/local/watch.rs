//! Notices that the YAML file may have changed. The folder is watched, not the file: editors and
//! Kubernetes replace files by renaming.

use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::event::{Event, Events};

/// Watches until the result is dropped. Where that is not possible SIGHUP is left.
pub fn watch(file: &Path, events: Events) -> Option<RecommendedWatcher> {
    let absolute = std::path::absolute(file).ok()?;
    let folder = absolute.parent()?.to_owned();
    let name = absolute.file_name()?.to_owned();
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // A linked folder (`..data`) that is replaced changes the file without naming it.
        let ours = event.paths.iter().any(|path| {
            path.file_name()
                .is_some_and(|changed| changed == name || changed == "..data")
        });
        if ours && !event.kind.is_access() {
            let _ended = events.send(Event::FileChanged);
        }
    };
    let watching = notify::recommended_watcher(handler).and_then(|mut watcher| {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watching {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the file is not watched; send SIGHUP after a change");
            None
        }
    }
}
