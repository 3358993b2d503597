//! What rounding has cost: sums over weights, no more.

use half::f16;

/// What rounding has cost, over the weights of one encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Sum of the squares of the differences.
    pub squared_error: f64,
    /// Sum of the squares of the weights.
    pub squares: f64,
    /// Weights.
    pub elements: u64,
    /// Weights whose value is the same to the last bit, as 16-bit floating point.
    pub exact: u64,
}

impl Loss {
    /// Length of the difference over the length of the weights.
    pub fn relative(&self) -> f64 {
        if self.squares > 0.0 {
            (self.squared_error / self.squares).sqrt()
        } else {
            0.0
        }
    }

    /// Adds what another encoding cost.
    pub fn add(&mut self, other: &Self) {
        self.squared_error += other.squared_error;
        self.squares += other.squares;
        self.elements += other.elements;
        self.exact += other.exact;
    }

    /// Adds one weight and what it was rounded to.
    pub(super) fn count(&mut self, value: f32, rounded: f16) {
        let error = f64::from(value) - f64::from(rounded.to_f32());
        self.squared_error += error * error;
        self.squares += f64::from(value) * f64::from(value);
        self.elements += 1;
        self.exact += u64::from(f16::from_f32(value) == rounded);
    }
}
