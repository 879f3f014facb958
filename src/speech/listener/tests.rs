//! The listener in virtual time, with speech from espeak-ng and a recogniser that tells what it was given.

use std::sync::Mutex;

use super::*;
use crate::{
    media::{PACKET_DURATION, PACKET_SAMPLES, TapWrite, TapWriter, tap},
    speech::{codec::Encoder, stt::SttCapabilities, wav},
};

/// Speech of espeak-ng at 48 kHz.
pub(crate) fn spoken(text: &str) -> Vec<i16> {
    let out = std::process::Command::new("espeak-ng")
        .args(["-v", "en-us", "--stdout", text])
        .output()
        .expect("espeak-ng is installed: apt-get install espeak-ng");
    let header = wav::WavHeader::parse(&out.stdout).unwrap().unwrap();
    let (mut samples, mut speech) = (Vec::new(), Vec::new());
    wav::SampleReader::default().push(&out.stdout[header.data_at..], &mut samples);
    let mut resampler = crate::speech::codec::Resampler::new(header.sample_rate).unwrap();
    resampler.push(&samples, &mut speech).unwrap();
    resampler.finish(&mut speech).unwrap();
    // The pause that the voice adds is not speech.
    let audible = |s: &&i16| s.unsigned_abs() > 328;
    let first = speech.iter().position(|s| audible(&s)).unwrap();
    let last = speech.iter().rposition(|s| audible(&s)).unwrap();
    speech[first..=last].to_vec()
}

fn config() -> ListenerConfig {
    ListenerConfig { language: "en-GB".into(), ..ListenerConfig::from(&crate::speech::Config::default()) }
}

/// A recogniser that answers with the length of what it heard, after a delay.
#[derive(Default)]
struct Stub {
    after: Duration,
    fails: bool,
    hangs: bool,
    heard: Arc<Mutex<Vec<usize>>>,
}

impl SttProvider for Stub {
    fn name(&self) -> &'static str {
        "stub"
    }

    fn capabilities(&self) -> SttCapabilities {
        SttCapabilities { remote: false }
    }

    fn open(&self, language: &str) -> SttStream {
        assert_eq!(language, "en-GB");
        let (audio, mut chunks) = mpsc::channel(256);
        let (tx, events) = mpsc::channel(8);
        let (after, fails, hangs, heard) = (self.after, self.fails, self.hangs, self.heard.clone());
        tokio::spawn(async move {
            let mut samples = 0;
            while let Some(chunk) = chunks.recv().await {
                let chunk: Box<[i16]> = chunk;
                if samples == 0 {
                    let _ = tx.send(SttEvent::Partial("…".into())).await;
                }
                samples += chunk.len();
            }
            heard.lock().unwrap().push(samples);
            if hangs {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(after).await;
            let event = if fails {
                SttEvent::Failed(ProviderError {
                    provider: "stub",
                    kind: ProviderErrorKind::Rejected,
                    message: "no".into(),
                })
            } else {
                SttEvent::Final(Transcript { text: format!("{samples}").into() })
            };
            let _ = tx.send(event).await;
        });
        SttStream { audio: Some(audio), events }
    }
}

/// Sends audio in packets of 20 ms in (virtual) real time. Gives back when each arrived.
async fn send(tap: &TapWriter, seq: &mut u64, audio: &[i16], lost: impl Fn(u64) -> bool) -> Vec<Instant> {
    let mut encoder = Encoder::new().unwrap();
    let mut arrivals = Vec::new();
    for frame in audio.chunks(PACKET_SAMPLES) {
        let mut frame = frame.to_vec();
        frame.resize(PACKET_SAMPLES, 0);
        let payload = encoder.encode(&frame).unwrap();
        tokio::time::sleep(PACKET_DURATION).await;
        let arrived = tokio::time::Instant::now().into_std();
        arrivals.push(arrived);
        if !lost(*seq) {
            tap.write(AudioPacket { source: 1, seq: *seq, rtp_time: *seq * 960, arrived, payload });
        }
        *seq += 1;
    }
    arrivals
}

fn silence(ms: usize) -> Vec<i16> {
    // A faint hiss, as microphones have.
    (0..ms * 48).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 27) as i16 - 16).collect()
}

async fn all(mut events: mpsc::Receiver<SpeechEvent>) -> Vec<SpeechEvent> {
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    all
}

fn finals(events: &[SpeechEvent]) -> Vec<(u64, String, bool)> {
    let of = |e: &SpeechEvent| match e {
        SpeechEvent::Final { segment, transcript, failed, .. } => Some((*segment, transcript.text.0.clone(), *failed)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Started, Ended and Final of each segment once and in this order, Closed last.
fn check_order(events: &[SpeechEvent], segments: u64) {
    for id in 0..segments {
        let of: Vec<&str> = events
            .iter()
            .filter_map(|event| match event {
                SpeechEvent::Started { segment, .. } if *segment == id => Some("started"),
                SpeechEvent::Ended { segment, .. } if *segment == id => Some("ended"),
                SpeechEvent::Final { segment, .. } if *segment == id => Some("final"),
                _ => None,
            })
            .collect();
        assert_eq!(of, ["started", "ended", "final"], "segment {id}");
    }
    assert!(matches!(events.last(), Some(SpeechEvent::Closed)));
    assert_eq!(finals(events).len() as u64, segments);
}

/// How far the onset and the end that the listener finds are from the true ones, in ms, and how many stretches it hears.
async fn placed(speech: &[i16], hiss: i32) -> (f64, f64, usize) {
    let (tap, reader) = tap(500);
    let events = spawn(reader, None, config(), Arc::new(Metrics::new()));
    let mut audio = silence(2000);
    let (first, last) = (audio.len(), audio.len() + speech.len() - 1);
    audio.extend(speech);
    audio.extend(silence(1500));
    let mut state = 1u32;
    for sample in &mut audio {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample = sample.saturating_add(((state >> 16) as i32 % (2 * hiss + 1) - hiss) as i16);
    }
    let arrivals = send(&tap, &mut 0, &audio, |_| false).await;
    drop(tap);
    let (mut begin, mut end, mut stretches) = (None, None, 0);
    for event in all(events).await {
        match event {
            SpeechEvent::Started { at, .. } => {
                stretches += 1;
                begin = begin.or(Some(at));
            }
            SpeechEvent::Ended { last_speech, .. } => end = Some(last_speech),
            _ => {}
        }
    }
    let off = |found: Instant, sample: usize| {
        // A packet's middle is at its arrival.
        let place = Duration::from_micros((sample % PACKET_SAMPLES) as u64 * 1000 / 48);
        let packet = arrivals[sample / PACKET_SAMPLES] + place - PACKET_DURATION / 2;
        found.saturating_duration_since(packet).as_secs_f64() * 1000.0
            - packet.saturating_duration_since(found).as_secs_f64() * 1000.0
    };
    (off(begin.expect("speech"), first), off(end.expect("speech"), last), stretches)
}

#[tokio::test(start_paused = true)]
async fn the_last_speech_is_placed_exactly_and_the_onset_nearly() {
    let sentences = [
        "I built a small web server.",
        "We measured the latency of every stage.",
        "Yes.",
        "My favourite project was a compiler for robots",
        "It was hard at first, but I liked it.",
        "The cache was wrong, so we threw it out",
    ];
    for text in sentences {
        let speech = spoken(text);
        let (begin, end, _) = placed(&speech, 0).await;
        println!("{text}: onset {begin:+.1} ms, end {end:+.1} ms");
        // The codec itself delays by 6.5 ms.
        assert!((-4.0..=16.0).contains(&end), "{text}: end off by {end} ms");
        assert!((-20.0..=70.0).contains(&begin), "{text}: onset off by {begin} ms");
        // A quiet voice, and a noisy room (about 25 and 15 dB below the voice): the softest sounds go under.
        let quiet: Vec<i16> = speech.iter().map(|s| s / 8).collect();
        for (name, speech, hiss) in [("quiet", &quiet, 0), ("hiss", &speech, 250), ("noise", &speech, 800)] {
            let (begin, end, stretches) = placed(speech, hiss).await;
            println!("  {name}: onset {begin:+.1} ms, end {end:+.1} ms, {stretches} stretches");
            assert!((-90.0..=30.0).contains(&end), "{text}, {name}: end off by {end} ms");
            assert!((-60.0..=120.0).contains(&begin), "{text}, {name}: onset off by {begin} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_stretch_of_speech_gives_its_words_once_and_silence_gives_none() {
    let stub = Stub { after: Duration::from_millis(400), ..Stub::default() };
    let heard = stub.heard.clone();
    let (tap, reader) = tap(500);
    let metrics = Arc::new(Metrics::new());
    let events = spawn(reader, Some(Arc::new(stub)), config(), metrics.clone());
    let one = spoken("I would begin with a test.");
    let two = spoken("Then I would measure it.");
    let mut seq = 0;
    for audio in [&silence(2000), &one, &silence(900), &two, &silence(900)] {
        send(&tap, &mut seq, audio, |_| false).await;
    }
    drop(tap);
    let events = all(events).await;
    check_order(&events, 2);
    assert!(events.iter().any(|e| matches!(e, SpeechEvent::Partial { segment: 1, .. })));
    let heard = heard.lock().unwrap();
    for (samples, speech) in heard.iter().zip([&one, &two]) {
        // Run-up and the closing silence come with it.
        let surplus = *samples as i64 - speech.len() as i64 / 3;
        assert!((4_000..16_000).contains(&surplus), "{surplus} samples more than the speech");
    }
    let seconds = metrics.stt_audio_seconds.with_label_values(&["stub"]).get();
    assert!((seconds - heard.iter().sum::<usize>() as f64 / 16_000.0).abs() < 0.001);
    let partials = metrics.stt_first_partial.with_label_values(&["stub"]);
    assert_eq!(partials.get_sample_count(), 2, "once for each stretch");
    assert!(partials.get_sample_sum() < 0.5, "{} s", partials.get_sample_sum());
}

#[tokio::test(start_paused = true)]
async fn hanging_up_in_a_word_loses_nothing() {
    let stub = Stub { after: Duration::from_millis(700), ..Stub::default() };
    let heard = stub.heard.clone();
    let (tap, reader) = tap(500);
    let events = spawn(reader, Some(Arc::new(stub)), config(), Arc::new(Metrics::new()));
    let speech = spoken("The last word of this sentence is not finished");
    let speech = &speech[..speech.len() * 4 / 5];
    let mut seq = 0;
    send(&tap, &mut seq, &silence(600), |_| false).await;
    let arrivals = send(&tap, &mut seq, speech, |_| false).await;
    drop(tap);
    let events = all(events).await;
    check_order(&events, 1);
    assert!(!finals(&events)[0].1.is_empty());
    assert!(heard.lock().unwrap()[0] >= speech.len() / 3);
    let Some(SpeechEvent::Final { last_speech, .. }) = events.iter().find(|e| matches!(e, SpeechEvent::Final { .. }))
    else {
        panic!("no final")
    };
    let last = arrivals[arrivals.len() - 1];
    assert!(last.saturating_duration_since(*last_speech) < Duration::from_millis(120), "the hang-up is the end");
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_falls_silent_by_sending_nothing_ends_its_speech_too() {
    let (tap, reader) = tap(500);
    let mut events = spawn(reader, None, config(), Arc::new(Metrics::new()));
    let mut seq = 0;
    send(&tap, &mut seq, &silence(500), |_| false).await;
    let arrivals = send(&tap, &mut seq, &spoken("This is all that I have to say."), |_| false).await;
    let said = arrivals[arrivals.len() - 1];
    // No packet comes any more, and the tap stays open: the events come by the clock.
    let ended = loop {
        match events.recv().await.expect("the tap is open") {
            SpeechEvent::Ended { last_speech, .. } => break last_speech,
            _ => continue,
        }
    };
    let now = tokio::time::Instant::now().into_std();
    assert!(now - said < Duration::from_millis(500), "{:?}", now - said);
    assert!(said.saturating_duration_since(ended) < Duration::from_millis(60));
    assert!(matches!(events.recv().await, Some(SpeechEvent::Final { failed: false, .. })));
    drop(tap);
    assert!(matches!(events.recv().await, Some(SpeechEvent::Closed)));
}

#[tokio::test(start_paused = true)]
async fn loss_does_not_break_a_stretch_apart() {
    let (tap, reader) = tap(500);
    let events = spawn(reader, Some(Arc::new(Stub::default())), config(), Arc::new(Metrics::new()));
    let mut seq = 0;
    send(&tap, &mut seq, &silence(500), |_| false).await;
    let speech = spoken("One packet in seven is lost on this link, and nobody should notice that.");
    send(&tap, &mut seq, &speech, |seq| seq % 7 == 3).await;
    send(&tap, &mut seq, &silence(900), |_| false).await;
    drop(tap);
    check_order(&all(events).await, 1);
}

#[tokio::test(start_paused = true)]
async fn packets_that_are_not_heard_are_counted_by_their_reason() {
    let (tap, reader) = tap(500);
    let metrics = Arc::new(Metrics::new());
    let events = spawn(reader, None, config(), metrics.clone());
    let mut seq = 0;
    send(&tap, &mut seq, &silence(200), |_| false).await;
    let arrived = tokio::time::Instant::now().into_std();
    let write = |seq: u64, payload: &[u8]| {
        tap.write(AudioPacket { source: 1, seq, rtp_time: seq * 960, arrived, payload: payload.into() })
            == TapWrite::Taken
    };
    assert!(write(seq - 1, &[0; 3]) && write(seq - 1, &[0; 3]));
    // A packet of several frames, of which there are none.
    assert!(write(seq, &[0xff, 0]));
    drop(tap);
    all(events).await;
    let dropped = |reason| metrics.tap_packets_dropped.with_label_values(&["speech", reason]).get();
    assert_eq!((dropped("late"), dropped("malformed"), dropped("behind")), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_hanging_recogniser_still_gives_one_final() {
    for (fails, hangs, kind) in [(true, false, "rejected"), (false, true, "timeout")] {
        let (tap, reader) = tap(500);
        let metrics = Arc::new(Metrics::new());
        let stub = Stub { fails, hangs, ..Stub::default() };
        let events = spawn(reader, Some(Arc::new(stub)), config(), metrics.clone());
        let mut seq = 0;
        for audio in [silence(500), spoken("Can you hear me?"), silence(900)] {
            send(&tap, &mut seq, &audio, |_| false).await;
        }
        drop(tap);
        let events = all(events).await;
        check_order(&events, 1);
        assert_eq!(finals(&events)[0], (0, String::new(), true));
        assert_eq!(metrics.provider_errors.with_label_values(&["stt", "stub", kind]).get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn talk_without_a_pause_is_cut_before_recognisers_overflow() {
    let stub = Stub::default();
    let heard = stub.heard.clone();
    let (tap, reader) = tap(500);
    let events = spawn(reader, Some(Arc::new(stub)), config(), Arc::new(Metrics::new()));
    let sentence = spoken("and then we went on to the next thing and");
    let mut seq = 0;
    for _ in 0..60_000 / (sentence.len() / 48) + 1 {
        send(&tap, &mut seq, &sentence, |_| false).await;
    }
    drop(tap);
    let events = all(events).await;
    let segments = finals(&events).len() as u64;
    assert!((2..=6).contains(&segments), "{segments}");
    check_order(&events, segments);
    assert!(heard.lock().unwrap().iter().all(|n| *n <= 30 * 16_000));
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_reader_is_gone_ends() {
    let (tap, reader) = tap(8);
    drop(spawn(reader, None, config(), Arc::new(Metrics::new())));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let packet = AudioPacket {
        source: 1,
        seq: 0,
        rtp_time: 0,
        arrived: tokio::time::Instant::now().into_std(),
        payload: Box::from([0u8; 3].as_slice()),
    };
    assert_eq!(tap.write(packet), TapWrite::Closed, "the tap has no reader any more");
}
