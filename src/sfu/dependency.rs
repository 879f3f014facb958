//! The dependency descriptor, a header extension that says of each packet which layers it is of (AV1 RTP specification,
//! appendix A). Carried to receivers of AV1 as it came; read for AV1 and H.264.
//!
//! This reads bytes of clients: it must take any without panic.

use std::sync::Arc;

use str0m::rtp::{ExtensionSerializer, ExtensionValues};

pub const URI: &str = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// Templates of one structure: the format has six bits for their numbers.
const TEMPLATES_MAX: usize = 64;

/// The bytes as they came, and the frame number to send them with where that is another.
#[derive(Clone, Debug)]
pub struct DependencyBytes {
    bytes: Arc<[u8]>,
    number: Option<u16>,
}

impl DependencyBytes {
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), number: None }
    }

    pub fn as_received(&self) -> &[u8] {
        &self.bytes
    }

    pub fn frame_number(&self) -> Option<u16> {
        let received = self.bytes.get(1..3).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        self.number.or(received)
    }

    /// The same for another frame number.
    pub fn with_frame_number(&self, number: u16) -> Self {
        Self { bytes: self.bytes.clone(), number: Some(number) }
    }

    /// Writes them over a copy of what was received.
    pub fn renumber(&self, copy: &mut [u8]) {
        if let (Some(number), Some(to)) = (self.number, copy.get_mut(1..3)) {
            to.copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// Takes the extension in; what is sent is written by `extensions.rs`.
#[derive(Debug)]
pub struct Carrier;

impl ExtensionSerializer for Carrier {
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DependencyBytes::new(buf));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}

/// What it says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub starts: bool,
    pub ends: bool,
    /// A new structure comes with it, as with every keyframe.
    pub keyframe: bool,
    pub spatial: u8,
    pub temporal: u8,
}

/// The templates that a stream's last keyframe brought: spatial and temporal layer of each.
#[derive(Clone, Debug, Default)]
pub struct Structure {
    offset: u8,
    layers: Vec<(u8, u8)>,
}

impl Structure {
    /// Reads a packet's descriptor, and keeps the structure if it brings one. `None` where it cannot be understood.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Dependency> {
        let mut bits = Bits { bytes, at: 0 };
        let (starts, ends, template) = (bits.flag()?, bits.flag()?, bits.take(6)?);
        let _frame_number = bits.take(16)?;
        let mut keyframe = false;
        if bytes.len() > 3 {
            let brings_structure = bits.flag()?;
            // Active decode targets, and which definitions are the packet's own.
            let _ = bits.take(4)?;
            if brings_structure {
                *self = Self::parse(&mut bits)?;
                keyframe = starts;
            }
        }
        let index = (template + TEMPLATES_MAX as u8).wrapping_sub(self.offset) % TEMPLATES_MAX as u8;
        let (spatial, temporal) = *self.layers.get(usize::from(index))?;
        Some(Dependency { starts, ends, keyframe: keyframe && spatial == 0, spatial, temporal })
    }

    /// `template_dependency_structure` up to the templates' layers; what follows is for who decodes.
    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let (offset, _decode_targets) = (bits.take(6)?, bits.take(5)?);
        let (mut layers, mut spatial, mut temporal) = (Vec::new(), 0u8, 0u8);
        loop {
            if layers.len() >= TEMPLATES_MAX {
                return None;
            }
            layers.push((spatial, temporal));
            match bits.take(2)? {
                0 => {}
                1 => temporal = temporal.checked_add(1).filter(|it| *it < 8)?,
                2 => (spatial, temporal) = (spatial.checked_add(1).filter(|it| *it < 4)?, 0),
                _ => return Some(Self { offset, layers }),
            }
        }
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        Some(self.take(1)? != 0)
    }

    /// The next bits, highest first; of more than eight the lowest eight.
    fn take(&mut self, count: usize) -> Option<u8> {
        let mut value = 0u8;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | byte >> (7 - self.at % 8) & 1;
            self.at += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes bits as the specification lists them.
    fn bytes(fields: &[(u32, usize)]) -> Vec<u8> {
        let mut bits = Vec::new();
        for (value, count) in fields {
            bits.extend((0..*count).rev().map(|at| value >> at & 1));
        }
        bits.chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | (*bit as u8) << (7 - at)))
            .collect()
    }

    #[test]
    fn layers_are_those_of_the_last_structure() {
        let mut structure = Structure::default();
        assert_eq!(structure.read(&[0xc0, 0, 1]), None, "no structure yet");
        // Start, no end, template 5; a structure from template 5 on with two spatial layers of two temporal ones.
        let head = [(1, 1), (0, 1), (5, 6), (1, 16), (1, 1), (0, 4)];
        let templates = [(5, 6), (3, 5), (1, 2), (2, 2), (1, 2), (3, 2)];
        let first = structure.read(&bytes(&[&head[..], &templates].concat())).unwrap();
        assert_eq!(first, Dependency { starts: true, ends: false, keyframe: true, spatial: 0, temporal: 0 });
        let next = structure.read(&bytes(&[(0, 1), (1, 1), (8, 6), (2, 16)])).unwrap();
        assert_eq!(next, Dependency { starts: false, ends: true, keyframe: false, spatial: 1, temporal: 1 });
        assert_eq!(structure.read(&bytes(&[(0, 1), (1, 1), (9, 6), (2, 16)])), None, "a template that is not there");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..4),
        ) {
            let mut structure = Structure::default();
            for packet in packets {
                if let Some(dependency) = structure.read(&packet) {
                    prop_assert!(dependency.spatial < 4 && dependency.temporal < 8);
                }
            }
        }
    }
}
