//! Prompts of a wanted length. Pure: the text of a serial number is always the same.

/// Makes prompts and learns how many tokens a word costs with the server's tokeniser.
#[derive(Clone, Debug)]
pub struct PromptMaker {
    shared_prefix: bool,
    /// (words, tokens) of the calibration requests: a line through two points.
    seen: Vec<(usize, u32)>,
}

const WORDS: [&str; 32] = [
    "river", "table", "seven", "window", "green", "paper", "stone", "light", "garden", "bridge",
    "music", "winter", "engine", "letter", "market", "silver", "forest", "number", "island",
    "summer", "harbor", "mirror", "copper", "valley", "thunder", "planet", "ladder", "butter",
    "orange", "castle", "pencil", "morning",
];

/// Ends a prompt: after a bare list of words a model may have nothing to say, and an answer without
/// a token cannot be measured.
const REQUEST: [&str; 8] = [
    "Write", "a", "long", "story", "with", "all", "these", "words.",
];

impl PromptMaker {
    /// One token a word, until [`PromptMaker::learn`] knows better.
    pub fn uncalibrated(shared_prefix: bool) -> Self {
        Self {
            shared_prefix,
            seen: Vec::new(),
        }
    }

    /// Takes what the server counted for a prompt of `words` words.
    pub fn learn(&mut self, words: usize, tokens: u32) {
        if tokens > 0 {
            self.seen.push((words, tokens));
        }
    }

    /// A prompt of about `tokens` tokens, the chat template's own tokens included.
    pub fn tokens(&self, tokens: usize, serial: u64) -> String {
        self.words(self.words_for(tokens), serial)
    }

    /// A prompt of exactly `words` words; unless it is very short, the last ones ask for a story.
    pub fn words(&self, words: usize, serial: u64) -> String {
        let request: &[&str] = if words >= 2 * REQUEST.len() {
            &REQUEST
        } else {
            &[]
        };
        let listed = words - request.len();
        let shared = if self.shared_prefix {
            listed.saturating_sub(4)
        } else {
            0
        };
        let mut text = String::with_capacity(words * 7);
        for index in 0..listed {
            // A shared prefix does not depend on the serial number, the rest does from its start.
            let seed = if index < shared {
                0
            } else {
                serial.wrapping_add(1)
            };
            if index > 0 {
                text.push(' ');
            }
            text.push_str(WORDS[mix(seed, index as u64) as usize % WORDS.len()]);
        }
        for word in request {
            text.push(' ');
            text.push_str(word);
        }
        text
    }

    /// Words for `tokens` tokens: the line through the first and the last calibration.
    fn words_for(&self, tokens: usize) -> usize {
        let (Some(&(w0, t0)), Some(&(w1, t1))) = (self.seen.first(), self.seen.last()) else {
            return tokens.max(1);
        };
        if w1 <= w0 || t1 <= t0 {
            return tokens.max(1);
        }
        // Whole numbers all the way: rounded half up, and never below one word.
        let (t0, t1) = (t0 as usize, t1 as usize);
        let (words, span) = (w1 - w0, t1 - t0);
        let scaled = (w0 * span + tokens * words + span / 2).saturating_sub(t0 * words);
        (scaled / span).max(1)
    }
}

/// The finaliser of `SplitMix64` (Steele et al., 2014): spreads neighbouring seeds.
fn mix(seed: u64, index: u64) -> u32 {
    let mut z = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(index.wrapping_mul(0xBF58_476D_1CE4_E5B9));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_extrapolates_the_line_through_two_measured_prompts() {
        let mut maker = PromptMaker::uncalibrated(false);
        maker.learn(50, 80); // 30 tokens of template, one token a word
        maker.learn(100, 130);
        assert_eq!(maker.tokens(1030, 7).split(' ').count(), 1000);
    }

    #[test]
    fn unique_prompts_differ_from_the_first_words_on() {
        let maker = PromptMaker::uncalibrated(false);
        let starts: std::collections::HashSet<String> = (0..100)
            .map(|serial| {
                maker
                    .words(40, serial)
                    .split(' ')
                    .take(6)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(starts.len(), 100);
    }

    #[test]
    fn shared_prompts_differ_in_their_last_words_only() {
        let maker = PromptMaker::uncalibrated(true);
        let (a, b) = (maker.words(40, 1), maker.words(40, 2));
        let (a, b): (Vec<_>, Vec<_>) = (a.split(' ').collect(), b.split(' ').collect());
        assert_eq!(a[..28], b[..28]);
        assert_ne!(a[28..32], b[28..32]);
        assert_eq!(a[32..], REQUEST);
    }
}
