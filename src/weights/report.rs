//! What rounding a model's weights has cost, as the bundle's manifest and people are told. Arithmetic
//! only: where inputs come from, and what runs the model, is the caller's.

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::quantise::Rounding;

/// Costs of one number format on one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoundingReport {
    /// Number format, for example `INT4, blocks of 64`.
    pub format: String,
    /// How scales were chosen.
    pub rounding: Rounding,
    /// Over all weights of linear layers: length of the difference over the length of the weights.
    pub weight_error: f64,
    /// Each weight.
    pub weights: Vec<WeightReport>,
    /// The whole model on a text, where it was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<Perplexity>,
}

/// Costs in one weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightReport {
    /// Its name.
    pub name: String,
    /// Length of the difference over the length of the weight.
    pub weight_error: f64,
    /// Length of the difference of the outputs over the length of the outputs, on calibration inputs;
    /// absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
}

/// How well a model predicts a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Perplexity {
    /// Which text: SHA-256, hexadecimal.
    pub text_sha256: String,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Exponential of the mean of the negative logarithms, with the rounded weights.
    pub rounded: f64,
    /// The same with 16-bit weights.
    pub reference: f64,
}

impl RoundingReport {
    /// A report from the losses of each weight.
    pub fn new(
        format: impl Into<String>,
        rounding: Rounding,
        losses: impl IntoIterator<Item = (String, Loss)>,
    ) -> Self {
        let mut all = Loss::default();
        let weights = losses
            .into_iter()
            .map(|(name, loss)| {
                all.add(&loss);
                WeightReport {
                    name,
                    weight_error: loss.relative(),
                    output_error: None,
                }
            })
            .collect();
        Self {
            format: format.into(),
            rounding,
            weight_error: all.relative(),
            weights,
            perplexity: None,
        }
    }

    /// The weight whose outputs, or else whose values, differ most.
    pub fn worst(&self) -> Option<&WeightReport> {
        let error = |one: &WeightReport| one.output_error.unwrap_or(one.weight_error);
        self.weights
            .iter()
            .max_by(|a, b| error(a).total_cmp(&error(b)))
    }
}

/// Mean and squares of what two versions of a linear layer answer to the same inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutputError {
    squared_error: f64,
    squares: f64,
}

impl OutputError {
    /// Adds some outputs (rows of the weight): `weights` and `rounded` are `[rows, columns]`,
    /// `inputs` are `[tokens, columns]`.
    pub fn add(&mut self, weights: &[f32], rounded: &[f32], inputs: &[f32], columns: usize) {
        let rows = weights
            .chunks_exact(columns)
            .zip(rounded.chunks_exact(columns));
        for (weights, rounded) in rows {
            for input in inputs.chunks_exact(columns) {
                let (mut output, mut difference) = (0.0_f32, 0.0_f32);
                for ((&weight, &rounded), &input) in weights.iter().zip(rounded).zip(input) {
                    output += weight * input;
                    difference += (weight - rounded) * input;
                }
                self.squares += f64::from(output) * f64::from(output);
                self.squared_error += f64::from(difference) * f64::from(difference);
            }
        }
    }

    /// Length of the difference over the length of the outputs.
    pub fn relative(&self) -> f64 {
        if self.squares > 0.0 {
            (self.squared_error / self.squares).sqrt()
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_outputs_is_relative_to_the_outputs() {
        let mut error = OutputError::default();
        // Outputs 3 and 1 of the one input, both off by a tenth.
        error.add(&[1.0, 2.0, 0.0, 1.0], &[1.1, 2.0, 0.1, 1.0], &[1.0, 1.0], 2);
        let expected = (2.0 * 0.01_f64 / 10.0).sqrt();
        assert!((error.relative() - expected).abs() < 1e-6, "{error:?}");
        assert_eq!(OutputError::default().relative(), 0.0);
    }

    #[test]
    fn a_report_adds_up_names_the_worst_and_survives_the_manifest() {
        let loss = |squared_error, squares| Loss {
            squared_error,
            squares,
            elements: 4,
            exact: 1,
        };
        let losses = [
            ("a".to_owned(), loss(1.0, 100.0)),
            ("b".to_owned(), loss(3.0, 300.0)),
        ];
        let mut report = RoundingReport::new("INT8", Rounding::LeastSquares, losses);
        assert!((report.weight_error - 0.1).abs() < 1e-12);
        report.weights[0].output_error = Some(0.2);
        report.weights[1].output_error = Some(0.3);
        assert_eq!(report.worst().unwrap().name, "b");
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("perplexity"), "{text}");
        assert_eq!(
            serde_json::from_str::<RoundingReport>(&text).unwrap(),
            report
        );
    }
}
