//! How much of an utterance was heard, in words. Pure.
//!
//! Text-to-speech says not when each word sounds, so within a clause words are placed by their length, between the
//! first and the last audible frame. A clause that was played to its end was heard whole.

use crate::model::Personal;

/// One utterance's account.
#[derive(Default)]
pub struct Heard {
    words: Vec<String>,
    clause: Option<Clause>,
}

struct Clause {
    text: Personal,
    /// Frames played.
    played: u32,
    /// Frames before the first audible one that was played, and up to and with the last one.
    lead: Option<u32>,
}

/// What is known of the part of a clause that was not played.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rest {
    /// Frames up to and with the last audible one.
    pub audible: u32,
    /// Whether the clause's end is among them: else synthesis was still at work.
    pub whole: bool,
}

/// Frames per letter of ordinary speech (about 65 ms), for a clause of which not all audio was made yet.
const FRAMES_PER_LETTER: f64 = 3.2;

impl Heard {
    pub fn begin_clause(&mut self, text: Personal) {
        self.clause = Some(Clause { text, played: 0, lead: None });
    }

    pub fn frame(&mut self, audible: bool) {
        if let Some(clause) = &mut self.clause {
            if audible && clause.lead.is_none() {
                clause.lead = Some(clause.played);
            }
            clause.played += 1;
        }
    }

    /// The clause was played to the end of its audio. `complete`: and the audio was all of it.
    pub fn end_clause(&mut self, complete: bool) {
        if !complete {
            self.cut(Rest::default());
        } else if let Some(clause) = self.clause.take() {
            self.words.extend(clause.text.0.split_whitespace().map(str::to_owned));
        }
    }

    /// The clause ends here; `rest` is what was not played of it.
    pub fn cut(&mut self, rest: Rest) {
        let Some(clause) = self.clause.take() else { return };
        let Some(lead) = clause.lead else { return };
        let sounded = f64::from(clause.played - lead);
        let known = sounded + f64::from(rest.audible);
        let total =
            if rest.whole { known } else { known.max(clause.text.0.chars().count() as f64 * FRAMES_PER_LETTER) };
        let share = if total > 0.0 { sounded / total } else { 0.0 };
        self.words.extend(words_until(&clause.text.0, share).map(str::to_owned));
    }

    pub fn text(self) -> Personal {
        Personal(self.words.join(" "))
    }
}

/// The words of which more than half lies before `share` (0-1) of the text, a word's length being its letters and the
/// space after it.
fn words_until(text: &str, share: f64) -> impl Iterator<Item = &str> {
    let length = |word: &str| word.chars().count() as f64 + 1.0;
    let total: f64 = text.split_whitespace().map(length).sum();
    let mut at = 0.0;
    text.split_whitespace().take_while(move |word| {
        let middle = at + length(word) / 2.0;
        at += length(word);
        middle < share * total
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn play(text: &str, lead: u32, sound: u32, played: u32) -> String {
        let mut heard = Heard::default();
        heard.begin_clause(text.into());
        for frame in 0..played {
            heard.frame(frame >= lead);
        }
        let left = (lead + sound).saturating_sub(played.max(lead));
        heard.cut(Rest { audible: left, whole: true });
        heard.text().0
    }

    #[test]
    fn half_of_the_sound_is_half_of_the_words() {
        assert_eq!(play("alpha bravo chard delta", 0, 100, 50), "alpha bravo");
        assert_eq!(play("alpha bravo chard delta", 20, 100, 70), "alpha bravo", "silence before the sound is no word");
        assert_eq!(play("alpha bravo chard delta", 20, 100, 15), "");
        assert_eq!(play("alpha bravo chard delta", 0, 100, 100), "alpha bravo chard delta");
    }

    #[test]
    fn clauses_add_up_and_a_failed_one_does_not_count_as_heard() {
        let mut heard = Heard::default();
        heard.begin_clause("One two.".into());
        heard.frame(true);
        heard.end_clause(true);
        heard.begin_clause("Three four.".into());
        heard.end_clause(false);
        heard.begin_clause("Five six.".into());
        heard.end_clause(true);
        assert_eq!(heard.text().0, "One two. Five six.");
    }

    #[test]
    fn while_synthesis_is_at_work_the_length_of_the_clause_is_estimated() {
        let mut heard = Heard::default();
        let text = "a clause of some forty letters or so here";
        heard.begin_clause(text.into());
        (0..20).for_each(|_| heard.frame(true));
        heard.cut(Rest { audible: 5, whole: false });
        assert_eq!(heard.text().0, "a clause");
    }

    proptest! {
        #[test]
        fn what_is_heard_is_a_prefix_that_grows_with_what_is_played(
            words in proptest::collection::vec("[a-zé]{1,12}[,.]?", 0..20),
            lead in 0u32..30,
            sound in 1u32..400,
            played in 0u32..450,
        ) {
            let text = words.join(" ");
            let played = played.min(lead + sound);
            let now = play(&text, lead, sound, played);
            prop_assert!(text.starts_with(&now));
            if played > 0 {
                let before = play(&text, lead, sound, played - 1);
                prop_assert!(now.starts_with(&before));
                let (a, b) = (before.split_whitespace().count(), now.split_whitespace().count());
                prop_assert!(sound < 20 || b - a <= 1 + words.len() / 10);
            }
            prop_assert_eq!(play(&text, lead, sound, lead + sound), text);
        }
    }
}
