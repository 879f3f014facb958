//! What one client is to receive, and which sections of its connection carry it; whoever it is that offers.

use super::{MediaKind, subscription::View, track::TrackKey};
use crate::id::TrackSid;

/// Tracks that one client may receive.
pub const WISHES_MAX: usize = 256;

/// Tracks that are remembered of one section.
const EARLIER_MAX: usize = 16;

/// What a section on which the client receives is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// May carry a track.
    Free,
    Carries(TrackKey),
    /// Its track ended; the client has yet to learn it.
    Released,
}

pub struct Section {
    pub mid: String,
    pub kind: MediaKind,
    pub usage: Use,
    /// Whether the client takes anything on it.
    pub receives: bool,
    /// Tracks that it was offered for, the newest last. When full the oldest is forgotten. By the names that clients know:
    /// a track of another worker's is another one here each time that it is taken, under the same name.
    earlier: Vec<TrackSid>,
}

impl Section {
    pub fn new(mid: String, kind: MediaKind, usage: Use) -> Self {
        Self { mid, kind, usage, receives: true, earlier: Vec::new() }
    }

    /// Whether it was offered for this track before.
    pub fn knows(&self, track: &TrackSid) -> bool {
        self.earlier.contains(track)
    }

    /// It was offered for this track.
    pub fn remember(&mut self, track: TrackSid) {
        self.earlier.retain(|earlier| *earlier != track);
        if self.earlier.len() == EARLIER_MAX {
            self.earlier.remove(0);
        }
        self.earlier.push(track);
    }
}

/// A track that this client is to receive.
pub struct Wish {
    pub track: TrackKey,
    pub sid: TrackSid,
    pub kind: MediaKind,
    pub view: View,
    /// A section carries it, or has been offered for it.
    pub attached: bool,
}

#[derive(Default)]
pub struct Downlinks {
    pub sections: Vec<Section>,
    pub wishes: Vec<Wish>,
}

impl Downlinks {
    /// The client is to receive this track. False where it is already, or may have no more.
    pub fn wish(&mut self, track: TrackKey, sid: &TrackSid, kind: MediaKind) -> bool {
        if self.wishes.len() >= WISHES_MAX || self.wishes.iter().any(|wish| wish.track == track) {
            return false;
        }
        self.wishes.push(Wish { track, sid: sid.clone(), kind, view: View::default(), attached: false });
        true
    }

    /// The client is not to receive this track any more.
    pub fn unwish(&mut self, track: TrackKey) {
        self.wishes.retain(|wish| wish.track != track);
        for section in self.sections.iter_mut().filter(|section| section.usage == Use::Carries(track)) {
            section.usage = Use::Released;
        }
    }

    /// The client is to receive nothing of what it received.
    pub fn unwish_all(&mut self) {
        self.wishes.clear();
        for section in self.sections.iter_mut().filter(|section| matches!(section.usage, Use::Carries(_))) {
            section.usage = Use::Released;
        }
    }

    pub fn set_view(&mut self, track: TrackKey, view: View) {
        if let Some(wish) = self.wishes.iter_mut().find(|wish| wish.track == track) {
            wish.view = view;
        }
    }

    /// The track that a section carries to the client.
    pub fn carried(&self, mid: &str) -> Option<TrackKey> {
        self.sections.iter().find(|section| section.mid == mid).and_then(|section| match section.usage {
            Use::Carries(track) => Some(track),
            _ => None,
        })
    }
}
