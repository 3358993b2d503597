//! What every request for tokens says about the answer, whatever it is asked with.

use std::collections::BTreeMap;

/// How tokens are drawn and when the answer ends, as a client wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// See the requests.
    pub temperature: Option<f32>,
    /// See the requests.
    pub top_p: Option<f32>,
    /// See the requests.
    pub top_k: Option<u32>,
    /// See the requests.
    pub min_p: Option<f32>,
    /// See the requests.
    pub presence_penalty: Option<f32>,
    /// See the requests.
    pub frequency_penalty: Option<f32>,
    /// See the requests.
    pub repetition_penalty: Option<f32>,
    /// See the requests.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// See the requests.
    pub seed: Option<i64>,
}

/// Declares a request: its own fields, and those that all have. Not a flattened struct, because
/// below `flatten` serde forgets which field was wrong, and the client must be told.
macro_rules! generation_request {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$field_about:meta])* pub $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $kind,)*
            /// The served name; absent: the one that is served.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub model: Option<String>,
            /// Answer as server-sent events.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stream: Option<bool>,
            /// See [`super::StreamOptions`].
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stream_options: Option<super::StreamOptions>,
            /// 0..=2; 0 is greedy.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub temperature: Option<f32>,
            /// Nucleus sampling, (0, 1].
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub top_p: Option<f32>,
            /// Only the k most probable tokens (an extension).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub top_k: Option<u32>,
            /// Only tokens this probable relative to the best (an extension).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_p: Option<f32>,
            /// -2..=2.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub presence_penalty: Option<f32>,
            /// -2..=2.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub frequency_penalty: Option<f32>,
            /// Divides the logits of tokens seen before; 1 is off (an extension).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub repetition_penalty: Option<f32>,
            /// Token → -100..=100, added to its logit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub logit_bias: Option<::std::collections::BTreeMap<String, f32>>,
            /// Same request, same seed, same answer.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub seed: Option<i64>,
            /// Strings that end the answer.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub stop: Option<super::Stop>,
            /// How many answers; only 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub n: Option<u32>,
            /// Go on after the model's own end (an extension, for load tests).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ignore_eos: Option<bool>,
        }

        impl $name {
            /// Takes out what is said about drawing tokens.
            pub fn take_sampling(&mut self) -> super::Sampling {
                super::Sampling {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    repetition_penalty: self.repetition_penalty,
                    logit_bias: self.logit_bias.take(),
                    seed: self.seed,
                }
            }

            /// Fills in what the client has left open about drawing tokens.
            pub fn fill_sampling(&mut self, own: super::Sampling) {
                self.temperature = self.temperature.or(own.temperature);
                self.top_p = self.top_p.or(own.top_p);
                self.top_k = self.top_k.or(own.top_k);
                self.min_p = self.min_p.or(own.min_p);
                self.presence_penalty = self.presence_penalty.or(own.presence_penalty);
                self.frequency_penalty = self.frequency_penalty.or(own.frequency_penalty);
                self.repetition_penalty = self.repetition_penalty.or(own.repetition_penalty);
                self.logit_bias = self.logit_bias.take().or(own.logit_bias);
                self.seed = self.seed.or(own.seed);
            }
        }
    };
}

pub(super) use generation_request;
