//! Fetching models over HTTP: with a progress bar, resumable, checked before they get their name.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{StatusCode, header};
use tokio::{fs::OpenOptions, io::AsyncWriteExt};

use super::{DEFAULTS, Model, ModelFile, Verdict, catalogue, check, part_of, presence};
use crate::models::Presence;

/// Time to connect: with no internet this is what a start waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A download that stands still for this long is broken off; it can be resumed.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What was done for one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// It was there already.
    Present(String),
    Fetched(String),
}

/// Why a model could not be fetched, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("no model is called `{name}`; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("cannot reach {host} ({why}): `viva models pull` tries again, and `models.base_url` can name a mirror")]
    Offline { host: String, why: String },
    #[error("{url} does not exist: check `models.base_url`")]
    NotFound { url: String },
    #[error("{url} answered {status}: try `viva models pull` again later")]
    Refused { url: String, status: StatusCode },
    #[error("{file}: the download broke off ({why}); `viva models pull` goes on from there")]
    Interrupted { file: String, why: String },
    #[error("{file}: what came is not the file ({why}); it was thrown away")]
    Wrong { file: String, why: String },
    #[error("{path}: {error}")]
    Disk { path: PathBuf, error: io::Error },
}

/// Where it stopped. What was fetched until then stays.
#[derive(Debug)]
pub struct Unfinished {
    pub done: Vec<Pulled>,
    /// Names of those that were to be fetched and are not here; empty where nothing was begun.
    pub missing: Vec<String>,
    pub error: PullError,
}

impl From<PullError> for Unfinished {
    fn from(error: PullError) -> Self {
        Self { done: Vec::new(), missing: Vec::new(), error }
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        match self.missing.as_slice() {
            [] => Ok(()),
            missing => write!(f, "; not fetched: {}", missing.join(", ")),
        }
    }
}

/// Fetches models by name (none: the usual ones) into `dir`. What is there already with the right size is left alone.
/// Stops at the first error.
pub async fn pull(dir: &Path, base_url: &str, names: &[String]) -> Result<Vec<Pulled>, Unfinished> {
    pull_from(&catalogue(), dir, base_url, names).await
}

pub(super) async fn pull_from(
    catalogue: &[Model],
    dir: &Path,
    base_url: &str,
    names: &[String],
) -> Result<Vec<Pulled>, Unfinished> {
    let usual = DEFAULTS.map(str::to_owned);
    let names = if names.is_empty() { &usual[..] } else { names };
    let find = |name: &String| {
        let bare = name.strip_prefix("ggml-").and_then(|n| n.strip_suffix(".bin")).unwrap_or(name);
        let found = catalogue.iter().find(|m| m.name == bare || m.name.strip_prefix("whisper-") == Some(bare));
        found.ok_or_else(|| PullError::Unknown {
            name: name.clone(),
            known: catalogue.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    };
    let models = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(STALL_TIMEOUT)
        .build()
        .map_err(|error| PullError::Offline { host: base_url.to_owned(), why: cause(&error) })?;
    let mut done = Vec::new();
    for (nth, model) in models.iter().enumerate() {
        match pull_one(model, dir, base_url, &client).await {
            Ok(pulled) => done.push(pulled),
            Err(error) => {
                let absent = |model: &&&Model| presence(model, dir) != Presence::Present;
                let missing = models[nth..].iter().filter(absent).map(|model| model.name.clone()).collect();
                return Err(Unfinished { done, missing, error });
            }
        }
    }
    Ok(done)
}

async fn pull_one(model: &Model, dir: &Path, base_url: &str, client: &reqwest::Client) -> Result<Pulled, PullError> {
    if presence(model, dir) == Presence::Present {
        return Ok(Pulled::Present(model.name.clone()));
    }
    tokio::fs::create_dir_all(dir).await.map_err(|error| disk(dir, error))?;
    for file in &model.files {
        if std::fs::metadata(dir.join(&file.name)).is_ok_and(|meta| meta.len() == file.bytes) {
            continue;
        }
        let url = format!("{}/{}", base_url.trim_end_matches('/'), file.path);
        Download { client, url, file, target: dir.join(&file.name) }.run().await?;
    }
    Ok(Pulled::Fetched(model.name.clone()))
}

struct Download<'a> {
    client: &'a reqwest::Client,
    url: String,
    file: &'a ModelFile,
    target: PathBuf,
}

impl Download<'_> {
    async fn run(&self) -> Result<(), PullError> {
        let part = part_of(&self.target);
        let have = std::fs::metadata(&part).map_or(0, |meta| meta.len());
        if have > self.file.bytes {
            remove(&part)?;
            return Box::pin(self.run()).await;
        }
        if have < self.file.bytes {
            self.fetch(&part, have).await?;
        }
        self.accept(&part).await
    }

    /// Fetches what is missing, after the first `have` bytes.
    async fn fetch(&self, part: &Path, have: u64) -> Result<(), PullError> {
        let mut request = self.client.get(&self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let resumed = match response.status() {
            StatusCode::PARTIAL_CONTENT if have > 0 && starts_at(&response, have) => true,
            StatusCode::OK => false,
            StatusCode::NOT_FOUND => return Err(PullError::NotFound { url: self.url.clone() }),
            // The server has another file than the one that was begun.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                remove(part)?;
                return Box::pin(self.fetch(part, 0)).await;
            }
            status => return Err(PullError::Refused { url: self.url.clone(), status }),
        };
        let have = if resumed { have } else { 0 };
        if let Some(length) = response.content_length()
            && have + length != self.file.bytes
        {
            let why = format!("it has {} bytes and should have {}", have + length, self.file.bytes);
            return Err(PullError::Wrong { file: self.file.name.clone(), why });
        }
        let mut out = OpenOptions::new()
            .create(true)
            .write(true)
            .append(resumed)
            .truncate(!resumed)
            .open(part)
            .await
            .map_err(|error| disk(part, error))?;
        let bar = progress(&self.file.name, self.file.bytes, have);
        let mut got = have;
        let end = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => break Err(PullError::Interrupted { file: self.file.name.clone(), why: cause(&error) }),
            };
            got += chunk.len() as u64;
            if got > self.file.bytes {
                break Err(PullError::Wrong { file: self.file.name.clone(), why: "it is too long".into() });
            }
            if let Err(error) = out.write_all(&chunk).await {
                break Err(disk(part, error));
            }
            bar.set_position(got);
        };
        out.flush().await.map_err(|error| disk(part, error))?;
        bar.finish_and_clear();
        match end {
            Err(error @ PullError::Wrong { .. }) => {
                remove(part)?;
                Err(error)
            }
            Ok(()) if got < self.file.bytes => {
                Err(PullError::Interrupted { file: self.file.name.clone(), why: "the connection was closed".into() })
            }
            end => end,
        }
    }

    /// Checks the whole file and gives it its name.
    async fn accept(&self, part: &Path) -> Result<(), PullError> {
        let (path, known) = (part.to_owned(), self.file.clone());
        let checked = tokio::task::spawn_blocking(move || check(&path, Some(&known))).await;
        let verdict = checked.unwrap_or_else(|_| Verdict::Bad("it could not be checked".into()));
        if let Verdict::Bad(why) = verdict {
            remove(part)?;
            return Err(PullError::Wrong { file: self.file.name.clone(), why });
        }
        tokio::fs::rename(part, &self.target).await.map_err(|error| disk(&self.target, error))
    }

    fn no_answer(&self, error: &reqwest::Error) -> PullError {
        if !error.is_connect() && !error.is_timeout() {
            return PullError::Interrupted { file: self.file.name.clone(), why: cause(error) };
        }
        let url = reqwest::Url::parse(&self.url).ok();
        let host = url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| self.url.clone());
        PullError::Offline { host, why: cause(error) }
    }
}

/// Whether a partial answer begins where the file was left.
fn starts_at(response: &reqwest::Response, have: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.trim_start().starts_with(&format!("bytes {have}-")))
}

fn progress(name: &str, bytes: u64, have: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("  {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name.to_owned());
    bar.set_position(have);
    bar
}

/// The innermost reason: the outer ones only say that a request failed.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn disk(path: &Path, error: io::Error) -> PullError {
    PullError::Disk { path: path.to_owned(), error }
}

fn remove(path: &Path) -> Result<(), PullError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(path, error)),
        _ => Ok(()),
    }
}
