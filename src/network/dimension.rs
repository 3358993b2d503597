//! Sizes of tensors: whole numbers, named sizes that change from run to run, and what sums and
//! products make of them.
//!
//! A [`Dim`] is a polynomial with whole coefficients over the four [`Symbol`]s, kept in one normal
//! form, so that two sizes are equal exactly when they are equal for every run. It decides nothing
//! about tensors.

use std::collections::BTreeMap;

use serde::Serialize;

/// A size that is chosen for each run of the network, within the bounds of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Symbol {
    /// Sequences (slots) of a run.
    Batch,
    /// New tokens of each sequence, padding included.
    Sequence,
    /// Tokens of the cache that attention looks at: the bucket.
    Context,
    /// Rows of logits wanted.
    Rows,
}

impl Symbol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Batch, Self::Sequence, Self::Context, Self::Rows];

    /// The name in shapes and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Sequence => "sequence",
            Self::Context => "context",
            Self::Rows => "rows",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Batch => 0,
            Self::Sequence => 1,
            Self::Context => 2,
            Self::Rows => 3,
        }
    }
}

impl std::fmt::Display for Symbol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Powers of the symbols in one term, in the order of [`Symbol::ALL`].
type Powers = [u8; 4];

const CONSTANT: Powers = [0; 4];

/// One summand of a [`Dim`]: `coefficient` times the symbols, each as often as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The whole number, never 0.
    pub coefficient: i64,
    /// The symbols, in order, repeated for powers; empty for the constant term.
    pub symbols: Vec<Symbol>,
}

/// A size: a whole number, a symbol, or sums and products of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    /// Coefficients by powers; no coefficient is 0.
    terms: BTreeMap<Powers, i64>,
}

impl Dim {
    /// The whole number `size`.
    pub fn fixed(size: i64) -> Self {
        Self::term(CONSTANT, size)
    }

    /// The size named `symbol`.
    pub fn symbol(symbol: Symbol) -> Self {
        let mut powers = CONSTANT;
        powers[symbol.index()] = 1;
        Self::term(powers, 1)
    }

    fn term(powers: Powers, coefficient: i64) -> Self {
        let terms = (coefficient != 0).then_some((powers, coefficient));
        Self {
            terms: terms.into_iter().collect(),
        }
    }

    /// The sum; `None` when a coefficient does not fit into 64 bits.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut terms = self.terms.clone();
        for (&powers, &coefficient) in &other.terms {
            let sum = terms.get(&powers).unwrap_or(&0).checked_add(coefficient)?;
            terms.insert(powers, sum);
        }
        terms.retain(|_, coefficient| *coefficient != 0);
        Some(Self { terms })
    }

    /// The product; `None` when a coefficient or a power does not fit.
    pub fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Self::fixed(0);
        for (left, a) in &self.terms {
            for (right, b) in &other.terms {
                let mut powers = CONSTANT;
                for (power, (x, y)) in powers.iter_mut().zip(left.iter().zip(right)) {
                    *power = x.checked_add(*y)?;
                }
                product = product.plus(&Self::term(powers, a.checked_mul(*b)?))?;
            }
        }
        Some(product)
    }

    /// The product of `sizes`; `None` as for [`Dim::times`].
    pub fn product<'a>(sizes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut sizes = sizes.into_iter();
        sizes.try_fold(Self::fixed(1), |product, size| product.times(size))
    }

    /// The number, when it is the same in every run.
    pub fn as_fixed(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&CONSTANT).copied(),
            _ => None,
        }
    }

    /// The symbol, when the size is exactly one symbol.
    pub fn as_symbol(&self) -> Option<Symbol> {
        Symbol::ALL
            .into_iter()
            .find(|symbol| *self == Self::symbol(*symbol))
    }

    /// Whether `symbol` occurs in it.
    pub fn contains(&self, symbol: Symbol) -> bool {
        self.terms.keys().any(|powers| powers[symbol.index()] > 0)
    }

    /// Whether it is at least `least` whatever the symbols are, all being at least 1: every
    /// coefficient is positive and their sum reaches `least`.
    pub fn is_at_least(&self, least: i64) -> bool {
        let sum = self
            .terms
            .values()
            .try_fold(0_i64, |sum, one| sum.checked_add(*one));
        self.terms.values().all(|coefficient| *coefficient > 0)
            && sum.is_none_or(|sum| sum >= least)
    }

    /// Its summands, for a lowering that computes it at run time.
    pub fn terms(&self) -> Vec<Term> {
        self.terms
            .iter()
            .map(|(powers, &coefficient)| Term {
                coefficient,
                symbols: Symbol::ALL
                    .into_iter()
                    .flat_map(|one| std::iter::repeat_n(one, powers[one.index()].into()))
                    .collect(),
            })
            .collect()
    }

    /// Its value in a run; `None` when a symbol has no value there or the result does not fit.
    pub fn evaluate(&self, sizes: &Bindings) -> Option<i64> {
        self.terms().iter().try_fold(0_i64, |sum, term| {
            let mut product = term.coefficient;
            for symbol in &term.symbols {
                product = product.checked_mul(sizes.get(*symbol)?)?;
            }
            sum.checked_add(product)
        })
    }
}

impl From<i64> for Dim {
    fn from(size: i64) -> Self {
        Self::fixed(size)
    }
}

impl From<u32> for Dim {
    fn from(size: u32) -> Self {
        Self::fixed(size.into())
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Self {
        Self::symbol(symbol)
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let terms = self.terms();
        if terms.is_empty() {
            return formatter.write_str("0");
        }
        // Symbols before the constant: "sequence + 1".
        for (index, term) in terms.iter().rev().enumerate() {
            if index > 0 {
                formatter.write_str(" + ")?;
            }
            if term.coefficient != 1 || term.symbols.is_empty() {
                write!(formatter, "{}", term.coefficient)?;
            }
            for (place, symbol) in term.symbols.iter().enumerate() {
                let times = place > 0 || term.coefficient != 1;
                write!(formatter, "{}{symbol}", if times { "·" } else { "" })?;
            }
        }
        Ok(())
    }
}

/// The sizes of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings([Option<i64>; 4]);

impl Bindings {
    /// These sizes, and `symbol` is `size`.
    #[must_use]
    pub fn with(mut self, symbol: Symbol, size: i64) -> Self {
        self.0[symbol.index()] = Some(size);
        self
    }

    /// The size of `symbol`, if it has one.
    pub fn get(&self, symbol: Symbol) -> Option<i64> {
        self.0[symbol.index()]
    }
}

/// The sizes of a tensor along its axes, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape of `sizes`.
    pub fn new(sizes: impl IntoIterator<Item = Dim>) -> Self {
        Self(sizes.into_iter().collect())
    }

    /// A shape that is the same in every run.
    pub fn fixed(sizes: &[i64]) -> Self {
        Self::new(sizes.iter().map(|size| Dim::fixed(*size)))
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; `None` when it does not fit.
    pub fn elements(&self) -> Option<Dim> {
        Dim::product(&self.0)
    }

    /// The sizes, when all are the same in every run.
    pub fn as_fixed(&self) -> Option<Vec<i64>> {
        self.0.iter().map(Dim::as_fixed).collect()
    }

    /// The sizes in a run; `None` as for [`Dim::evaluate`].
    pub fn evaluate(&self, sizes: &Bindings) -> Option<Vec<i64>> {
        self.0.iter().map(|size| size.evaluate(sizes)).collect()
    }

    /// The sizes with -1 for the only one that changes, as a static reshape wants them; `None` when
    /// more than one changes.
    pub fn with_one_wildcard(&self) -> Option<Vec<i64>> {
        let changing = self.0.iter().filter(|size| size.as_fixed().is_none());
        (changing.count() <= 1).then(|| {
            let sizes = self.0.iter();
            sizes.map(|size| size.as_fixed().unwrap_or(-1)).collect()
        })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(Dim::to_string).collect();
        write!(formatter, "[{}]", sizes.join(", "))
    }
}

/// A shape from sizes of different kinds: `shape![Symbol::Batch, 4, dim]`.
macro_rules! shape {
    ($($size:expr),* $(,)?) => {
        $crate::network::Shape(vec![$($crate::network::Dim::from($size.clone())),*])
    };
}
pub(crate) use shape;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Dim {
        Symbol::Batch.into()
    }

    fn sequence() -> Dim {
        Symbol::Sequence.into()
    }

    #[test]
    fn sums_and_products_have_one_normal_form() {
        let tokens = batch().times(&sequence()).unwrap();
        assert_eq!(tokens, sequence().times(&batch()).unwrap());
        let left = tokens.plus(&Dim::fixed(2)).unwrap().plus(&tokens).unwrap();
        let right = Dim::fixed(2)
            .plus(&tokens.times(&Dim::fixed(2)).unwrap())
            .unwrap();
        assert_eq!(left, right);
        assert_eq!(left.to_string(), "2·batch·sequence + 2");
        assert_ne!(batch(), sequence());
        assert_eq!(batch().plus(&Dim::fixed(0)).unwrap(), batch());
        assert_eq!(batch().times(&Dim::fixed(0)).unwrap(), Dim::fixed(0));
    }

    #[test]
    fn values_follow_the_sizes_of_the_run() {
        let size = batch().times(&sequence()).unwrap().plus(&batch()).unwrap();
        let run = Bindings::default()
            .with(Symbol::Batch, 3)
            .with(Symbol::Sequence, 5);
        assert_eq!(size.evaluate(&run), Some(18));
        assert_eq!(Dim::symbol(Symbol::Context).evaluate(&run), None);
        assert_eq!(Dim::fixed(7).evaluate(&Bindings::default()), Some(7));
    }

    #[test]
    fn what_does_not_fit_into_64_bits_is_none_and_no_panic() {
        let large = Dim::fixed(i64::MAX);
        assert_eq!(large.plus(&Dim::fixed(1)), None);
        assert_eq!(large.times(&Dim::fixed(2)), None);
        let run = Bindings::default().with(Symbol::Batch, 2);
        assert_eq!(large.times(&batch()).unwrap().evaluate(&run), None);
        let mut power = batch();
        let mut steps = 0;
        while let Some(next) = power.times(&power) {
            power = next;
            steps += 1;
        }
        assert_eq!(steps, 7, "256 does not fit into the power of a term");
    }

    #[test]
    fn a_reshape_with_one_changing_size_needs_no_shape_tensor() {
        let one = shape![2_i64, Symbol::Sequence, 64_i64];
        assert_eq!(one.with_one_wildcard(), Some(vec![2, -1, 64]));
        let two = shape![Symbol::Batch, Symbol::Sequence];
        assert_eq!(two.with_one_wildcard(), None);
        assert_eq!(shape![3_i64, 4_i64].with_one_wildcard(), Some(vec![3, 4]));
    }
}
