//! The real whisper.cpp with a model that hears what it was built to hear.

use std::{process::Command, time::Instant};

use super::*;

/// Makes a model with the project's Python, or the system's.
pub(crate) fn make_model(dir: &Path, text: &str) -> PathBuf {
    let python = if Path::new(".venv/bin/python").exists() { ".venv/bin/python" } else { "python3" };
    let path = dir.join("ggml-test.en.bin");
    let made = Command::new(python)
        .arg("tests/tools/make_whisper_model.py")
        .arg(&path)
        .args(["--text", text, "--state", "16", "--head", "1"])
        .output()
        .expect("python3 is installed");
    assert!(
        made.status.success(),
        "the model could not be made: run `scripts/setup.sh --test`, which installs numpy into .venv. {}",
        String::from_utf8_lossy(&made.stderr)
    );
    path
}

fn load(model: &Path, partials: bool) -> Result<Whisper, String> {
    Whisper::load(&WhisperOptions { model: model.to_owned(), language: "en-GB".into(), threads: 1, partials })
}

async fn hear(whisper: &Whisper, seconds: f32) -> Vec<SttEvent> {
    let mut stream = whisper.open("en-GB");
    let audio = stream.audio.take().unwrap();
    for i in 0..(seconds * 50.0) as i32 {
        let chunk: Vec<i16> = (0..320).map(|j| (3000.0 * ((i * 320 + j) as f32 * 0.05).sin()) as i16).collect();
        audio.send(chunk.into()).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(audio);
    let mut events = Vec::new();
    while let Some(event) = stream.events.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_the_model_comes_back_and_stopped_jobs_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let model = make_model(dir.path(), "i would measure it first");
    let whisper = load(&model, true).unwrap();
    for seconds in [0.3, 2.5, 12.0] {
        let events = hear(&whisper, seconds).await;
        let Some(SttEvent::Final(transcript)) = events.last() else { panic!("{events:?}") };
        assert_eq!(transcript.text.0, "i would measure it first");
    }
    // A stream that is dropped stops its job; the same thread then does the next one.
    for _ in 0..3 {
        let mut stream = whisper.open("en");
        let audio = stream.audio.take().unwrap();
        audio.send(vec![0i16; 16_000 * 20].into()).await.unwrap();
        drop(audio);
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(stream);
    }
    let begun = Instant::now();
    assert!(matches!(hear(&whisper, 1.0).await.last(), Some(SttEvent::Final(_))));
    println!("after three stopped jobs: {:?}", begun.elapsed());
    // An unknown language is refused, not guessed.
    let mut stream = whisper.open("de");
    stream.audio = None;
    assert!(matches!(stream.events.recv().await, Some(SttEvent::Failed(e)) if e.kind == ProviderErrorKind::Rejected));
}

#[test]
fn a_full_queue_refuses_and_partials_need_an_idle_thread() {
    let dir = tempfile::tempdir().unwrap();
    let model = make_model(dir.path(), "busy");
    let engine = Engine::start(&model, ggml::check(&model).unwrap(), 1).unwrap();
    let job = |last| {
        let (reply, answer) = oneshot::channel();
        let samples = vec![0; 16_000 * 28];
        (Job { samples, language: "en".into(), stop: Arc::default(), reply, last }, answer)
    };
    let mut answers = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        let (job, answer) = job(true);
        match engine.submit(job) {
            Ok(()) => answers.push(answer),
            Err(Busy) => refused += 1,
        }
    }
    assert!((7..=8).contains(&refused), "32 wait, one may run: {refused} refused");
    let (partial, _answer) = job(false);
    assert!(engine.submit(partial).is_err());
    drop(answers);
}

#[test]
fn damaged_models_are_told_before_they_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let model = make_model(dir.path(), "sound and whole");
    let good = std::fs::read(&model).unwrap();
    let info = ggml::check(&model).unwrap();
    assert!(info.english_only && info.width == 16 && info.bytes == good.len() as u64);
    let bad = dir.path().join("bad.bin");
    let mut cases: Vec<(String, Vec<u8>)> =
        [0, 3, 20, 60, 5_000, 70_000, good.len() / 2, good.len() - 10, good.len() - 1]
            .into_iter()
            .map(|n| (format!("{n} bytes"), good[..n].to_vec()))
            .collect();
    cases.push(("text".into(), b"<html>404 not found</html>".repeat(1000)));
    cases.push(("longer".into(), [good.as_slice(), b"x"].concat()));
    let space = good.windows(5).position(|w| w == b"\x01\0\0\0 ").unwrap();
    let mut no_space = good.clone();
    no_space[space + 4] = b'x';
    cases.push(("no space".into(), no_space));
    for (name, bytes) in cases {
        std::fs::write(&bad, bytes).unwrap();
        let error = load(&bad, false).err().unwrap_or_else(|| panic!("{name} was loaded"));
        println!("{name}: {error}");
    }
    assert!(load(&dir.path().join("none.bin"), false).err().unwrap().contains("does not exist"));
    let german = WhisperOptions { model, language: "de".into(), threads: 1, partials: false };
    assert!(Whisper::load(&german).err().unwrap().contains("English only"));
}

#[test]
fn models_are_found_by_name_and_the_better_one_first() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ggml-tiny.en.bin", "ggml-base.en.bin", "ggml-zzz.bin", "other.bin", "ggml-base.en.bin.part"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let names = |wanted: &str| -> Vec<String> {
        let found = Whisper::candidates(wanted, dir.path());
        found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(""), ["ggml-base.en.bin", "ggml-tiny.en.bin", "ggml-zzz.bin"]);
    assert_eq!(names("tiny.en"), ["ggml-tiny.en.bin"]);
    assert_eq!(names("other.bin"), ["other.bin"]);
    assert!(names("none").is_empty());
}
