//! Which file of a repository is meant.

/// Most names of files in a message.
const NAMED: usize = 8;

/// Why no file of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// The one named is not there.
    #[error("{repository} has no file {wanted} at this revision; it has {has}")]
    Missing {
        /// The repository.
        repository: String,
        /// The file named.
        wanted: String,
        /// What it has.
        has: String,
    },
    /// None is.
    #[error("{repository} has no GGUF file at this revision; name a repository that has one")]
    None {
        /// The repository.
        repository: String,
    },
    /// Several are.
    #[error(
        "{repository} has several GGUF files; write #FILE behind the revision, with one of {has}"
    )]
    Several {
        /// The repository.
        repository: String,
        /// Their names.
        has: String,
    },
    /// It is one of several pieces.
    #[error("{wanted} is one of several pieces of a model; choose a model that is one file")]
    Piece {
        /// The file.
        wanted: String,
    },
}

/// The file that is meant: the one named, or the only GGUF file of `names`.
///
/// # Errors
/// [`ChoiceError`], which names what could be written.
pub fn choose<'a>(
    repository: &str,
    names: &[&'a str],
    wanted: Option<&str>,
) -> Result<&'a str, ChoiceError> {
    let repository = repository.to_owned();
    let models: Vec<&str> = names.iter().copied().filter(|name| is_gguf(name)).collect();
    let has = || {
        let mut has = models
            .iter()
            .take(NAMED)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        if models.len() > NAMED {
            has.push_str(", …");
        }
        if has.is_empty() {
            "none".to_owned()
        } else {
            has
        }
    };
    let chosen = match (wanted, models.as_slice()) {
        (Some(wanted), _) => names
            .iter()
            .copied()
            .find(|name| *name == wanted)
            .ok_or_else(|| ChoiceError::Missing {
                repository,
                wanted: wanted.to_owned(),
                has: has(),
            })?,
        (None, [one]) => *one,
        (None, []) => return Err(ChoiceError::None { repository }),
        (None, _) => {
            return Err(ChoiceError::Several {
                repository,
                has: has(),
            });
        }
    };
    if is_piece(chosen) {
        return Err(ChoiceError::Piece {
            wanted: chosen.to_owned(),
        });
    }
    Ok(chosen)
}

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// `model-00001-of-00003.gguf`.
fn is_piece(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let mut words = stem.rsplit('-');
    let number = |word: Option<&str>| {
        word.is_some_and(|word| word.len() == 5 && word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    number(words.next()) && words.next() == Some("of") && number(words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_model_of_a_repository_is_meant() {
        let names = ["README.md", "m.Q4_K_M.gguf"];
        assert_eq!(choose("a/b", &names, None), Ok("m.Q4_K_M.gguf"));
        assert_eq!(choose("a/b", &names, Some("README.md")), Ok("README.md"));
    }

    #[test]
    fn of_several_one_must_be_named() {
        let names = ["q4.gguf", "sub/q8.gguf"];
        assert_eq!(
            choose("a/b", &names, Some("sub/q8.gguf")),
            Ok("sub/q8.gguf")
        );
        let error = choose("a/b", &names, None).unwrap_err().to_string();
        assert!(error.contains("q4.gguf, sub/q8.gguf"), "{error}");
        let error = choose("a/b", &names, Some("x.gguf"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("x.gguf") && error.contains("q4.gguf"),
            "{error}"
        );
        let none = choose("a/b", &["model.safetensors"], None);
        assert!(matches!(none, Err(ChoiceError::None { .. })));
    }

    #[test]
    fn pieces_are_no_model() {
        let names = ["m-00001-of-00003.gguf"];
        assert!(matches!(
            choose("a/b", &names, None),
            Err(ChoiceError::Piece { .. })
        ));
        assert!(!is_piece("m-1-of-2.gguf"));
        assert!(!is_piece("of.gguf"));
    }
}
