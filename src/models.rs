//! The models and voices that Viva knows: which there are, fetching them, checking them.
//!
//! Not the loader: recognition and voices check what they load by themselves. Without any model Viva works, with voice
//! activity instead of recognition and espeak-ng as the voice, so nothing here is fatal.
//!
//! Invariant: a file under its own name is whole. What is being fetched is called `.part` until it was checked.

mod download;

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

pub use self::download::{PullError, Pulled, Unfinished, pull};
use crate::speech::stt::ggml;

/// Where the catalogue's paths are found, unless `models.base_url` says otherwise.
pub const BASE_URL: &str = "https://huggingface.co";
/// What `pull` fetches where no names are given.
pub const DEFAULTS: [&str; 2] = ["whisper-base.en", "en_US-lessac-medium"];

/// A model that can be fetched.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub about: String,
    pub files: Vec<ModelFile>,
}

#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Name in the models folder.
    pub name: String,
    /// Path below the base address.
    pub path: String,
    pub bytes: u64,
    pub checksum: Checksum,
}

/// Of a whole file, in hexadecimal. Each kind as the model's publisher gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    Sha256(String),
    /// Finds damage, not malice.
    Md5(String),
}

/// What is known. The checksums are those that the publishers give: of the whisper models the SHA-256 of the files in
/// the repository `ggerganov/whisper.cpp`, of the voice the MD5 in `voices.json` of `rhasspy/piper-voices`.
pub fn catalogue() -> Vec<Model> {
    let whisper = |name: &str, about: &str, bytes: u64, sha256: &str| {
        let file = format!("ggml-{name}.bin");
        Model {
            name: format!("whisper-{name}"),
            about: about.into(),
            files: vec![ModelFile {
                path: format!("ggerganov/whisper.cpp/resolve/main/{file}"),
                name: file,
                bytes,
                checksum: Checksum::Sha256(sha256.into()),
            }],
        }
    };
    let voice_file = |name: &str, bytes: u64, md5: &str| ModelFile {
        name: name.into(),
        path: format!("rhasspy/piper-voices/resolve/main/en/en_US/lessac/medium/{name}"),
        bytes,
        checksum: Checksum::Md5(md5.into()),
    };
    vec![
        whisper(
            "base.en",
            "recognition of English; about 0.1 s of CPU time per second of speech",
            147_964_211,
            "a03779c86df3323075f5e796cb2ce5029f00ec8869eee3fdfb897afe36c6d002",
        ),
        whisper(
            "tiny.en",
            "recognition of English, for small machines; half the cost and more mistakes",
            77_704_715,
            "921e4cf8686fdd993dcd081a5da5b6c365bfde1162e72b08d75ac75289920b1f",
        ),
        whisper(
            "small.en",
            "recognition of English, for large machines; four times the cost and fewer mistakes",
            487_614_201,
            "c6138d6d58ecc8322097e0f987c32f1be8bb0a18532a3f88f734d1bbf9c41e5d",
        ),
        Model {
            name: "en_US-lessac-medium".into(),
            about: "Piper voice, American English".into(),
            files: vec![
                voice_file("en_US-lessac-medium.onnx", 63_201_294, "2fc642b535197b6305c7c8f92dc8b24f"),
                voice_file("en_US-lessac-medium.onnx.json", 4_885, "c1f2b7bddefe113f3255ff9ef234cfd3"),
            ],
        },
    ]
}

impl Model {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// How much of a model is there, by names and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Missing,
    /// Begun: `pull` goes on where it stopped.
    Partial,
    WrongSize,
    Present,
}

/// The catalogue with what of it is in the folder.
pub fn list(dir: &Path) -> Vec<(Model, Presence)> {
    catalogue().into_iter().map(|model| (presence(&model, dir), model)).map(|(p, m)| (m, p)).collect()
}

fn presence(model: &Model, dir: &Path) -> Presence {
    let sizes: Vec<Option<u64>> =
        model.files.iter().map(|file| Some(std::fs::metadata(dir.join(&file.name)).ok()?.len())).collect();
    if model.files.iter().zip(&sizes).all(|(file, size)| *size == Some(file.bytes)) {
        return Presence::Present;
    }
    if model.files.iter().zip(&sizes).any(|(file, size)| size.is_some_and(|size| size != file.bytes)) {
        return Presence::WrongSize;
    }
    let begun = model.files.iter().any(|file| part_of(&dir.join(&file.name)).exists());
    if begun || sizes.iter().any(Option::is_some) { Presence::Partial } else { Presence::Missing }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// What is known of a file after it was read through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its checksum is the publisher's.
    Verified,
    /// No checksum is known for it; its structure is sound.
    Sound,
    Bad(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("good: its checksum is the publisher's"),
            Self::Sound => f.write_str("sound in its structure; no checksum is known for it"),
            Self::Bad(why) => write!(f, "BAD: {why}"),
        }
    }
}

/// Checks every model and voice in the folder, by checksum where one is known. Reads all of them: seconds. An empty
/// result: there are none.
pub fn verify(dir: &Path) -> io::Result<Vec<(PathBuf, Verdict)>> {
    let known: Vec<ModelFile> = catalogue().into_iter().flat_map(|model| model.files).collect();
    verify_with(&known, dir)
}

fn verify_with(known: &[ModelFile], dir: &Path) -> io::Result<Vec<(PathBuf, Verdict)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut verdicts = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_model = name.starts_with("ggml-") && name.ends_with(".bin")
            || name.ends_with(".onnx")
            || name.ends_with(".onnx.json");
        if is_model {
            let verdict = check(&path, known.iter().find(|file| file.name == name));
            verdicts.push((path, verdict));
        }
    }
    Ok(verdicts)
}

/// Checks one whole file: size and checksum where the file is known, structure in any case.
fn check(path: &Path, known: Option<&ModelFile>) -> Verdict {
    if let Some(known) = known {
        match std::fs::metadata(path).map(|meta| meta.len()) {
            Ok(bytes) if bytes != known.bytes => {
                return Verdict::Bad(format!("it has {bytes} bytes and should have {}", known.bytes));
            }
            Err(error) => return Verdict::Bad(error.to_string()),
            Ok(_) => {}
        }
        match matches(path, &known.checksum) {
            Ok(true) => {}
            Ok(false) => return Verdict::Bad("its checksum is wrong; delete it and run `viva models pull`".into()),
            Err(error) => return Verdict::Bad(error.to_string()),
        }
    }
    match structure(path) {
        Ok(()) if known.is_some() => Verdict::Verified,
        Ok(()) => Verdict::Sound,
        Err(why) => Verdict::Bad(why),
    }
}

/// Whether the file is of the kind that its name says.
fn structure(path: &Path) -> Result<(), String> {
    let name = path.to_string_lossy();
    let name = name.strip_suffix(".part").unwrap_or(&name);
    if name.ends_with(".bin") {
        return ggml::check(path).map(|_| ()).map_err(|error| error.to_string());
    }
    if name.ends_with(".json") {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let json: serde_json::Value =
            serde_json::from_reader(io::BufReader::new(file)).map_err(|error| format!("not JSON: {error}"))?;
        return match json["phoneme_id_map"].is_object() {
            true => Ok(()),
            false => Err("not the description of a Piper voice".into()),
        };
    }
    // ONNX is a protobuf whose first field is `ir_version`: tag 8.
    let mut first = [0];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut first));
    if read.is_ok() && first == [8] { Ok(()) } else { Err("not an ONNX network".into()) }
}

fn matches(path: &Path, checksum: &Checksum) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut read = |update: &mut dyn FnMut(&[u8])| -> io::Result<()> {
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => update(&buffer[..n]),
            }
        }
    };
    Ok(match checksum {
        Checksum::Sha256(wanted) => {
            let mut hash = Sha256::new();
            read(&mut |bytes| hash.update(bytes))?;
            hex(&hash.finalize()) == *wanted
        }
        Checksum::Md5(wanted) => {
            use md5::Digest as _;
            let mut hash = md5::Md5::new();
            read(&mut |bytes| hash.update(bytes))?;
            hex(&hash.finalize()) == *wanted
        }
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
