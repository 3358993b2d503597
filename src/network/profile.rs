//! Optimisation profiles: within which bounds the changing sizes lie, and for which an engine is tuned.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Bindings, NetworkError, Symbol};

/// Bounds of one changing size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Bounds {
    /// The least, at least 1.
    pub min: i64,
    /// What kernels are chosen for.
    pub opt: i64,
    /// The most.
    pub max: i64,
}

impl Bounds {
    /// Exactly `size`.
    pub fn exactly(size: i64) -> Self {
        Self {
            min: size,
            opt: size,
            max: size,
        }
    }
}

/// Which corner of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// All sizes at their least (`kMIN`).
    Min,
    /// What it is tuned for (`kOPT`).
    Opt,
    /// All sizes at their most (`kMAX`).
    Max,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Min, Self::Opt, Self::Max];
}

/// One optimisation profile of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Unique, for example `decode`.
    pub name: String,
    /// Bounds of every changing size of the network.
    pub bounds: BTreeMap<Symbol, Bounds>,
}

impl Profile {
    /// A profile without bounds yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bounds: BTreeMap::new(),
        }
    }

    /// With bounds of `symbol`.
    #[must_use]
    pub fn with(mut self, symbol: Symbol, bounds: Bounds) -> Self {
        self.bounds.insert(symbol, bounds);
        self
    }

    /// The sizes at a corner.
    pub fn at(&self, point: Point) -> Bindings {
        let size = |bounds: &Bounds| match point {
            Point::Min => bounds.min,
            Point::Opt => bounds.opt,
            Point::Max => bounds.max,
        };
        self.bounds
            .iter()
            .fold(Bindings::default(), |sizes, (symbol, bounds)| {
                sizes.with(*symbol, size(bounds))
            })
    }

    /// Whether a run with `sizes` is within it: every size that it bounds is given and inside.
    pub fn admits(&self, sizes: &Bindings) -> bool {
        self.bounds.iter().all(|(symbol, bounds)| {
            let size = sizes.get(*symbol);
            size.is_some_and(|size| (bounds.min..=bounds.max).contains(&size))
        })
    }

    /// Checked against the sizes that the network has.
    pub(super) fn check(&self, used: &[Symbol]) -> Result<(), NetworkError> {
        let wrong = |problem: String| {
            Err(NetworkError::Profile {
                name: self.name.clone(),
                problem,
            })
        };
        for (symbol, bounds) in &self.bounds {
            let Bounds { min, opt, max } = *bounds;
            if !used.contains(symbol) {
                return wrong(format!("bounds {symbol}, which the network does not have"));
            }
            if min < 1 || opt < min || max < opt {
                return wrong(format!(
                    "bounds {symbol} by {min}, {opt}, {max}: needed is 1 ≤ min ≤ opt ≤ max"
                ));
            }
        }
        match used.iter().find(|symbol| !self.bounds.contains_key(symbol)) {
            Some(symbol) => wrong(format!("says nothing of the size {symbol}")),
            None => Ok(()),
        }
    }
}
