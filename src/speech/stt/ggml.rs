//! Checks a whisper model file before whisper.cpp sees it.
//!
//! whisper.cpp trusts its files: one that is cut off loads as an empty model, and the first use of it aborts the whole
//! process. So the file is walked through here, tensor by tensor, without reading the weights: every header, name and
//! size must fit, all tensors must be there, and the last one must end where the file ends. What this cannot find are
//! changed weights: for that there are checksums.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

/// First four bytes, little-endian.
const MAGIC: u32 = 0x6767_6d6c;
/// Sanity limits of the header: above the largest whisper there is.
const WIDTH_MAX: u32 = 4096;
const LAYERS_MAX: u32 = 64;
const VOCABULARY: std::ops::RangeInclusive<u32> = 51_864..=51_866;
/// Bytes of the longest token and tensor name.
const NAME_MAX: u32 = 256;
/// Tokens that whisper.cpp looks up when it decodes; without them it aborts.
const NEEDED_TOKENS: [&[u8]; 3] = [b" ", b" -", b" '"];

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Whether it knows English only.
    pub english_only: bool,
    /// Width of the encoder: 384 for tiny, 512 for base, 768 for small.
    pub width: u32,
    /// Positions of the encoder; 1500 are 30 s.
    pub audio_context: u32,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("the model file `{0}` does not exist")]
    Missing(String),
    #[error("the model file cannot be read: {0}")]
    Io(io::Error),
    #[error("not a whisper model in ggml format (its first bytes are wrong)")]
    NotGgml,
    #[error("the model file is damaged: {0}")]
    Damaged(&'static str),
}

impl From<io::Error> for ModelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it is cut off"),
            _ => Self::Io(error),
        }
    }
}

struct Header {
    vocabulary: u32,
    audio_context: u32,
    width: u32,
    encoder_layers: u32,
    decoder_layers: u32,
}

/// Walks through the file. Reads about 1 MB of it.
pub fn check(path: &Path) -> Result<ModelInfo, ModelError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ModelError::Missing(path.display().to_string()),
        _ => ModelError::Io(error),
    })?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    if u32_from(&mut reader)? != MAGIC {
        return Err(ModelError::NotGgml);
    }
    let header = read_header(&mut reader)?;
    skip_filters(&mut reader)?;
    check_vocabulary(&mut reader, &header)?;
    check_tensors(&mut reader, &header, bytes)?;
    Ok(ModelInfo {
        english_only: header.vocabulary == *VOCABULARY.start(),
        width: header.width,
        audio_context: header.audio_context,
        bytes,
    })
}

fn u32_from(reader: &mut impl Read) -> Result<u32, ModelError> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_header(reader: &mut impl Read) -> Result<Header, ModelError> {
    let mut h = [0u32; 11];
    for value in &mut h {
        *value = u32_from(reader)?;
    }
    let [vocabulary, audio_context, width, heads, encoder_layers, text_context, text_width, _, decoder_layers, mels, _] =
        h;
    let sane = VOCABULARY.contains(&vocabulary)
        && (1..=1500).contains(&audio_context)
        && (1..=WIDTH_MAX).contains(&width)
        && text_width == width
        && heads > 0
        && width % heads == 0
        && (1..=LAYERS_MAX).contains(&encoder_layers)
        && (1..=LAYERS_MAX).contains(&decoder_layers)
        && (1..=1024).contains(&text_context)
        && matches!(mels, 80 | 128);
    if !sane {
        return Err(ModelError::Damaged("its header makes no sense"));
    }
    Ok(Header { vocabulary, audio_context, width, encoder_layers, decoder_layers })
}

fn skip_filters<R: Read + Seek>(reader: &mut BufReader<R>) -> Result<(), ModelError> {
    let (mels, bins) = (u32_from(reader)?, u32_from(reader)?);
    if !matches!(mels, 80 | 128) || bins != 201 {
        return Err(ModelError::Damaged("its filters have a wrong size"));
    }
    Ok(reader.seek_relative(i64::from(mels * bins * 4))?)
}

fn check_vocabulary(reader: &mut impl Read, header: &Header) -> Result<(), ModelError> {
    let tokens = u32_from(reader)?;
    if tokens == 0 || tokens > header.vocabulary {
        return Err(ModelError::Damaged("its vocabulary has a wrong size"));
    }
    let mut found = [false; NEEDED_TOKENS.len()];
    let mut token = [0; NAME_MAX as usize];
    for _ in 0..tokens {
        let length = u32_from(reader)?;
        if length > NAME_MAX {
            return Err(ModelError::Damaged("its vocabulary makes no sense"));
        }
        let token = &mut token[..length as usize];
        reader.read_exact(token)?;
        for (found, needed) in found.iter_mut().zip(NEEDED_TOKENS) {
            *found |= *token == *needed;
        }
    }
    if found.contains(&false) {
        return Err(ModelError::Damaged("its vocabulary lacks tokens that recognition needs"));
    }
    Ok(())
}

fn check_tensors<R: Read + Seek>(
    reader: &mut BufReader<R>,
    header: &Header,
    file_bytes: u64,
) -> Result<(), ModelError> {
    // Fixed ones of encoder and decoder, then those of each layer; cross-attention is in the decoder only.
    let expected = 11 + 15 * header.encoder_layers + 24 * header.decoder_layers;
    for _ in 0..expected {
        let (dimensions, name_length, kind) = (u32_from(reader)?, u32_from(reader)?, u32_from(reader)?);
        if !(1..=4).contains(&dimensions) || name_length > NAME_MAX {
            return Err(ModelError::Damaged("a tensor's header makes no sense"));
        }
        let mut elements = 1u64;
        for _ in 0..dimensions {
            elements = elements.saturating_mul(u64::from(u32_from(reader)?));
        }
        reader.seek_relative(i64::from(name_length))?;
        let bytes = tensor_bytes(kind, elements).ok_or(ModelError::Damaged("a tensor has an unknown type"))?;
        let end = reader.stream_position()?.saturating_add(bytes);
        if end > file_bytes {
            return Err(ModelError::Damaged("it is cut off"));
        }
        reader.seek_relative(bytes as i64)?;
    }
    if reader.stream_position()? != file_bytes {
        return Err(ModelError::Damaged("there is something after its end"));
    }
    Ok(())
}

/// Bytes of a tensor by its type in ggml.
fn tensor_bytes(kind: u32, elements: u64) -> Option<u64> {
    // (elements in a block, bytes of a block)
    let (block, bytes) = match kind {
        0 => (1, 4),
        1 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        _ => return None,
    };
    elements.is_multiple_of(block).then(|| (elements / block).saturating_mul(bytes))
}
