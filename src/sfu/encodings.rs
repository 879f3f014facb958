//! The streams in which a publisher sends one track: simulcast layers, another codec, a new SSRC after a change. Which
//! of them flow, and which is the best for a receiver. Pure.

use std::time::{Duration, Instant};

use str0m::format::PayloadParams;

use super::{allocator::Step, dependency::Structure, frames::Frame, rates::Rates, subscription::View};

/// A stream without packets for this long has stopped; another may take over.
const STALE_AFTER: Duration = Duration::from_millis(500);
/// Packets closer together than this are of one picture.
const SAME_PICTURE: Duration = Duration::from_millis(5);
/// Longer pauses are none between pictures.
const INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Changes of a stream's codec or layer are believed this far apart.
const CHANGE_SPACING: Duration = Duration::from_secs(1);
/// Three layers in two codecs, and SSRC changes, of which only the newest matter.
const ENCODINGS_MAX: usize = 8;

/// What a stream is of its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of its layer: higher is better; from the order of the rids.
    pub rank: u8,
    /// Made for those who do not take the track's first codec.
    pub backup: bool,
    pub params: PayloadParams,
    /// Receivers may get it with redundancy: sound that its publisher lets us touch.
    pub red: bool,
}

pub struct Encoding {
    pub ssrc: u32,
    pub origin: Origin,
    pub structure: Structure,
    rates: Rates,
    last_seen: Instant,
    /// Between its pictures, about.
    interval: Duration,
    changed: Instant,
    flows: bool,
}

impl Encoding {
    /// Whether it has stopped: it is silent for far longer than between its pictures.
    fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) > STALE_AFTER.max(self.interval * 3)
    }
}

#[derive(Default)]
pub struct Encodings {
    list: Vec<Encoding>,
    /// Changes whenever another answer of [`Self::best`] may be due.
    version: u32,
}

impl Encodings {
    /// A packet came. Gives its stream.
    pub fn see(&mut self, now: Instant, ssrc: u32, origin: &Origin) -> &mut Encoding {
        let mut changed = false;
        for encoding in &mut self.list {
            let flows = encoding.ssrc == ssrc || !encoding.is_stale(now);
            changed |= std::mem::replace(&mut encoding.flows, flows) != flows;
        }
        let at = match self.list.iter().position(|encoding| encoding.ssrc == ssrc) {
            Some(at) => at,
            None => {
                changed = true;
                if self.list.len() >= ENCODINGS_MAX
                    && let Some(oldest) = (0..self.list.len()).min_by_key(|at| self.list[*at].last_seen)
                {
                    self.list.remove(oldest);
                }
                let structure = Structure::default();
                self.list.push(Encoding {
                    ssrc,
                    origin: *origin,
                    structure,
                    rates: Rates::default(),
                    last_seen: now,
                    interval: Duration::ZERO,
                    changed: now,
                    flows: true,
                });
                self.list.len() - 1
            }
        };
        let encoding = &mut self.list[at];
        let gap = now.saturating_duration_since(encoding.last_seen).min(INTERVAL_MAX);
        if gap > SAME_PICTURE {
            encoding.interval = (encoding.interval * 3 + gap) / 4;
        }
        encoding.last_seen = now;
        // A sender may change its codec; one that does so all the time makes work for everybody.
        if encoding.origin != *origin && now.saturating_duration_since(encoding.changed) >= CHANGE_SPACING {
            (encoding.origin, encoding.changed) = (*origin, now);
            changed = true;
        }
        self.version = self.version.wrapping_add(u32::from(changed));
        encoding
    }

    /// Counts a packet of a stream.
    pub fn measure(&mut self, now: Instant, ssrc: u32, frame: &Frame, bytes: usize) {
        if let Some(encoding) = self.list.iter_mut().find(|encoding| encoding.ssrc == ssrc) {
            encoding.rates.add(now, frame.spatial, frame.temporal, bytes);
        }
    }

    /// What the track takes in all, bits per second.
    pub fn bps(&self, now: Instant) -> u64 {
        let flowing = self.list.iter().filter(|encoding| !encoding.is_stale(now));
        flowing.map(|encoding| encoding.rates.up_to(usize::MAX - 1, usize::MAX - 1)).sum()
    }

    /// The ways in which a receiver could get the track within its view, cheapest first; those whose rate is not known yet
    /// are left out. Fewer pictures a second come before none, and before them the next better layer.
    pub fn steps(&self, now: Instant, view: View, takes: impl Fn(&PayloadParams) -> bool) -> Vec<Step> {
        let of_kind = |backup: bool| {
            let fits = self
                .list
                .iter()
                .filter(|it| !it.is_stale(now) && it.origin.backup == backup && takes(&it.origin.params));
            let mut fits: Vec<_> = fits.collect();
            fits.sort_by_key(|encoding| encoding.origin.rank);
            fits
        };
        let mut streams = of_kind(false);
        if streams.is_empty() {
            streams = of_kind(true);
        }
        let Some(lowest) = streams.first() else { return Vec::new() };
        let (most, top) = (usize::MAX - 1, u8::MAX);
        let base = if streams.len() == 1 { 0 } else { usize::from(lowest.origin.rank) };
        let temporal = lowest.rates.temporal_max().min(usize::from(view.temporal));
        let spatial = if streams.len() == 1 { lowest.rates.spatial_max().min(usize::from(view.layer)) } else { 0 };
        let mut steps: Vec<Step> = (0..=temporal)
            .map(|at| Step {
                layer: base as u8,
                temporal: if at == temporal { top } else { at as u8 },
                bps: lowest.rates.up_to(if streams.len() == 1 { 0 } else { most }, at),
            })
            .collect();
        let higher = (1..=spatial).map(|at| Step { layer: at as u8, temporal: top, bps: lowest.rates.up_to(at, most) });
        steps.extend(higher);
        let simulcast = streams.iter().skip(1).filter(|encoding| encoding.origin.rank <= view.layer);
        steps.extend(simulcast.map(|encoding| Step {
            layer: encoding.origin.rank,
            temporal: top,
            bps: encoding.rates.up_to(most, most),
        }));
        steps.retain(|step| step.bps > 0);
        steps
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn get(&self, ssrc: u32) -> Option<&Encoding> {
        self.list.iter().find(|encoding| encoding.ssrc == ssrc)
    }

    /// The stream for who wants nothing above `rank` and takes what `takes` says: the highest that flows up to there,
    /// else the lowest above. Of two with one rank, the newer. A second codec is for those who do not take the first.
    pub fn best(&self, rank: u8, takes: impl Fn(&PayloadParams) -> bool) -> Option<u32> {
        self.best_among(rank, |encoding| !encoding.origin.backup && takes(&encoding.origin.params))
            .or_else(|| self.best_among(rank, |encoding| encoding.origin.backup && takes(&encoding.origin.params)))
    }

    fn best_among(&self, rank: u8, fits: impl Fn(&Encoding) -> bool) -> Option<u32> {
        let fits = |encoding: &&Encoding| encoding.flows && fits(encoding);
        let up_to = self
            .list
            .iter()
            .filter(fits)
            .filter(|encoding| encoding.origin.rank <= rank)
            .max_by_key(|it| it.origin.rank);
        let best = up_to.or_else(|| self.list.iter().filter(fits).min_by_key(|encoding| encoding.origin.rank));
        best.map(|encoding| encoding.ssrc)
    }
}

#[cfg(test)]
mod tests {
    use str0m::{
        format::{Codec, CodecSpec, FormatParams},
        media::Frequency,
    };

    use super::*;

    fn origin(rank: u8, backup: bool, codec: Codec) -> Origin {
        Origin { rank, backup, params: params(codec), red: false }
    }

    fn params(codec: Codec) -> PayloadParams {
        let spec =
            CodecSpec { codec, clock_rate: Frequency::NINETY_KHZ, channels: None, format: FormatParams::default() };
        PayloadParams::new(96.into(), None, spec)
    }

    #[test]
    fn the_best_that_flows_up_to_what_is_wanted_is_taken() {
        let (mut encodings, now) = (Encodings::default(), Instant::now());
        assert_eq!(encodings.best(2, |_| true), None);
        for rank in 0..3 {
            encodings.see(now, 10 + u32::from(rank), &origin(rank, false, Codec::Vp8));
        }
        assert_eq!([0, 1, 2].map(|rank| encodings.best(rank, |_| true)), [Some(10), Some(11), Some(12)]);
        // The two lower ones stop.
        let later = now + STALE_AFTER + Duration::from_millis(1);
        let version = encodings.version();
        encodings.see(later, 12, &origin(2, false, Codec::Vp8));
        assert_ne!(encodings.version(), version);
        assert_eq!(encodings.best(0, |_| true), Some(12), "better too good than nothing");
        encodings.see(later, 10, &origin(0, false, Codec::Vp8));
        assert_eq!(encodings.best(1, |_| true), Some(10));
        assert_eq!(encodings.best(1, |params| params.spec().codec == Codec::H264), None);
    }

    #[test]
    fn a_second_codec_is_for_those_who_do_not_take_the_first() {
        let (mut encodings, now) = (Encodings::default(), Instant::now());
        encodings.see(now, 1, &origin(0, false, Codec::Vp9));
        encodings.see(now, 2, &origin(2, true, Codec::Vp8));
        assert_eq!(encodings.best(2, |_| true), Some(1));
        assert_eq!(encodings.best(0, |params| params.spec().codec == Codec::Vp8), Some(2));
    }

    #[test]
    fn a_new_stream_takes_the_place_of_an_old_one_of_the_same_rank() {
        let (mut encodings, now) = (Encodings::default(), Instant::now());
        encodings.see(now, 1, &origin(0, false, Codec::Vp8));
        encodings.see(now, 2, &origin(0, false, Codec::Vp8));
        assert_eq!(encodings.best(0, |_| true), Some(2));
    }
}
