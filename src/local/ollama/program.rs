//! Which program Ollama is on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::api::Reason;
use crate::planner::{Failure, transient};

/// The program `ollama`: the one named, else the first in `path`.
///
/// # Errors
/// A failure that says how to get one.
pub fn find_program(named: Option<&Path>, path: Option<&OsString>) -> Result<PathBuf, Failure> {
    let missing = |text: String| {
        transient(
            Reason::FallbackUnavailable,
            &format!(
                "{text}; install it from https://ollama.com, or name it with --ollama FILE, or set \
                 spec.fallback.ollama.address."
            ),
        )
    };
    if let Some(named) = named {
        return if is_program(named) {
            Ok(named.to_owned())
        } else {
            Err(missing(format!(
                "There is no program at {}",
                named.display()
            )))
        };
    }
    path.into_iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join("ollama"))
        .find(|program| is_program(program))
        .ok_or_else(|| missing("Ollama is not in PATH".to_owned()))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ollama_is_said_with_how_to_get_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = OsString::from(folder.path());
        let failure = find_program(None, Some(&path)).unwrap_err();
        assert!(failure.transient && failure.message.contains("--ollama"));
        std::fs::write(folder.path().join("ollama"), "not executable").unwrap();
        find_program(None, Some(&path)).unwrap_err();
        let named = find_program(Some(Path::new("/no/ollama")), Some(&path)).unwrap_err();
        assert!(named.message.contains("/no/ollama"), "{}", named.message);
        assert_eq!(
            find_program(Some(Path::new("/bin/sh")), None).unwrap(),
            Path::new("/bin/sh")
        );
    }
}
