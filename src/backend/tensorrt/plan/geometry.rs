//! What is fixed when an engine is built: slots, capacity, profiles, buckets, and the sizes and
//! places that follow. Decides nothing about a step.

use std::ops::RangeInclusive;

/// Bytes of a key or value: FP16.
pub const ELEMENT_BYTES: u64 = 2;

/// How the network takes part in keeping the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The past is an input, the new keys and values are outputs; the back end files them.
    Split,
    /// The network writes into the cache by itself.
    Native,
}

/// The shapes that one of the engine's optimisation profiles takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its index in the engine.
    pub index: u32,
    /// Tokens per sequence.
    pub tokens: RangeInclusive<u32>,
    /// Sequences; as many rows of logits.
    pub rows: RangeInclusive<u32>,
}

/// The shapes of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Who writes the KV cache.
    pub form: Form,
    /// Sequences the KV cache holds.
    pub slots: u32,
    /// Tokens per slot that the KV cache has room for.
    pub capacity: u32,
    /// Context lengths that attention is computed over, ascending; the last is the capacity.
    pub buckets: Vec<u32>,
    /// The engine's profiles.
    pub profiles: Vec<Profile>,
    /// Transformer layers.
    pub layers: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Length of one head, a multiple of 8: the cache is filed 16 bytes at a time.
    pub head_length: u32,
    /// Length of a row of logits.
    pub vocabulary: u32,
}

/// Why an engine's shapes cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A dimension is zero or too large to address.
    #[error("the engine says {what} = {value}, which cannot be")]
    Dimension {
        /// Which one.
        what: &'static str,
        /// What it says.
        value: u64,
    },
    /// The buckets do not ascend to the capacity.
    #[error("the engine's context buckets {buckets:?} do not ascend to its capacity of {capacity}")]
    Buckets {
        /// The buckets.
        buckets: Vec<u32>,
        /// The capacity.
        capacity: u32,
    },
    /// No profile takes such a step.
    #[error("the engine has no profile for {tokens} tokens in each of {rows} sequences")]
    Profile {
        /// Tokens per sequence.
        tokens: u32,
        /// Sequences.
        rows: u32,
    },
    /// The cache leaves no context once padding is written.
    #[error("a capacity of {capacity} tokens leaves no context beside {scratch} of padding")]
    Capacity {
        /// Tokens per slot.
        capacity: u32,
        /// Tokens at the end of each slot that padding may be written to.
        scratch: u32,
    },
}

impl Geometry {
    /// Checks everything that the rest of this module relies on.
    ///
    /// # Errors
    /// [`GeometryError`]: the bundle was built by a program that thinks otherwise.
    pub fn check(&self) -> Result<(), GeometryError> {
        for (what, value) in [
            ("slots", self.slots),
            ("capacity", self.capacity),
            ("layers", self.layers),
            ("KV heads", self.kv_heads),
            ("head length", self.head_length),
            ("vocabulary", self.vocabulary),
        ] {
            // Positions, tokens and indices travel as i32.
            if value == 0 || value > i32::MAX as u32 {
                let value = u64::from(value);
                return Err(GeometryError::Dimension { what, value });
            }
        }
        if !self.head_length.is_multiple_of(8) {
            let (what, value) = ("head length", u64::from(self.head_length));
            return Err(GeometryError::Dimension { what, value });
        }
        let cache = self.cache_bytes_checked();
        if cache.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            let value = cache.unwrap_or(u64::MAX);
            let what = "bytes of the KV cache";
            return Err(GeometryError::Dimension { what, value });
        }
        let ascending = self.buckets.windows(2).all(|pair| pair[0] < pair[1]);
        let begins = self.buckets.first().is_some_and(|&first| first > 0);
        if !ascending || !begins || self.buckets.last() != Some(&self.capacity) {
            return Err(GeometryError::Buckets {
                buckets: self.buckets.clone(),
                capacity: self.capacity,
            });
        }
        let rows = self.slots;
        for (tokens, found) in [
            (1, self.profile(1, rows)),
            (2, self.profile(2, 1).or_else(|| self.profile(2, rows))),
        ] {
            if found.is_none() {
                return Err(GeometryError::Profile { tokens, rows });
            }
        }
        let scratch = self.scratch();
        if self.capacity <= scratch {
            let capacity = self.capacity;
            return Err(GeometryError::Capacity { capacity, scratch });
        }
        Ok(())
    }

    /// The profile with the least room to spare that takes `tokens` in each of `rows` sequences:
    /// one built for single tokens is faster for them than one built for any number.
    pub fn profile(&self, tokens: u32, rows: u32) -> Option<&Profile> {
        self.profiles
            .iter()
            .filter(|profile| profile.tokens.contains(&tokens) && profile.rows.contains(&rows))
            .min_by_key(|profile| (*profile.tokens.end(), *profile.rows.end()))
    }

    /// Most tokens of one sequence in one step.
    pub fn longest_chunk(&self) -> u32 {
        let ends = self.profiles.iter().map(|profile| *profile.tokens.end());
        ends.max().unwrap_or(1)
    }

    /// Whether a chunk of one sequence can be run without the other slots.
    pub fn chunks_alone(&self) -> bool {
        self.profile(2, 1).is_some()
    }

    /// Tokens at the end of each slot that no sequence may reach, because padding is written
    /// there: the native form writes as many tokens for every slot of a step, idle ones too.
    pub fn scratch(&self) -> u32 {
        match self.form {
            Form::Split => 0,
            // A chunk is alone in its step and can be run unpadded; only a step of single tokens
            // writes for idle slots.
            Form::Native if self.chunks_alone() => 1,
            Form::Native => self.longest_chunk(),
        }
    }

    /// Tokens of prompt and answer together that a slot can hold.
    pub fn context_tokens(&self) -> u32 {
        self.capacity.saturating_sub(self.scratch())
    }

    /// The shortest bucket that holds `tokens`; the longest one when none does.
    pub fn bucket(&self, tokens: u32) -> u32 {
        let fits = self
            .buckets
            .iter()
            .copied()
            .find(|&bucket| bucket >= tokens);
        fits.unwrap_or(self.capacity)
    }

    /// Tensors of the KV cache: keys and values of each layer, in this order.
    pub const fn cache_tensors(&self) -> u32 {
        2 * self.layers
    }

    /// Bytes from one KV head of a slot to the next.
    pub const fn head_bytes(&self) -> u64 {
        self.capacity as u64 * self.token_bytes()
    }

    /// Bytes of one token in one KV head.
    pub const fn token_bytes(&self) -> u64 {
        self.head_length as u64 * ELEMENT_BYTES
    }

    /// Bytes from one slot of a tensor of the KV cache to the next.
    pub const fn slot_bytes(&self) -> u64 {
        self.kv_heads as u64 * self.head_bytes()
    }

    /// Bytes of one tensor of the KV cache.
    pub const fn tensor_bytes(&self) -> u64 {
        self.slots as u64 * self.slot_bytes()
    }

    /// Bytes of the whole KV cache.
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_tensors() as u64 * self.tensor_bytes()
    }

    /// The same without overflow.
    fn cache_bytes_checked(&self) -> Option<u64> {
        [
            u64::from(self.layers),
            u64::from(self.slots),
            u64::from(self.kv_heads),
            u64::from(self.capacity),
            u64::from(self.head_length),
        ]
        .into_iter()
        .try_fold(2 * ELEMENT_BYTES, u64::checked_mul)
    }

    /// Bytes of the new keys and values of a step of the split form.
    pub const fn fresh_bytes(&self, tokens: u32, rows: u32) -> u64 {
        if matches!(self.form, Form::Native) {
            return 0;
        }
        self.cache_tensors() as u64
            * rows as u64
            * self.kv_heads as u64
            * tokens as u64
            * self.token_bytes()
    }
}

/// Fewest tokens of a bucket: below, attention costs next to nothing.
const FIRST_BUCKET: u32 = 256;

/// The context lengths that attention is computed over: powers of two, then the capacity. Each is
/// recorded by itself, so there are few of them; a step reads at most twice what it needs.
pub fn buckets(capacity: u32) -> Vec<u32> {
    let doubled = (0..24).map(|power| FIRST_BUCKET << power);
    let mut buckets: Vec<u32> = doubled.take_while(|bucket| *bucket < capacity).collect();
    buckets.push(capacity);
    buckets
}
