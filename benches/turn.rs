//! How long the scripted interviewer takes to answer, beyond what it waits on purpose: from the interviewee's last speech
//! to the first packet of the reply, less the configured endpointing delay. Everything between the ear and the sink is
//! real (turn detector, conversation, cursor, speaker with its Opus encoder, store); voice and words take 0 ms.
//!
//! `cargo bench --bench turn`. Fails where the median is 40 ms or more.

#[path = "../tests/interview_harness/mod.rs"]
mod interview_harness;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use interview_harness::{Stage, StubVoice, config};
use viva::model::TurnTimes;

/// Talks, and turns measured in each.
const TALKS: usize = 10;
const TURNS: usize = 5;
/// What the project promises for the median.
const LIMIT_MS: f64 = 40.0;
const ENDPOINTING: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut answers: Vec<TurnTimes> = Vec::new();
    let started = Instant::now();
    for _ in 0..TALKS {
        answers.extend(runtime.block_on(talk()));
    }
    let delay = ENDPOINTING.as_micros() as i64;
    let overhead = sorted(&answers, |t| Some(t.first_packet_us? - delay));
    println!(
        "response latency beyond the endpointing delay of {} ms, {} turns in {:.1} s: median {:.2} ms, p95 {:.2} ms, max {:.2} ms",
        ENDPOINTING.as_millis(),
        overhead.len(),
        started.elapsed().as_secs_f64(),
        share(&overhead, 0.5),
        share(&overhead, 0.95),
        share(&overhead, 1.0),
    );
    let stages = [
        ("decided late by", sorted(&answers, |t| Some(t.endpoint_us? - delay))),
        ("worded", sorted(&answers, |t| Some(t.first_clause_us? - t.endpoint_us?))),
        ("voiced", sorted(&answers, |t| Some(t.tts_first_audio_us? - t.first_clause_us?))),
        ("sent", sorted(&answers, |t| Some(t.first_packet_us? - t.tts_first_audio_us?))),
    ];
    for (name, times) in stages {
        println!("  {name:>16}: median {:.2} ms, p95 {:.2} ms", share(&times, 0.5), share(&times, 0.95));
    }
    if share(&overhead, 0.5) >= LIMIT_MS {
        eprintln!("the median is not under {LIMIT_MS} ms");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn sorted(answers: &[TurnTimes], stage: impl Fn(&TurnTimes) -> Option<i64>) -> Vec<i64> {
    let mut times: Vec<i64> = answers.iter().filter_map(stage).collect();
    times.sort_unstable();
    times
}

/// Of sorted times in us, the one below which this share lies, in ms.
fn share(times: &[i64], share: f64) -> f64 {
    times.get(((times.len().max(1) - 1) as f64 * share).round() as usize).map_or(f64::NAN, |us| *us as f64 / 1000.0)
}

/// One interview; the times of each answer.
async fn talk() -> Vec<TurnTimes> {
    let mut config = config();
    config.endpointing.min_delay_ms = ENDPOINTING.as_millis() as u64;
    let stage = Stage::with_voice(config, Arc::new(StubVoice)).await;
    let mut sam = stage.joins("sam", "interviewee", "ai_interviewer,transcription").await;
    stage.turn(0).await;
    for n in 1..=TURNS {
        sam.says("I don't know, next question please.").await;
        stage.turn(n).await;
    }
    stage.turns().await.into_iter().skip(1).map(|t| t.times).collect()
}
