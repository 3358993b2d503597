//! One mistake in a resource, said so that it can be corrected without looking anything up.

use std::fmt;

/// One mistake: where, what was found, what is allowed, what to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// Where: `spec.engine.precision`, or `line 3, column 7` where the file is no YAML.
    pub path: String,
    /// What is there, shortened; empty where nothing is.
    pub found: String,
    /// What is allowed there.
    pub allowed: String,
    /// What to write.
    pub fix: String,
}

impl Problem {
    /// Longest `found` in characters; more is cut.
    const MAX_FOUND: usize = 80;

    /// A mistake at `path`, where `found` is.
    pub fn new(
        path: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let mut found: String = found.into();
        if let Some((cut, _)) = found.char_indices().nth(Self::MAX_FOUND) {
            found.truncate(cut);
            found.push('…');
        }
        Self {
            path: path.into(),
            found,
            allowed: allowed.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if self.found.is_empty() {
            f.write_str("missing")?;
        } else {
            write!(f, "found {}", self.found)?;
        }
        write!(f, "; {}", self.allowed)?;
        if self.fix.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.fix)
    }
}

impl std::error::Error for Problem {}
