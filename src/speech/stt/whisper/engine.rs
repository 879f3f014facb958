//! The pool of threads that runs whisper.cpp. Jobs go in as plain data and come out as transcripts: the same could be
//! a process of its own behind a pipe, and callers would not see it.
//!
//! Each job runs on one thread: whisper's own threads wait for each other by spinning, which on a machine with other
//! work costs many times what it gains.

use std::{
    collections::{HashMap, VecDeque},
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::oneshot;
use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperState};

use super::{error, ggml::ModelInfo};
use crate::{
    media::SPEECH_HZ,
    model::Personal,
    speech::{ProviderError, ProviderErrorKind, stt::Transcript},
};

/// Finals that wait for a thread. Full: the stretch fails at once, which the interview can say, instead of late.
const WAITING_MAX: usize = 32;
/// Encoder positions per second of audio.
const CONTEXT_PER_SECOND: f32 = 50.0;
/// Positions beyond the audio, and the fewest that are used: shorter ones harm recognition.
const CONTEXT_SPARE: u32 = 64;
const CONTEXT_MIN: u32 = 384;
/// whisper.cpp ignores audio that is shorter than this; silence is added. 1.1 s.
const SAMPLES_MIN: usize = SPEECH_HZ as usize * 11 / 10;
/// What is said with less confidence than this, in audio that holds no speech by the model's own word, is invented.
const INVENTED_BELOW: f32 = 0.5;
const NO_SPEECH_ABOVE: f32 = 0.6;

pub struct Job {
    /// 16 kHz mono.
    pub samples: Vec<i16>,
    /// ISO 639-1.
    pub language: String,
    /// Set: nobody wants the answer any more.
    pub stop: Arc<AtomicBool>,
    pub reply: oneshot::Sender<Result<Transcript, ProviderError>>,
    /// A final, which goes before all partials; a partial is taken only by an idle thread.
    pub last: bool,
}

/// No thread is free and the queue is full.
pub struct Busy;

/// Dropping it lets the threads end after their present job.
pub struct Engine {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

/// Whether whisper knows the language.
pub fn check_language(code: &str) -> Result<(), String> {
    known_language(code).map(|_| ()).ok_or_else(|| format!("whisper does not know the language `{code}`"))
}

/// whisper.cpp writes to standard error what no one asked for.
fn silence() {
    static QUIET: Once = Once::new();
    QUIET.call_once(whisper_rs::install_logging_hooks);
}

fn known_language(code: &str) -> Option<&'static str> {
    silence();
    whisper_rs::get_lang_id(code).and_then(whisper_rs::get_lang_str).filter(|known| *known == code)
}

impl Engine {
    /// Loads a model that was checked, and starts the threads.
    pub fn start(model: &Path, info: ModelInfo, threads: usize) -> Result<Self, String> {
        silence();
        let context = WhisperContext::new_with_params(model, WhisperContextParameters::default())
            .map_err(|error| format!("whisper.cpp refuses the model: {error}"))?;
        let context = Arc::new(context);
        let queue = Arc::new(Queue::default());
        // Dropped on an error below: threads that were started end.
        let engine = Self { queue: queue.clone() };
        for number in 0..threads.max(1) {
            // A state holds the working memory of one job; it is reused for all jobs of its thread.
            let state = context.create_state().map_err(|error| format!("whisper.cpp has no memory: {error}"))?;
            let worker = Worker { context: context.clone(), state, info, params: HashMap::new() };
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("whisper-{number}"))
                .spawn(move || worker.run(&queue))
                .map_err(|error| format!("a thread cannot be started: {error}"))?;
        }
        Ok(engine)
    }

    pub fn submit(&self, job: Job) -> Result<(), Busy> {
        let mut state = self.queue.lock();
        let room = if job.last { state.waiting.len() < WAITING_MAX } else { state.idle > state.waiting.len() };
        if !room || state.closed {
            return Err(Busy);
        }
        state.waiting.push_back(job);
        drop(state);
        self.queue.wake.notify_one();
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.wake.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` once the engine is dropped.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.idle += 1;
        loop {
            if state.closed {
                return None;
            }
            // Finals first; a partial that waits was accepted for an idle thread.
            let at = state.waiting.iter().position(|job| job.last).unwrap_or(0);
            if let Some(job) = state.waiting.remove(at) {
                state.idle -= 1;
                return Some(job);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One thread's part.
struct Worker {
    context: Arc<WhisperContext>,
    state: WhisperState,
    info: ModelInfo,
    /// Parameters by language. Each language that is set leaks its name in whisper-rs, so each is set once.
    params: HashMap<&'static str, FullParams<'static, 'static>>,
}

impl Worker {
    fn run(mut self, queue: &Queue) {
        while let Some(job) = queue.next() {
            if job.stop.load(Ordering::Relaxed) || job.reply.is_closed() {
                continue;
            }
            let answer = catch_unwind(AssertUnwindSafe(|| self.recognise(&job)))
                .unwrap_or_else(|_| Err(error(ProviderErrorKind::Malformed, "recognition panicked")));
            let _ = job.reply.send(answer);
        }
    }

    fn recognise(&mut self, job: &Job) -> Result<Transcript, ProviderError> {
        let language = known_language(&job.language)
            .filter(|language| *language == "en" || !self.info.english_only)
            .ok_or_else(|| error(ProviderErrorKind::Rejected, "the model does not know the language"))?;
        let mut params = self.params.entry(language).or_insert_with(|| parameters(language)).clone();
        params.set_audio_ctx(audio_context(job.samples.len(), self.info.audio_context));
        // SAFETY: `should_stop` reads the flag behind the pointer and nothing else; `job` keeps the flag alive until
        // `full` has returned, and with it the last call.
        unsafe {
            params.set_abort_callback(Some(should_stop));
            params.set_abort_callback_user_data(Arc::as_ptr(&job.stop).cast_mut().cast::<c_void>());
        }
        let mut samples: Vec<f32> = job.samples.iter().map(|&s| f32::from(s) / 32768.0).collect();
        samples.resize(samples.len().max(SAMPLES_MIN), 0.0);
        self.state.full(params, &samples).map_err(|e| {
            if job.stop.load(Ordering::Relaxed) {
                error(ProviderErrorKind::Timeout, "stopped")
            } else {
                error(ProviderErrorKind::Malformed, format!("whisper.cpp failed: {e}"))
            }
        })?;
        Ok(self.transcript())
    }

    fn transcript(&self) -> Transcript {
        let end_of_text = self.context.token_eot();
        let mut text = String::new();
        for segment in self.state.as_iter() {
            let tokens: Vec<f32> = (0..segment.n_tokens())
                .filter_map(|i| segment.get_token(i))
                .filter(|token| token.token_id() < end_of_text)
                .map(|token| token.token_probability())
                .collect();
            let sure = tokens.iter().sum::<f32>() / tokens.len().max(1) as f32;
            if segment.no_speech_probability() > NO_SPEECH_ABOVE && sure < INVENTED_BELOW {
                continue;
            }
            let said = segment.to_str_lossy().unwrap_or_default();
            if is_sound_effect(said.trim()) {
                continue;
            }
            text.push_str(&said);
        }
        Transcript { text: Personal(text.trim().to_owned()) }
    }
}

/// `[BLANK_AUDIO]`, `(typing)`: what was heard, not what was said.
fn is_sound_effect(text: &str) -> bool {
    text.starts_with('[') && text.ends_with(']') || text.starts_with('(') && text.ends_with(')')
}

fn parameters(language: &'static str) -> FullParams<'static, 'static> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    params.set_n_threads(1);
    params.set_language(Some(language));
    params.set_single_segment(true);
    params.set_no_context(true);
    params.set_suppress_nst(true);
    // No second and third try at higher temperature: each would cost as much again.
    params.set_temperature_inc(0.0);
    params.set_print_special(false);
    params.set_print_progress(false);
    params.set_print_realtime(false);
    params.set_print_timestamps(false);
    params
}

/// Encoder positions for so much audio: its cost is in them. A multiple of 64.
fn audio_context(samples: usize, most: u32) -> i32 {
    let seconds = samples as f32 / SPEECH_HZ as f32;
    let wanted = (seconds * CONTEXT_PER_SECOND).ceil() as u32 + CONTEXT_SPARE;
    wanted.next_multiple_of(64).max(CONTEXT_MIN).min(most) as i32
}

/// Called by ggml between its steps. whisper-rs has a safe way to do this, which calls the wrong function.
unsafe extern "C" fn should_stop(flag: *mut c_void) -> bool {
    // SAFETY: the pointer is the one that was set with this callback, to a flag that outlives the call.
    unsafe { (*flag.cast::<AtomicBool>()).load(Ordering::Relaxed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_grows_with_the_audio_up_to_the_models() {
        for (seconds, context) in [(1.0, 384), (6.0, 384), (8.0, 512), (20.0, 1088), (28.0, 1472), (30.0, 1500)] {
            assert_eq!(audio_context((seconds * 16_000.0) as usize, 1500), context, "{seconds} s");
        }
        assert_eq!(audio_context(16_000, 64), 64, "a test model may be smaller");
    }

    #[test]
    fn languages_are_checked() {
        assert!(check_language("en").is_ok() && check_language("de").is_ok());
        assert!(check_language("xx").is_err() && check_language("english").is_err() && check_language("").is_err());
    }
}
