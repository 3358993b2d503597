//! Replacing a file so that a crash or a power cut at any moment leaves the old one or the new one,
//! never a part.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Begin of the names of files that are being written.
const TEMPORARY: &str = ".writing-";

/// Writes `bytes` to a temporary file beside `path`, brings them to the disk, renames it over `path`
/// and brings the rename to the disk.
///
/// # Errors
/// What the file system says; `path` is then what it was.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = parent(path);
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Renames a finished temporary folder or file to its final name and brings that to the disk. What
/// is inside must have been brought there before.
///
/// # Errors
/// What the file system says.
pub fn publish(temporary: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(temporary, path)?;
    sync_folder(parent(path))
}

/// Brings the names in a folder to the disk.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A new temporary folder in `folder`, removed when dropped before it was published, and by the next
/// start when even that did not happen.
///
/// # Errors
/// What the file system says.
pub fn temporary_folder(folder: &Path) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(folder)
}

/// Removes what a crash left half-written in `folder` and its sub-folders of the first level. The
/// caller holds the lock, so nothing of it is being written now.
pub fn remove_leftovers(folder: &Path) {
    let sub_folders = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    for folder in sub_folders.chain([folder.to_owned()]) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let path = entry.path();
                // What cannot be removed wastes space and breaks nothing.
                let _kept = match entry.file_type() {
                    Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(path),
                    _ => std::fs::remove_file(path),
                };
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // A folder with something in it cannot be replaced by a file.
        std::fs::create_dir_all(path.join("inside")).unwrap();
        write(&path, b"new").unwrap_err();
        assert_eq!(names(folder.path()), ["x"]);
        assert!(path.join("inside").is_dir());
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("revisions");
        std::fs::create_dir_all(sub.join(".writing-abc/x")).unwrap();
        std::fs::write(folder.path().join(".writing-def"), "").unwrap();
        std::fs::write(sub.join("kept"), "").unwrap();
        remove_leftovers(folder.path());
        assert_eq!(names(folder.path()), ["revisions"]);
        assert_eq!(names(&sub), ["kept"]);
    }
}
