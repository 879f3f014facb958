//! Turn-taking as stories: what an interviewee's voice does and when, what the interviewer does about it. Virtual time.

use std::time::{Duration, Instant};

use viva::{
    interview::{
        conversation::{Cause, Conversation, ConversationConfig, Effect},
        turn::{TurnConfig, TurnDetector, TurnEvent, Utterance},
    },
    speech::{listener::SpeechEvent, stt::Transcript},
};

const MIN: u64 = 500;
const VOICE_ONLY: u64 = 1500;
const MAX: u64 = 3000;
const SUSTAINED: u64 = 250;

/// Both machines with a clock, as the session runs them.
struct Talk {
    start: Instant,
    now: Instant,
    detector: TurnDetector,
    conversation: Conversation,
    /// What happened, with its time in ms.
    log: Vec<(u64, String)>,
    utterances: Vec<Utterance>,
    segment: u64,
    reply: u64,
}

impl Talk {
    fn new(recognition: bool) -> Self {
        let start = Instant::now();
        let ms = Duration::from_millis;
        Self {
            start,
            now: start,
            detector: TurnDetector::new(TurnConfig {
                min_delay: ms(MIN),
                voice_only_delay: ms(VOICE_ONLY),
                max_delay: ms(MAX),
                sustained: ms(SUSTAINED),
                recognition,
            }),
            conversation: Conversation::new(
                ConversationConfig { barge_in: true, nudge_after: Some(ms(20_000)), move_on_after: Some(ms(40_000)) },
                start,
            ),
            log: vec![],
            utterances: vec![],
            segment: 0,
            reply: 0,
        }
    }

    /// A talk in which the greeting was spoken to its end.
    fn greeted(recognition: bool) -> Self {
        let mut talk = Self::new(recognition);
        talk.conversation.handle_present(talk.now);
        talk.settle();
        talk.ai_speaks();
        talk.ai_finishes();
        talk.log.clear();
        talk
    }

    fn settle(&mut self) {
        loop {
            if let Some(event) = self.detector.poll_event() {
                if let TurnEvent::Committed(u) = &event {
                    self.utterances.push(u.clone());
                }
                self.conversation.handle_turn(event, self.now);
            } else if let Some(effect) = self.conversation.poll_effect() {
                let what = match effect {
                    Effect::Reply { reply, cause } => {
                        self.reply = reply;
                        match cause {
                            Cause::Answer(u) => format!("answers {:?}", u.text.map(|t| t.0).unwrap_or_default()),
                            Cause::Begin => "greets".into(),
                            Cause::Silence => "nudges".into(),
                            Cause::GiveUp => "moves on".into(),
                            Cause::Repeat => "repeats".into(),
                            Cause::FalseInterruption => "says it again".into(),
                            Cause::Returned => "welcomes back".into(),
                            Cause::TimeUp => "stops for time".into(),
                        }
                    }
                    Effect::Cancel { reopen, .. } => {
                        if reopen {
                            self.detector.reopen();
                        }
                        "takes back".into()
                    }
                    Effect::Interrupt { barge_in, .. } => {
                        if barge_in {
                            "is interrupted".into()
                        } else {
                            "stops".to_owned()
                        }
                    }
                    Effect::State(_) => continue,
                };
                let at = self.now.duration_since(self.start).as_millis() as u64;
                self.log.push((at, what));
            } else {
                return;
            }
        }
    }

    /// Lets time pass, waking the machines when they asked for it.
    fn wait(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        loop {
            let next = [self.detector.poll_timeout(), self.conversation.poll_timeout()].into_iter().flatten().min();
            match next {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.detector.handle_timeout(self.now);
                    self.settle();
                    self.conversation.handle_timeout(self.now);
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn speech(&mut self, event: SpeechEvent) {
        self.detector.handle_speech(0, &event, self.now);
        self.settle();
    }

    /// Voice for `ms`; its end is noticed 200 ms later, and its words are known `stt` ms after that.
    fn says(&mut self, ms: u64, text: &str, stt: u64) {
        self.begins();
        self.wait(ms);
        self.ends(text, stt, false);
    }

    fn begins(&mut self) {
        self.segment += 1;
        let (segment, at) = (self.segment, self.now);
        self.speech(SpeechEvent::Started { segment, at });
    }

    fn ends(&mut self, text: &str, stt: u64, failed: bool) {
        let (segment, last_speech) = (self.segment, self.now);
        self.wait(200);
        self.speech(SpeechEvent::Ended { segment, last_speech });
        self.wait(stt);
        let transcript = Transcript { text: text.into() };
        self.speech(SpeechEvent::Final { segment, started: last_speech, last_speech, transcript, failed });
    }

    fn writes(&mut self, text: &str) {
        self.conversation.handle_written(self.now);
        self.settle();
        self.detector.handle_written(&text.into(), self.now);
        self.settle();
    }

    fn ai_speaks(&mut self) {
        self.conversation.handle_speaking(self.reply);
        self.detector.seal();
        self.settle();
    }

    fn ai_finishes(&mut self) {
        self.conversation.handle_finished(self.reply, self.now);
        self.settle();
    }

    fn what(&self) -> Vec<&str> {
        self.log.iter().map(|(_, w)| w.as_str()).collect()
    }
}

#[test]
fn a_finished_sentence_is_answered_after_the_short_delay() {
    let mut talk = Talk::greeted(true);
    talk.says(2000, "I built the cache.", 100);
    talk.wait(5000);
    assert_eq!(talk.log, [(2000 + MIN, "answers \"I built the cache.\"".to_owned())]);
}

#[test]
fn what_is_written_is_answered_at_once_whatever_goes_on() {
    // While the interviewer listens.
    let mut talk = Talk::greeted(true);
    talk.wait(1000);
    talk.writes("Two years.");
    assert_eq!(talk.log, [(1000, "answers \"Two years.\"".to_owned())]);
    assert!(talk.utterances[0].written && !talk.utterances[0].done);
    // Before the first sound of the reply: both go together.
    talk.wait(50);
    talk.writes("And a half.");
    assert_eq!(talk.what()[1..], ["takes back", "answers \"Two years. And a half.\""]);
    // While the interviewer speaks, however short it is.
    talk.ai_speaks();
    talk.log.clear();
    talk.writes("No.");
    assert_eq!(talk.what(), ["stops", "answers \"No.\""]);
}

#[test]
fn what_is_written_takes_the_last_words_along() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "The port was", 0);
    talk.writes("8080");
    assert_eq!(talk.log, [(1200, "answers \"The port was 8080\"".to_owned())]);
    // Words that are still awaited are waited for, within bounds.
    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.wait(1000);
    talk.writes("8080");
    assert_eq!(talk.log, []);
    talk.wait(5000);
    assert_eq!(talk.log, [(2500, "answers \"8080\"".to_owned())]);
    assert!(!talk.utterances[0].complete);
}

#[test]
fn a_sentence_that_trails_off_gets_the_long_delay() {
    let mut talk = Talk::greeted(true);
    talk.says(2000, "I built the cache and", 100);
    talk.wait(5000);
    assert_eq!(talk.log, [(2000 + MAX, "answers \"I built the cache and\"".to_owned())]);
}

#[test]
fn late_words_are_awaited_but_not_for_ever() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was slow.", 1500);
    talk.wait(100);
    assert_eq!(talk.log, [(1000 + 200 + 1500, "answers \"It was slow.\"".to_owned())]);

    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was slow.", 9000);
    assert_eq!(talk.log, [(1000 + MAX, "answers \"\"".to_owned())]);
    assert_eq!(talk.utterances[0].text, None, "nothing is known of the words");
}

#[test]
fn pauses_within_a_thought_make_one_turn() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "We had two services,", 50);
    talk.wait(1500);
    talk.says(1000, "one of which was slow.", 50);
    talk.wait(3000);
    assert_eq!(talk.what(), ["answers \"We had two services, one of which was slow.\""]);
}

#[test]
fn without_recognition_voice_alone_makes_turns() {
    let mut talk = Talk::greeted(false);
    // A pause to think is not the end.
    talk.says(3000, "", 0);
    talk.wait(1000);
    talk.says(3000, "", 0);
    talk.wait(2000);
    assert_eq!(talk.log, [(7200 + VOICE_ONLY, "answers \"\"".to_owned())]);
    assert_eq!(talk.utterances[0].words(), None);
}

#[test]
fn a_cough_is_no_turn() {
    let mut talk = Talk::greeted(true);
    talk.says(300, "", 100);
    talk.wait(10_000);
    assert_eq!(talk.what(), Vec::<&str>::new());
}

#[test]
fn failed_recognition_still_makes_a_turn() {
    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.wait(2000);
    talk.ends("", 100, true);
    talk.wait(2000);
    assert_eq!(talk.log, [(2000 + VOICE_ONLY, "answers \"\"".to_owned())]);
    assert_eq!(talk.utterances[0].text, None);
}

#[test]
fn thinking_holds_the_turn_until_the_person_has_spoken_on() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "Well.", 50);
    talk.detector.handle_thinking(talk.now);
    talk.settle();
    talk.wait(60_000);
    assert_eq!(talk.what(), Vec::<&str>::new(), "neither an answer nor a nudge");
    talk.says(1000, "It was the index.", 50);
    talk.wait(1000);
    assert_eq!(talk.what(), ["answers \"Well. It was the index.\""]);
    assert!(!talk.detector.held());
}

#[test]
fn a_cough_does_not_end_the_thinking() {
    let mut talk = Talk::greeted(true);
    talk.detector.handle_thinking(talk.now);
    talk.says(400, "", 50);
    talk.wait(60_000);
    assert_eq!(talk.what(), Vec::<&str>::new());
    assert!(talk.detector.held());
    talk.detector.handle_done(talk.now);
    talk.settle();
    assert_eq!(talk.what(), ["answers \"\""]);
    assert!(talk.utterances[0].done && !talk.detector.held());
}

#[test]
fn thinking_takes_back_a_reply_that_was_not_heard_yet() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was the cache.", 50);
    talk.wait(MIN);
    talk.detector.handle_thinking(talk.now);
    talk.settle();
    talk.wait(10_000);
    assert_eq!(talk.what(), ["answers \"It was the cache.\"", "takes back"]);
    talk.detector.handle_done(talk.now);
    talk.settle();
    assert_eq!(talk.what()[2], "answers \"It was the cache.\"");
}

#[test]
fn done_commits_at_once_and_waits_a_moment_for_the_words() {
    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.wait(1000);
    talk.detector.handle_done(talk.now);
    talk.settle();
    talk.ends("That is all and", 100, false);
    assert_eq!(talk.log, [(1300, "answers \"That is all and\"".to_owned())]);

    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.speech(SpeechEvent::Partial { segment: talk.segment, text: "That is".into() });
    talk.wait(1000);
    talk.detector.handle_done(talk.now);
    talk.wait(5000);
    assert_eq!(talk.log, [(2500, "answers \"That is\"".to_owned())]);
}

#[test]
fn done_in_a_noisy_room_leaves_nobody_waiting_for_ever() {
    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.wait(1000);
    talk.detector.handle_done(talk.now);
    talk.wait(5000);
    talk.ai_speaks();
    // The noise ends while the next question is asked; nobody says anything after it.
    talk.ends("", 100, false);
    talk.ai_finishes();
    talk.wait(70_000);
    assert_eq!(talk.what()[1..], ["nudges"]);
}

#[test]
fn talking_over_the_interviewer_stops_it() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "Yes.", 50);
    talk.wait(MIN);
    talk.ai_speaks();
    talk.wait(400);
    let began = talk.now;
    talk.log.clear();
    talk.says(1500, "Wait, that is not what I meant.", 50);
    talk.wait(1000);
    let began = began.duration_since(talk.start).as_millis() as u64;
    assert_eq!(talk.log[0], (began + SUSTAINED, "is interrupted".to_owned()));
    assert_eq!(talk.what(), ["is interrupted", "answers \"Wait, that is not what I meant.\""]);
}

#[test]
fn a_short_hum_does_not_stop_the_interviewer() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "Yes.", 50);
    talk.wait(MIN);
    talk.ai_speaks();
    talk.log.clear();
    talk.begins();
    talk.wait(20);
    talk.ends("Mhm.", 0, false);
    talk.wait(2000);
    talk.ai_finishes();
    assert_eq!(talk.what(), Vec::<&str>::new());
}

#[test]
fn a_noise_that_stopped_the_interviewer_does_not_silence_it() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "Yes.", 50);
    talk.wait(MIN);
    talk.ai_speaks();
    talk.log.clear();
    talk.says(600, "", 50);
    talk.wait(100);
    assert_eq!(talk.what(), ["is interrupted", "says it again"]);
}

#[test]
fn a_reply_is_not_spoken_into_a_person_who_goes_on() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was the cache.", 50);
    talk.wait(MIN);
    talk.says(1000, "And then the index.", 50);
    talk.wait(1000);
    assert_eq!(
        talk.what(),
        ["answers \"It was the cache.\"", "takes back", "answers \"It was the cache. And then the index.\"",]
    );
}

#[test]
fn a_cough_before_the_reply_only_delays_it() {
    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was the cache.", 50);
    talk.wait(MIN);
    talk.says(300, "", 50);
    talk.wait(1000);
    assert_eq!(talk.what(), ["answers \"It was the cache.\"", "takes back", "answers \"It was the cache.\""]);
}

#[test]
fn silence_is_met_with_patience_then_with_the_next_question() {
    let mut talk = Talk::greeted(true);
    talk.wait(20_000);
    assert_eq!(talk.log, [(20_000, "nudges".to_owned())]);
    talk.ai_speaks();
    talk.wait(2000);
    talk.ai_finishes();
    talk.wait(39_000);
    assert_eq!(talk.log.len(), 1);
    talk.wait(1000);
    assert_eq!(talk.what(), ["nudges", "moves on"]);
}

#[test]
fn others_talking_is_no_silence() {
    let mut talk = Talk::greeted(true);
    for _ in 0..10 {
        talk.wait(15_000);
        talk.conversation.handle_other_voice(talk.now);
    }
    assert_eq!(talk.what(), Vec::<&str>::new());
}

#[test]
fn who_leaves_in_the_middle_is_answered_when_back() {
    let mut talk = Talk::greeted(true);
    talk.begins();
    talk.wait(1000);
    talk.conversation.handle_absent(talk.now);
    talk.ends("It was the cache.", 50, false);
    talk.speech(SpeechEvent::Closed);
    talk.wait(10_000);
    assert_eq!(talk.what(), Vec::<&str>::new());
    talk.conversation.handle_present(talk.now);
    talk.settle();
    assert_eq!(talk.what(), ["answers \"It was the cache.\""]);

    // Unless the consent to listen was withdrawn.
    let mut talk = Talk::greeted(true);
    talk.says(1000, "It was the cache.", 50);
    talk.wait(MIN);
    talk.detector.forget();
    talk.conversation.forget();
    talk.conversation.handle_absent(talk.now);
    talk.settle();
    talk.conversation.handle_present(talk.now);
    talk.settle();
    assert_eq!(talk.what(), ["answers \"It was the cache.\"", "takes back", "welcomes back"]);

    let mut talk = Talk::greeted(true);
    talk.conversation.handle_absent(talk.now);
    talk.conversation.handle_present(talk.now);
    talk.settle();
    assert_eq!(talk.what(), ["welcomes back"]);
}

#[test]
fn time_up_stops_whatever_is_going_on() {
    let mut talk = Talk::greeted(true);
    talk.conversation.handle_repeat(talk.now);
    talk.settle();
    talk.ai_speaks();
    talk.conversation.handle_time_up(talk.now);
    talk.settle();
    assert_eq!(talk.what(), ["repeats", "stops", "stops for time"]);
}
