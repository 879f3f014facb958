//! What a video packet is within its stream: where pictures and keyframes begin, and which layers it is of.
//!
//! Reads payload descriptors only (VP8: RFC 7741; VP9: RFC 9628; H.264: RFC 6184; AV1: its RTP specification), or the
//! dependency descriptor where there is one. This reads bytes of clients: it must take any without panic.

use str0m::{format::Codec, rtp::Vp8Descriptor};

use super::dependency::Dependency;

/// One packet's place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// A picture that needs no other begins here.
    pub keyframe: bool,
    /// A picture begins here: the first packet of its lowest layer.
    pub starts: bool,
    /// The last packet of its spatial layer's part of the picture.
    pub ends: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// Who gets the temporal layers below may get this one, too, from here on.
    pub sync: bool,
    pub vp8: Option<Vp8Descriptor>,
}

impl Frame {
    /// Reads a packet's payload; `marker` is the RTP header's.
    pub fn read(codec: Codec, payload: &[u8], marker: bool, dependency: Option<Dependency>) -> Self {
        let read = match codec {
            Codec::Vp8 => vp8(payload, marker),
            Codec::Vp9 => vp9(payload),
            Codec::H264 => Some(h264(payload, marker)),
            Codec::Av1 => payload.first().map(|first| av1(*first, marker)),
            _ => None,
        };
        let frame = read.unwrap_or(Self { ends: marker, ..Self::default() });
        let Some(dependency) = dependency else { return frame };
        // The descriptor knows better where the payload says little; VP8 and VP9 say all there is to know themselves.
        match codec {
            Codec::Vp8 | Codec::Vp9 => frame,
            _ => Self {
                keyframe: if codec == Codec::Av1 { dependency.keyframe } else { frame.keyframe },
                starts: dependency.starts && dependency.spatial == 0,
                ends: dependency.ends,
                spatial: dependency.spatial,
                temporal: dependency.temporal,
                // In every structure that encoders use, a layer needs only those below it since their last picture.
                sync: true,
                vp8: None,
            },
        }
    }
}

fn vp8(payload: &[u8], marker: bool) -> Option<Frame> {
    let descriptor = Vp8Descriptor::parse(payload).ok()?;
    let first = *payload.first()?;
    let starts = first & 0x10 != 0 && first & 0x07 == 0;
    let (temporal, sync) = vp8_temporal(payload).unwrap_or((0, true));
    let keyframe = descriptor.starts_keyframe(payload);
    Some(Frame { keyframe, starts, ends: marker, spatial: 0, temporal, sync, vp8: Some(descriptor) })
}

/// TID and Y of the descriptor, RFC 7741 section 4.2.
fn vp8_temporal(payload: &[u8]) -> Option<(u8, bool)> {
    let extended = payload.first()? & 0x80 != 0;
    let extension = *payload.get(1).filter(|_| extended)?;
    if extension & 0x20 == 0 {
        return None;
    }
    let mut at = 2;
    if extension & 0x80 != 0 {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    at += usize::from(extension & 0x40 != 0);
    let byte = payload.get(at)?;
    Some((byte >> 6, byte & 0x20 != 0))
}

/// RFC 9628 section 4.2.
fn vp9(payload: &[u8]) -> Option<Frame> {
    let first = *payload.first()?;
    let [picture_id, inter_picture, layers, flexible, begins, ends] = bits(first);
    let mut at = 1;
    if picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let (mut temporal, mut spatial, mut sync, mut on_lower) = (0, 0, true, false);
    if layers {
        let byte = *payload.get(at)?;
        (temporal, sync, spatial, on_lower) = (byte >> 5, byte & 0x10 != 0, byte >> 1 & 0x07, byte & 1 != 0);
        at += 1 + usize::from(!flexible);
    }
    // Nothing behind the descriptor.
    payload.get(at)?;
    let starts = begins && spatial == 0 && !on_lower;
    Some(Frame { keyframe: starts && !inter_picture, starts, ends, spatial, temporal, sync, vp8: None })
}

/// The six highest bits.
fn bits(byte: u8) -> [bool; 6] {
    std::array::from_fn(|at| byte & (0x80 >> at) != 0)
}

/// A keyframe begins with its parameter sets: without them it cannot be decoded.
fn h264(payload: &[u8], marker: bool) -> Frame {
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    let unit = |byte: u8| byte & 0x1f;
    let keyframe = match payload.first().map(|byte| unit(*byte)) {
        Some(SPS) => true,
        Some(STAP_A) => aggregated(&payload[1..]).any(|nal| unit(nal) == SPS),
        _ => false,
    };
    Frame { keyframe, starts: keyframe, ends: marker, sync: true, ..Frame::default() }
}

/// First bytes of the units in an aggregation packet, RFC 6184 section 5.7.1.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (size, tail) = rest.split_first_chunk::<2>()?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        rest = tail;
        unit.first().copied()
    })
}

/// By the aggregation header alone (AV1 RTP specification section 4.4): Z W N.
fn av1(first: u8, marker: bool) -> Frame {
    let (continues, new_sequence) = (first & 0x80 != 0, first & 0x08 != 0);
    let keyframe = new_sequence && !continues;
    Frame { keyframe, starts: keyframe, ends: marker, sync: true, ..Frame::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(codec: Codec, payload: &[u8]) -> Frame {
        Frame::read(codec, payload, false, None)
    }

    #[test]
    fn vp8_says_keyframe_start_and_temporal_layer() {
        // X S, I L T, 15-bit picture id, TL0PICIDX, TID 1 with Y; then a keyframe's and a delta frame's header.
        let head = [0x90, 0xe0, 0x81, 0x02, 7, 0x60];
        let frame = read(Codec::Vp8, &[&head[..], &[0x10, 0, 0]].concat());
        assert!(frame.keyframe && frame.starts && frame.sync);
        assert_eq!(frame.temporal, 1);
        let frame = read(Codec::Vp8, &[&head[..], &[0x11, 0, 0]].concat());
        assert!(!frame.keyframe && frame.starts);
        let plain = read(Codec::Vp8, &[0x10, 0x10, 0, 0]);
        assert!(plain.keyframe && plain.sync && plain.temporal == 0);
    }

    #[test]
    fn vp9_says_which_layer_and_where_the_picture_begins() {
        // I L B, picture id 5, TID 0 SID 0, TL0PICIDX.
        let key = read(Codec::Vp9, &[0b1010_1000, 5, 0, 9, 0xaa]);
        assert!(key.keyframe && key.starts && !key.ends);
        // I L B E, TID 2 U SID 1 D: the second spatial layer of the same picture.
        let upper = read(Codec::Vp9, &[0b1010_1100, 5, 0b0101_0011, 9, 0xaa]);
        assert!(!upper.keyframe && !upper.starts && upper.ends && upper.sync);
        assert_eq!((upper.spatial, upper.temporal), (1, 2));
        let delta = read(Codec::Vp9, &[0b1110_1000, 5, 0, 9, 0xaa]);
        assert!(!delta.keyframe && delta.starts);
    }

    #[test]
    fn a_h264_keyframe_begins_with_its_parameters() {
        assert!(read(Codec::H264, &[0x67, 1, 2]).keyframe);
        assert!(read(Codec::H264, &[0x78, 0, 2, 0x67, 0, 0, 2, 0x68, 0]).keyframe);
        assert!(!read(Codec::H264, &[0x65, 1, 2]).keyframe, "without parameters it cannot be decoded");
        assert!(!read(Codec::H264, &[0x78, 0, 200, 0x67]).keyframe, "cut off");
        assert!(!read(Codec::H264, &[0x41, 1]).keyframe);
    }

    #[test]
    fn av1_says_new_sequences_and_the_dependency_descriptor_the_rest() {
        assert!(read(Codec::Av1, &[0x18, 0]).keyframe);
        assert!(!read(Codec::Av1, &[0x88, 0]).keyframe);
        let dependency = Dependency { starts: true, ends: true, keyframe: false, spatial: 2, temporal: 1 };
        let frame = Frame::read(Codec::Av1, &[0x10, 0], false, Some(dependency));
        assert_eq!((frame.spatial, frame.temporal, frame.starts, frame.ends), (2, 1, false, true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus] {
                let frame = read(codec, &payload);
                prop_assert!(frame.spatial < 8 && frame.temporal < 8);
            }
        }
    }
}
