//! The real ONNX Runtime with a voice that makes a tone of each phoneme.

use std::process::Command;

use super::*;

/// The library that `scripts/setup.sh` installs, or `None`, which is said aloud: without it nothing is tested here.
fn library() -> Option<PathBuf> {
    let found = runtime::candidates("", Path::new("models")).into_iter().find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "onnxruntime is missing: run `scripts/setup.sh --test`");
        eprintln!("SKIPPED: onnxruntime is missing: run `scripts/setup.sh --test`");
    }
    found
}

fn make_voice(dir: &Path, multi: bool) -> PathBuf {
    let python = if Path::new(".venv/bin/python").exists() { ".venv/bin/python" } else { "python3" };
    let path = dir.join("tone.onnx");
    let mut command = Command::new(python);
    command.arg("tests/tools/make_piper_voice.py").arg(&path);
    let made = command.args(multi.then_some("--multi")).output().expect("python3 is installed");
    assert!(
        made.status.success(),
        "the voice could not be made: run `scripts/setup.sh --test`, which installs numpy and onnx into .venv. {}",
        String::from_utf8_lossy(&made.stderr)
    );
    path
}

async fn spoken(piper: &Piper, text: &str) -> Vec<Vec<i16>> {
    let (mut stream, mut chunks) = (piper.speak(text), Vec::new());
    while let Some(chunk) = stream.recv().await {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.sample_rate, 22_050);
        chunks.push(chunk.samples);
    }
    chunks
}

/// Level of a frequency in a stretch of samples, by Goertzel's algorithm; 1 is a full-scale tone.
fn level(samples: &[i16], hz: f64) -> f64 {
    let step = std::f64::consts::TAU * hz / 22_050.0;
    let (re, im) = samples.iter().enumerate().fold((0.0, 0.0), |(re, im), (i, &s)| {
        let angle = step * i as f64;
        (re + f64::from(s) * angle.cos(), im + f64::from(s) * angle.sin())
    });
    2.0 * (re * re + im * im).sqrt() / samples.len() as f64 / 32768.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentences_come_one_by_one_and_phonemes_sound_at_their_pitch() {
    let Some(runtime) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let voice = make_voice(dir.path(), false);
    let options = PiperOptions { voice: voice.clone(), speaker: String::new(), runtime, parallel: 2 };
    let metrics = Arc::new(Metrics::new());
    let piper = Piper::load(options, metrics.clone()).unwrap();
    let chunks = spoken(&piper, "Hello there. Tell me more!").await;
    assert_eq!(chunks.len(), 2, "one inference for each sentence");
    assert!(chunks.iter().all(|c| c.len() % 1024 == 0));
    // `^ _ h _ ə _ l …`: h is the third id. Its tone is 150 Hz plus 25 Hz times its id modulo 20.
    let description = std::fs::read_to_string(with_suffix(&voice, ".json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&description).unwrap();
    let id = json["phoneme_id_map"]["h"][0].as_i64().unwrap();
    let first = &chunks[0][2 * 1024..3 * 1024];
    assert!(level(first, 150.0 + 25.0 * (id % 20) as f64) > 0.25);
    assert!(chunks[0][..2048].iter().all(|&s| s == 0), "begin and padding are silent");
    assert!(metrics.tts_audio_seconds.with_label_values(&[NAME]).get() > 0.5);
    assert!(spoken(&piper, " … ").await.is_empty());
    // Many at once share the two sessions.
    let many = (0..8).map(|_| spoken(&piper, "One two three."));
    let lengths: Vec<usize> = futures::future::join_all(many).await.iter().map(|c| c[0].len()).collect();
    assert!(lengths.iter().all(|n| *n == lengths[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_of_two_speaks_with_the_one_that_is_asked_for() {
    let Some(runtime) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let voice = make_voice(dir.path(), true);
    let load = |speaker: &str| {
        let options =
            PiperOptions { voice: voice.clone(), speaker: speaker.into(), runtime: runtime.clone(), parallel: 1 };
        Piper::load(options, Arc::new(Metrics::new()))
    };
    let (low, high) = (load("low").unwrap(), load("1").unwrap());
    assert_ne!(spoken(&low, "Hello.").await, spoken(&high, "Hello.").await);
    assert!(load("nobody").err().unwrap().contains("no speaker"));
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let Some(runtime) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let voice = dir.path().join(name);
        let options = PiperOptions { voice, speaker: String::new(), runtime: runtime.clone(), parallel: 1 };
        Piper::load(options, Arc::new(Metrics::new())).err().unwrap()
    };
    assert!(load("none.onnx").contains("description"));
    let voice = make_voice(dir.path(), false);
    std::fs::write(&voice, "not a network").unwrap();
    assert!(load("tone.onnx").contains("cannot be loaded"));
    for wanted in ["", "tone"] {
        assert_eq!(Piper::candidates(wanted, dir.path()), std::slice::from_ref(&voice));
    }
}
