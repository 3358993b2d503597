//! Which recorded shapes are kept: as many as are allowed, those used last. Pure.

use std::collections::BTreeMap;

use super::Shape;

/// When each shape was used.
#[derive(Clone, Debug)]
pub struct Recent {
    most: usize,
    used: BTreeMap<Shape, u64>,
    ticks: u64,
}

impl Recent {
    /// For at most `most` shapes.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            used: BTreeMap::new(),
            ticks: 0,
        }
    }

    /// `shape` is used now. Returns the shape that must go, if that makes one too many.
    pub fn used(&mut self, shape: Shape) -> Option<Shape> {
        self.ticks += 1;
        self.used.insert(shape, self.ticks);
        if self.used.len() <= self.most {
            return None;
        }
        let oldest = self.used.iter().min_by_key(|(_, tick)| **tick);
        let oldest = oldest.map(|(shape, _)| *shape)?;
        self.used.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(first: u32) -> Shape {
        Shape {
            profile: 1,
            tokens: 64,
            bucket: 256,
            first,
            rows: 1,
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.used(shape(0)), None);
        assert_eq!(recent.used(shape(1)), None);
        assert_eq!(recent.used(shape(0)), None);
        assert_eq!(recent.used(shape(2)), Some(shape(1)));
        assert_eq!(recent.used(shape(2)), None);
        assert_eq!(recent.used(shape(1)), Some(shape(0)));
    }
}
