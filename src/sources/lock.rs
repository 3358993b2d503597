//! One fetch at a time into a folder of downloads: two of the same model would write one file, and
//! the second finds what the first has brought.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Progress, SourceError};

/// Name of the file that is locked. It is never deleted: who waits for a deleted file waits alone.
pub(super) const NAME: &str = ".lock";
/// Between two looks at a folder that is locked.
const LOOK: Duration = Duration::from_millis(200);
/// Ending of what is not whole yet.
const PARTIAL: &str = "partial";

/// Given back when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    folder: PathBuf,
}

impl Lock {
    /// Waits for the folder. While somebody else's transfer moves, that is reported as progress.
    pub(super) async fn of(folder: &Path, progress: &Progress) -> Result<Self, SourceError> {
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(NAME))?;
        let mut waits = false;
        let mut last = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {}
            }
            if !waits {
                waits = true;
                tracing::info!(folder = %folder.display(), "another fetch is at work; waiting for it");
            }
            let bytes = partials(folder).filter_map(|path| path.metadata().ok());
            let bytes: u64 = bytes.map(|metadata| metadata.len()).sum();
            if bytes != last {
                last = bytes;
                progress(bytes, None);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Self {
            _file: file,
            folder: folder.to_owned(),
        })
    }

    /// Deletes what transfers left that nobody goes on with, now that `brought` is there.
    pub(super) fn sweep(&self, brought: &Path) {
        for left in partials(&self.folder).filter(|path| path != brought) {
            if let Err(error) = std::fs::remove_file(&left) {
                tracing::warn!(file = %left.display(), %error, "a broken transfer stays");
            }
        }
    }
}

fn partials(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == PARTIAL))
}
