//! Stop strings across token borders.
//!
//! Text that might be the beginning of a stop string is held back until it can no longer be one,
//! so that no part of a stop string ever reaches the client.

/// What became of a piece of text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StopStep {
    /// Text that is certainly part of the answer.
    pub text: String,
    /// A stop string was found: the answer ends after `text`.
    pub stopped: bool,
}

/// Watches an answer for stop strings.
#[derive(Clone, Debug, Default)]
pub struct StopDetector {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopDetector {
    /// Watches for `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
            stopped: false,
        }
    }

    /// Adds generated text. After a stop string was found everything is swallowed.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.stopped {
            return StopStep {
                text: String::new(),
                stopped: true,
            };
        }
        if self.stops.is_empty() {
            return StopStep {
                text: text.to_owned(),
                stopped: false,
            };
        }
        self.held.push_str(text);
        if let Some((_, start)) = self.first_match() {
            self.held.truncate(start);
            self.stopped = true;
            return StopStep {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        StopStep {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// End and start of the match that was complete first, whatever pieces the text came in.
    fn first_match(&self) -> Option<(usize, usize)> {
        let matches = self.stops.iter().filter_map(|stop| {
            self.held
                .find(stop.as_str())
                .map(|start| (start + stop.len(), start))
        });
        matches.min()
    }

    /// The answer is over for another reason: what was held back belongs to it.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest end of `text` that is a proper beginning of `pattern`.
pub(crate) fn overlap(text: &str, pattern: &str) -> usize {
    let longest = text.len().min(pattern.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&length| text.as_bytes()[text.len() - length..] == pattern.as_bytes()[..length])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut detector = StopDetector::new(&stops);
        let mut seen = String::new();
        for piece in pieces {
            let step = detector.push(piece);
            seen.push_str(&step.text);
            if step.stopped {
                return (seen, true);
            }
        }
        seen.push_str(&detector.finish());
        (seen, false)
    }

    #[test]
    fn a_stop_string_is_never_leaked_however_the_text_is_cut() {
        let text = "one two ENDING three";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(run(&["END"], &pieces), ("one two ".to_owned(), true));
            }
        }
    }

    #[test]
    fn text_that_only_begins_like_a_stop_string_is_released() {
        assert_eq!(run(&["END"], &["EN", "D"]), (String::new(), true));
        assert_eq!(run(&["END"], &["EN", "x"]), ("ENx".to_owned(), false));
        assert_eq!(run(&["END"], &["EEN"]), ("EEN".to_owned(), false));
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b", "c"]),
            ("a".to_owned(), true)
        );
    }

    #[test]
    fn the_stop_string_that_was_complete_first_wins() {
        assert_eq!(
            run(&["abcd", "c"], &["abcd"]),
            run(&["abcd", "c"], &["a", "b", "c", "d"])
        );
        assert_eq!(
            run(&["three", "two"], &["one two three"]),
            ("one ".to_owned(), true)
        );
        assert_eq!(run(&["</s>", "</"], &["x<", "/s>"]), ("x".to_owned(), true));
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        assert_eq!(run(&["é€"], &["aé", "ü€"]), ("aéü€".to_owned(), false));
        assert_eq!(run(&["€"], &["é", "€x"]), ("é".to_owned(), true));
    }

    #[test]
    fn only_what_can_still_match_is_held_back() {
        let mut detector = StopDetector::new(&["\n\n".to_owned()]);
        assert_eq!(detector.push("line").text, "line");
        assert_eq!(detector.push("\n").text, "");
        assert_eq!(detector.push("next").text, "\nnext");
        assert_eq!(
            detector.push("x\n\ny"),
            StopStep {
                text: "x".to_owned(),
                stopped: true
            }
        );
        assert_eq!(
            detector.push("more"),
            StopStep {
                text: String::new(),
                stopped: true
            }
        );
    }

    #[test]
    fn empty_stop_strings_are_ignored() {
        assert_eq!(run(&[""], &["abc"]), ("abc".to_owned(), false));
    }
}
