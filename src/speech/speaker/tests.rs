//! The speaker in virtual time, with a voice that makes tones and a sink that keeps the clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::*;
use crate::{
    media::{OpusFrame, PACKET_DURATION, SinkClosed},
    speech::{
        ProviderError, ProviderErrorKind,
        tts::{PcmChunk, TtsProvider},
    },
};

/// Speaks each letter as 50 ms of tone at 22 050 Hz, after a delay. Hangs for ever where the text has a `§`.
struct ToneVoice {
    first_after: Duration,
    fail_on: Option<&'static str>,
}

impl TtsProvider for ToneVoice {
    fn name(&self) -> &'static str {
        "tone"
    }

    fn speak(&self, text: &str) -> mpsc::Receiver<Result<PcmChunk, ProviderError>> {
        let (tx, rx) = mpsc::channel(4);
        let (after, fail) = (self.first_after, self.fail_on.is_some_and(|word| text.contains(word)));
        let letters = text.find('§').unwrap_or(text.chars().count());
        let hangs = text.contains('§');
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if fail {
                let error =
                    ProviderError { provider: "tone", kind: ProviderErrorKind::Unavailable, message: "no".into() };
                let _ = tx.send(Err(error)).await;
                return;
            }
            for _ in 0..letters {
                let samples = (0..1102).map(|i| (9000.0 * (f64::from(i) * 0.06).sin()) as i16).collect::<Vec<_>>();
                if tx.send(Ok(PcmChunk { sample_rate: 22_050, samples })).await.is_err() {
                    return;
                }
            }
            if hangs {
                std::future::pending::<()>().await;
            }
        });
        rx
    }
}

#[derive(Default)]
struct Recording {
    frames: Mutex<Vec<(Instant, OpusFrame)>>,
    closed: std::sync::atomic::AtomicBool,
}

impl AudioSink for Recording {
    fn inject(&self, frame: OpusFrame) -> Result<(), SinkClosed> {
        if self.closed.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(SinkClosed);
        }
        self.frames.lock().unwrap().push((Instant::now(), frame));
        Ok(())
    }
}

impl Recording {
    fn count(&self) -> usize {
        self.frames.lock().unwrap().len()
    }
}

fn speaker(voice: ToneVoice) -> (Speaker, mpsc::Receiver<SpeakerEvent>, Arc<Recording>) {
    let sink = Arc::new(Recording::default());
    let (speaker, events) = Speaker::spawn(Arc::new(voice), sink.clone(), Arc::new(Metrics::new()));
    (speaker, events, sink)
}

const QUICK: ToneVoice = ToneVoice { first_after: Duration::from_millis(10), fail_on: None };

async fn finished(events: &mut mpsc::Receiver<SpeakerEvent>) -> (u64, String, bool) {
    loop {
        match events.recv().await.expect("the speaker lives") {
            SpeakerEvent::Finished { utterance, heard, complete, .. } => return (utterance, heard.0, complete),
            _ => continue,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_utterance_is_paced_at_20_ms_and_heard_whole() {
    let (speaker, mut events, sink) = speaker(QUICK);
    let begun = Instant::now();
    speaker.say(1, "Hello there.".into());
    speaker.say(1, "How are you?".into());
    speaker.end(1);
    assert!(matches!(events.recv().await, Some(SpeakerEvent::FirstAudio { utterance: 1, .. })));
    assert!(matches!(events.recv().await, Some(SpeakerEvent::Started { utterance: 1, .. })));
    assert_eq!(finished(&mut events).await, (1, "Hello there. How are you?".into(), true));
    let frames = sink.frames.lock().unwrap();
    // 24 letters of 50 ms, a frame more at most per clause, and the tail.
    assert!((60..=63).contains(&frames.len()), "{} frames", frames.len());
    assert!(frames[0].0 - begun < Duration::from_millis(15), "the first frame leaves with the first audio");
    for (i, pair) in frames.windows(2).enumerate() {
        let gap = pair[1].0 - pair[0].0;
        assert!(gap.abs_diff(PACKET_DURATION) <= Duration::from_millis(2), "frame {i}: {gap:?}");
    }
    let drift = (frames[frames.len() - 1].0 - frames[0].0).abs_diff(PACKET_DURATION * (frames.len() as u32 - 1));
    assert!(drift <= Duration::from_millis(2), "drift {drift:?}");
    assert_eq!(frames[0].1.report, Some(1));
    assert!(
        frames[0].1.starts_talk_spurt && frames[1..].iter().all(|f| !f.1.starts_talk_spurt && f.1.report.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn after_an_interruption_no_frame_leaves_and_only_what_was_played_was_heard() {
    let (speaker, mut events, sink) = speaker(QUICK);
    speaker.say(1, "one two three four five six seven eight nine ten".into());
    speaker.say(1, "eleven twelve".into());
    speaker.end(1);
    speaker.say(2, "never said".into());
    speaker.end(2);
    tokio::time::sleep(Duration::from_millis(10 + 1210)).await;
    let before = sink.count();
    assert!((60..=62).contains(&before), "{before}");
    speaker.interrupt();
    let (utterance, heard, complete) = finished(&mut events).await;
    // 1.22 s of 2.4 s: half of 48 letters.
    assert_eq!((utterance, complete), (1, false));
    assert!(heard == "one two three four five" || heard == "one two three four five six", "{heard}");
    assert_eq!(finished(&mut events).await, (2, String::new(), false));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sink.count(), before);
    // It goes on after that, and what is left of the old utterances is void.
    speaker.end(2);
    speaker.say(3, "go on".into());
    speaker.end(3);
    assert_eq!(finished(&mut events).await, (3, "go on".into(), true));
    let frames = sink.frames.lock().unwrap();
    assert!(frames[before].1.starts_talk_spurt && frames[before].1.report == Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_utterance_interrupted_before_its_first_audio_was_not_heard() {
    let (speaker, mut events, sink) = speaker(ToneVoice { first_after: Duration::from_secs(2), fail_on: None });
    speaker.say(7, "slow".into());
    tokio::time::sleep(Duration::from_millis(500)).await;
    speaker.interrupt();
    speaker.interrupt();
    assert_eq!(finished(&mut events).await, (7, String::new(), false));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sink.count(), 0);
    assert!(events.try_recv().is_err(), "one utterance finishes once");
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_voice_begins_a_new_talk_spurt() {
    let (speaker, mut events, sink) = speaker(ToneVoice { first_after: Duration::from_secs(1), fail_on: None });
    speaker.say(1, "ab".into());
    tokio::time::sleep(Duration::from_secs(3)).await;
    speaker.say(1, "cd".into());
    speaker.end(1);
    assert_eq!(finished(&mut events).await, (1, "ab cd".into(), true));
    let frames = sink.frames.lock().unwrap();
    let spurts: Vec<usize> = frames.iter().enumerate().filter(|(_, f)| f.1.starts_talk_spurt).map(|(i, _)| i).collect();
    assert_eq!(spurts.len(), 2, "{spurts:?}");
    assert_eq!(frames.iter().filter(|f| f.1.report.is_some()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clause_that_fails_is_left_out_and_the_rest_is_said() {
    let (speaker, mut events, _sink) =
        speaker(ToneVoice { first_after: Duration::from_millis(5), fail_on: Some("bad") });
    speaker.say(1, "good one".into());
    speaker.say(1, "bad one".into());
    speaker.say(1, "good again".into());
    speaker.end(1);
    assert_eq!(finished(&mut events).await, (1, "good one good again".into(), false));
}

#[tokio::test(start_paused = true)]
async fn a_voice_that_hangs_loses_its_clause_and_the_rest_is_said() {
    // Before its first audio, and after some of it.
    for (clause, heard) in [("§", "good again"), ("ab cd §", "ab good again")] {
        let sink = Arc::new(Recording::default());
        let metrics = Arc::new(Metrics::new());
        let (speaker, mut events) = Speaker::spawn(Arc::new(QUICK), sink, metrics.clone());
        speaker.say(1, clause.into());
        speaker.say(1, "good again".into());
        speaker.end(1);
        let begun = Instant::now();
        let (_, said, complete) = finished(&mut events).await;
        assert!(!complete && said.ends_with("good again") && heard.split(' ').all(|w| said.contains(w)), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(metrics.provider_errors.with_label_values(&["tts", "tone", "timeout"]).get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_utterance_that_finds_no_room_ends_too_and_the_next_is_said() {
    let (speaker, mut events, sink) = speaker(QUICK);
    speaker.say(1, "a first one that is being said".into());
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..CLAUSES_MAX {
        speaker.say(2, "far too much".into());
    }
    assert!(sink.count() > 0);
    // Neither of these fits, and of the fourth nothing was ever taken.
    speaker.end(2);
    speaker.end(3);
    speaker.say(4, "nor this".into());
    speaker.end(4);
    let played = sink.count();
    for expected in [1, 2, 3, 4] {
        let (utterance, heard, complete) = finished(&mut events).await;
        assert_eq!((utterance, complete, heard.is_empty()), (expected, false, expected > 1));
    }
    assert_eq!(sink.count(), played);
    speaker.say(5, "go on".into());
    speaker.end(5);
    assert_eq!(finished(&mut events).await, (5, "go on".into(), true));
    assert!(events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn utterances_wait_for_the_one_before_and_one_without_clauses_ends_too() {
    let (speaker, mut events, _sink) = speaker(QUICK);
    speaker.say(1, "first".into());
    speaker.end(1);
    speaker.end(2);
    speaker.say(3, "third".into());
    // Nobody ends the third: the fourth does.
    speaker.say(4, "fourth".into());
    speaker.end(4);
    for expected in [(1, "first"), (2, ""), (3, "third"), (4, "fourth")] {
        assert_eq!(finished(&mut events).await, (expected.0, expected.1.into(), true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_room_ends_what_is_said() {
    let (speaker, mut events, sink) = speaker(QUICK);
    speaker.say(1, "a long enough clause to be cut".into());
    tokio::time::sleep(Duration::from_millis(300)).await;
    sink.closed.store(true, std::sync::atomic::Ordering::Relaxed);
    let (utterance, _, complete) = finished(&mut events).await;
    assert_eq!((utterance, complete), (1, false));
    assert!(events.recv().await.is_none());
    speaker.say(2, "nobody hears this".into());
}

/// Random stories: every utterance finishes once, in order, and no frame follows an interruption.
#[tokio::test(start_paused = true)]
async fn accounts_hold_in_random_stories() {
    use rand::{Rng, SeedableRng};
    for seed in 0..60 {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let (speaker, mut events, sink) = speaker(QUICK);
        let mut said: HashMap<u64, String> = HashMap::new();
        for utterance in 1..8u64 {
            let words = (0..rng.random_range(1..12)).map(|i| format!("word{i}")).collect::<Vec<_>>();
            for clause in words.chunks(4) {
                speaker.say(utterance, clause.join(" "));
            }
            speaker.end(utterance);
            said.insert(utterance, words.join(" "));
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
            if rng.random_bool(0.5) {
                speaker.interrupt();
                let count = sink.count();
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
                assert_eq!(sink.count(), count, "seed {seed}");
            }
        }
        for expected in 1..8u64 {
            let (utterance, heard, complete) = finished(&mut events).await;
            assert_eq!(utterance, expected, "seed {seed}");
            assert!(said[&utterance].starts_with(&heard), "seed {seed}: {heard}");
            assert!(!complete || said[&utterance] == heard, "seed {seed}: {heard}");
        }
        let frames = sink.frames.lock().unwrap();
        assert!(frames.windows(3).all(|w| w[2].0 - w[0].0 >= Duration::from_millis(19)), "seed {seed}: a burst");
    }
}
