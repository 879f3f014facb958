//! Cuts a growing reply into clauses that can be spoken one after the other.
//!
//! PURE. A sentence's end is known by the blank after it, that is at most one token later. The first clause may end at a
//! comma, so that the voice can start early; later ones are spoken while others play, and are left whole for their melody.
//! Invariants: however the text is cut into tokens, the clauses are the same; joined by blanks they hold every word in
//! order; none is longer than [`CLAUSE_MAX`]. Marks that a model makes for readers are no words: see [`speakable`].

/// Longest clause, characters: what synthesis of it may hold up, about 15 s of speech.
pub const CLAUSE_MAX: usize = 240;
/// Shortest first clause that may end at a comma, characters: about a second of speech, so that the next is ready in time.
const FIRST_SOFT_MIN: usize = 18;
/// The same for the others.
const LATER_SOFT_MIN: usize = 140;

const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "fig", "approx", "inc", "ltd", "jr", "sr", "u.s", "u.k",
    "no", "dept", "est",
];

/// For what a model writes.
#[derive(Debug, Default)]
pub struct ClauseSplitter {
    current: String,
    chars: usize,
    emitted: usize,
    /// The text is a person's: its marks are meant.
    verbatim: bool,
}

impl ClauseSplitter {
    /// Adds a piece of text; returns the clauses that it completes.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        let mut clauses = Vec::new();
        for c in piece.chars() {
            if c.is_whitespace() {
                if self.current.is_empty() {
                    continue;
                }
                if c == '\n' || self.at_boundary() {
                    self.emit(&mut clauses);
                } else {
                    self.add(' ');
                }
            } else {
                self.add(c);
                if matches!(c, '。' | '！' | '？') {
                    self.emit(&mut clauses);
                }
            }
            if self.chars >= CLAUSE_MAX {
                self.split_long(&mut clauses);
            }
        }
        clauses
    }

    /// The text is over: returns what is left.
    pub fn finish(mut self) -> Option<String> {
        let mut clauses = Vec::new();
        self.emit(&mut clauses);
        clauses.pop()
    }

    fn add(&mut self, c: char) {
        if c == ' ' && self.current.ends_with(' ') {
            return;
        }
        self.current.push(c);
        self.chars += 1;
    }

    fn emit(&mut self, clauses: &mut Vec<String>) {
        let mut clause = std::mem::take(&mut self.current);
        self.chars = 0;
        if !self.verbatim {
            clause = speakable(&clause);
        }
        let clause = clause.trim();
        if !clause.is_empty() {
            self.emitted += 1;
            clauses.push(clause.to_owned());
        }
    }

    /// Cuts at the last blank, or where there is none in mid-word.
    fn split_long(&mut self, clauses: &mut Vec<String>) {
        let rest = match self.current.trim_end().rfind(' ') {
            Some(at) => self.current.split_off(at + 1),
            None => String::new(),
        };
        self.emit(clauses);
        self.chars = rest.chars().count();
        self.current = rest;
    }

    /// Whether a clause ends with what is there, given that a blank follows.
    fn at_boundary(&self) -> bool {
        let bare = self.current.trim_end().trim_end_matches(['"', '\'', ')', ']', '”', '’', '*', '_', '`']);
        let bare = bare.trim_start_matches(['*', '_', '`', '#', ' ']);
        match bare.chars().next_back() {
            Some('!' | '?' | '…') => true,
            Some('.') => !is_abbreviation(bare),
            Some(',' | ';' | ':' | '–' | '—') => {
                self.chars >= if self.emitted == 0 { FIRST_SOFT_MIN } else { LATER_SOFT_MIN }
            }
            _ => false,
        }
    }
}

/// Whether the last full stop of `text` belongs to its word. `1.` is the number of a list's item.
fn is_abbreviation(text: &str) -> bool {
    let word = text.rsplit(' ').next().unwrap_or_default();
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric()).trim_end_matches('.');
    let mut chars = word.chars();
    let single = chars.next().is_some_and(|c| c.is_uppercase() && c != 'I') && chars.next().is_none();
    let list_item = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit()) && text.trim().len() <= word.len() + 1;
    single || list_item || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Without the marks that a model makes for readers: emphasis, headings, code. `C#` and `user_id` are names.
pub fn speakable(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(|c| c.is_alphanumeric());
    let is_mark = |i: usize, c: char| match c {
        '*' | '`' => true,
        '#' => !at(i.checked_sub(1)),
        '_' => !(at(i.checked_sub(1)) && at(i.checked_add(1))),
        _ => false,
    };
    let kept: String = chars.iter().enumerate().filter(|(i, c)| !is_mark(*i, **c)).map(|(_, c)| c).collect();
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts a whole text that a person wrote.
pub fn split(text: &str) -> Vec<String> {
    let mut splitter = ClauseSplitter { verbatim: true, ..ClauseSplitter::default() };
    let mut clauses = splitter.push(text);
    clauses.extend(splitter.finish());
    clauses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_become_clauses() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("Hello", &["Hello"]),
            ("Hello. How are you?", &["Hello.", "How are you?"]),
            ("Thanks, Sam. Go on.", &["Thanks, Sam.", "Go on."]),
            (
                "Thank you for telling me, that helps a lot. Next, please.",
                &["Thank you for telling me,", "that helps a lot.", "Next, please."],
            ),
            (
                "It took 3.5 seconds. Dr. No, e.g. a J. Smith, left.",
                &["It took 3.5 seconds.", "Dr. No, e.g. a J. Smith, left."],
            ),
            ("So did I. You?", &["So did I.", "You?"]),
            ("He said \"Stop!\" Then left.", &["He said \"Stop!\"", "Then left."]),
            ("1. First item\n2. Second item", &["1. First item", "2. Second item"]),
            ("Really?! Yes…  no", &["Really?!", "Yes…", "no"]),
            ("你好。再见", &["你好。", "再见"]),
        ];
        for (text, clauses) in cases {
            assert_eq!(&split(text), clauses, "{text}");
        }
    }

    #[test]
    fn marks_for_readers_are_not_spoken_and_names_keep_theirs() {
        let cases = [
            ("Why C#, and not F#?", "Why C#, and not F#?"),
            ("`C#`, **C#** and _C#_", "C#, C# and C#"),
            ("the `user_id` of **snake_case**", "the user_id of snake_case"),
            ("_Well_, __very__ well", "Well, very well"),
            ("## A heading", "A heading"),
            ("#hashtag and number # 1", "hashtag and number 1"),
            ("**1.** First of all", "1. First of all"),
            ("***", ""),
        ];
        for (text, spoken) in cases {
            assert_eq!(speakable(text), spoken, "{text}");
            let mut splitter = ClauseSplitter::default();
            let mut clauses = splitter.push(text);
            clauses.extend(splitter.finish());
            assert_eq!(clauses.concat(), spoken, "{text}");
        }
        let mut splitter = ClauseSplitter::default();
        let mut clauses = Vec::new();
        // As tokens come: the sign is not in the same piece as its letter.
        for piece in ["**Thank", " you**", "_.", "_ ", "```\n", "Do you", " know C", "#? ", "And user", "_", "id"] {
            clauses.extend(splitter.push(piece));
        }
        clauses.extend(splitter.finish());
        assert_eq!(clauses, ["Thank you.", "Do you know C#?", "And user_id"]);
        assert_eq!(split("What is 2 * 3 in C#?"), ["What is 2 * 3 in C#?"], "a plan's words are said as they are");
    }

    #[test]
    fn the_first_clause_is_known_one_token_after_its_end() {
        let mut splitter = ClauseSplitter::default();
        for token in ["Thank", " you", " for", " that", "."] {
            assert!(splitter.push(token).is_empty());
        }
        assert_eq!(splitter.push(" What"), ["Thank you for that."]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_tokens_do_not_matter(text in "[a-zA-Z0-9 .,!?\"\n…é。-]{0,600}", cuts in prop::collection::vec(0usize..600, 0..40)) {
            let whole = split(&text);
            let words = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(words(&whole.concat()), words(&text));
            prop_assert!(whole.iter().all(|c| c.chars().count() <= CLAUSE_MAX && !c.trim().is_empty()));

            let chars: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < chars.len()).collect();
            cuts.extend([0, chars.len()]);
            cuts.sort_unstable();
            let mut splitter = ClauseSplitter::default();
            let mut pieces = Vec::new();
            for pair in cuts.windows(2) {
                pieces.extend(splitter.push(&chars[pair[0]..pair[1]].iter().collect::<String>()));
            }
            pieces.extend(splitter.finish());
            prop_assert_eq!(pieces, whole);
        }
    }
}
