//! Small readings of what was said, for when no language model reads it: did it trail off, is it a request to repeat,
//! to skip, or a "no"? English; an unknown phrase is an ordinary answer, which is never wrong.

/// Words that nobody ends a sentence with.
const DANGLING: &[&str] = &[
    "a", "an", "and", "as", "at", "because", "but", "by", "er", "erm", "for", "from", "hmm", "how", "if", "in", "into",
    "is", "its", "like", "my", "of", "on", "or", "our", "since", "so", "than", "that's", "the", "their", "then", "to",
    "uh", "uhm", "um", "was", "were", "when", "where", "which", "while", "who", "with", "without",
];

/// Longest remark that is read as a request rather than as an answer, words.
const REQUEST_WORDS_MAX: usize = 14;

/// With these in it a remark of any of the lengths that are read asks for something; without them only a short one does.
const ASKING: &[&str] =
    &["can you", "could you", "would you", "will you", "please", "sorry", "pardon", "can we", "may i", "what"];
/// Longest remark that asks without saying so, words.
const BARE_REQUEST_WORDS_MAX: usize = 5;

const REPEAT: &[&str] = &[
    "repeat",
    "say that again",
    "say it again",
    "ask that again",
    "ask it again",
    "ask me again",
    "once more",
    "one more time",
    "pardon",
    "come again",
    "what was the question",
    "what's the question",
    "what is the question",
    "didn't catch",
    "did not catch",
    "didn't hear",
    "did not hear",
    "couldn't hear",
    "could not hear",
    "can't hear you",
    "rephrase",
    "what did you say",
    "what did you ask",
];

const SKIP: &[&str] = &[
    "i don't know",
    "i do not know",
    "no idea",
    "skip",
    "i pass",
    "i'll pass",
    "i will pass",
    "let me pass",
    "pass on",
    "next question",
    "move on",
    "i have no answer",
    "i'm not sure",
    "i am not sure",
    "can't think of",
    "cannot think of",
];

const REFUSAL: &[&str] = &[
    "no",
    "nope",
    "nothing",
    "none",
    "that's all",
    "that is all",
    "that's it",
    "that is it",
    "i'm good",
    "i am good",
    "all good",
    "i'm fine",
    "i am fine",
    "not really",
    "not right now",
    "no questions",
    "no more questions",
    "no thank you",
    "no thanks",
];

/// Lower case, apostrophes straight, other punctuation gone, single blanks.
fn plain(text: &str) -> String {
    let text: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c == '’' { '\'' } else { c })
        .map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether `phrase` stands in `text` at word boundaries. Both plain.
fn says(text: &str, phrase: &str) -> bool {
    format!(" {text} ").contains(&format!(" {phrase} "))
}

fn short_remark(text: &str, words_max: usize, phrases: &[&str]) -> bool {
    let text = plain(text);
    text.split(' ').count() <= words_max && phrases.iter().any(|p| says(&text, p))
}

/// Whether what was said may be complete. Recognisers that punctuate say so by punctuation; of the others only the last
/// word tells.
pub fn looks_finished(text: &str) -> bool {
    let text = text.trim();
    if text.ends_with([',', ';', ':', '-', '–', '—', '…']) || text.ends_with("...") {
        return false;
    }
    let last = plain(text);
    let last = last.rsplit(' ').next().unwrap_or_default();
    if DANGLING.contains(&last) {
        return false;
    }
    let ends = text.ends_with(['.', '?', '!', '"', ')', '。', '？', '！']);
    let punctuates = text.contains(['.', '?', '!', '。', '？', '！']);
    ends || !punctuates
}

/// "Could you repeat that?"
pub fn asks_to_repeat(text: &str) -> bool {
    let plain = plain(text);
    matches!(plain.as_str(), "what" | "sorry" | "sorry what" | "excuse me" | "huh")
        || short_remark(text, BARE_REQUEST_WORDS_MAX, REPEAT)
        || short_remark(text, REQUEST_WORDS_MAX, REPEAT) && ASKING.iter().any(|asking| says(&plain, asking))
}

/// "I don't know, next question please."
pub fn asks_to_skip(text: &str) -> bool {
    matches!(plain(text).as_str(), "pass" | "pass please") || short_remark(text, REQUEST_WORDS_MAX / 2, SKIP)
}

/// "No, that's all, thank you."
pub fn refuses(text: &str) -> bool {
    short_remark(text, REQUEST_WORDS_MAX / 2, REFUSAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_that_trail_off_are_not_finished() {
        for text in
            ["I built the cache and", "It was, um", "we moved to", "First,", "So I said…", "I left. Then we had more"]
        {
            assert!(!looks_finished(text), "{text}");
        }
        for text in ["I built the cache.", "i built the cache", "Really?", "", "He said \"no.\"", "I like that"] {
            assert!(looks_finished(text), "{text}");
        }
    }

    #[test]
    fn requests_are_told_from_answers() {
        for text in
            ["Could you repeat that, please?", "Sorry, say that again", "Pardon?", "What?", "I didn’t catch that"]
        {
            assert!(asks_to_repeat(text), "{text}");
        }
        for text in [
            "We had to repeat the whole migration over the weekend, and then once more when the index was found to be broken.",
            "A compass",
            "I always repeat the load test before a release",
            "I made the retries repeatable",
        ] {
            assert!(!asks_to_repeat(text), "{text}");
        }
        assert!(asks_to_skip("I don't know, next question please"));
        assert!(!asks_to_skip("I pass every change through review with two people before it is merged"));
        assert!(asks_to_skip("Pass.") && asks_to_skip("I'll pass on that one."));
        assert!(!asks_to_skip("We passed"));
        assert!(!asks_to_skip("All the tests pass."));
        assert!(refuses("No, that's all."));
        assert!(!refuses("Nobody knew how the service worked"));
    }
}
