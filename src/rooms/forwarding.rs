//! Participants that a service shows in another room, too.
//!
//! There a *double* stands for the participant: with its identity, name, attributes and tracks, and without a client. Its
//! tracks are fed by lanes of the media core. Nobody can ask anything of it there, it receives nothing, and agents of
//! this server are told nothing of it: consent was given in its own room, and holds there.
//!
//! The room of the participant puts what is to be shown into a watch channel and never waits; one task for each double
//! ([`super::forwarder`]) carries it over. A double goes when its participant leaves, and when it is taken out itself.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use livekit_protocol as proto;
use proto::{DisconnectReason, SubscriptionPermission, TrackInfo, TrackType, participant_info};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    AdminError, Now,
    participant::{MediaState, Participant, Track},
    quota::Seat,
    room::Room,
};
use crate::{
    auth::{Claims, Grants},
    id::{Identity, ParticipantSid, TrackSid},
    sfu::{Command, Connections, LaneEnd, LaneId, MediaKind},
};

/// Other rooms in which one participant may be shown: each gets all of its packets.
const OUTLETS_MAX: usize = 16;

/// Lanes so far, of all rooms.
static LANES: AtomicU64 = AtomicU64::new(0);

/// A name that no lane had.
pub(super) fn next_lane() -> LaneId {
    LaneId(LANES.fetch_add(1, Ordering::Relaxed) + 1)
}

/// What others see of a participant, wherever they see it.
#[derive(Clone, PartialEq)]
pub(super) struct Shown {
    name: String,
    metadata: String,
    attributes: HashMap<String, String>,
    can_publish: bool,
    sources: Vec<String>,
    /// Who may have its tracks.
    permission: Option<SubscriptionPermission>,
    tracks: Vec<TrackInfo>,
}

impl Shown {
    fn of(p: &Participant) -> Self {
        Self {
            name: p.name.clone(),
            metadata: p.metadata.clone(),
            attributes: p.attributes.clone(),
            can_publish: p.grants.can_publish(),
            sources: p.grants.can_publish_sources.clone(),
            permission: p.permission.clone(),
            tracks: p.live_tracks().map(|track| track.info.clone()).collect(),
        }
    }
}

/// Another room in which a participant is shown.
pub(super) struct Outlet {
    /// Who stands for it there.
    double: ParticipantSid,
    room: crate::id::RoomSid,
    shown: watch::Sender<Shown>,
    over: CancellationToken,
    lanes: Vec<LaneId>,
}

/// What a double is made of.
pub(super) struct Showing {
    pub source: ParticipantSid,
    /// Its media worker.
    pub worker: usize,
    pub identity: Identity,
    pub kind: participant_info::Kind,
    pub hidden: bool,
    pub shown: watch::Receiver<Shown>,
}

/// What makes a participant a double.
pub(super) struct Double {
    /// The other worker as seen from each side, if there are two.
    pub from: Option<usize>,
    pub to: Option<usize>,
    /// The tracks there, and here.
    tracks: Vec<(TrackSid, TrackSid)>,
    permission: Option<SubscriptionPermission>,
    /// Tells the task that the double is gone.
    _over: DropGuard,
}

impl Double {
    pub fn new(from: Option<usize>, to: Option<usize>, over: CancellationToken) -> Self {
        Self { from, to, tracks: Vec::new(), permission: None, _over: over.drop_guard() }
    }
}

/// A lane that is to be opened at a track of the participant's own room.
pub(super) type Opening = (TrackSid, LaneEnd);

/// The participant's own room.
impl Room {
    /// Whether this participant can be shown elsewhere.
    pub fn may_show(&self, identity: &Identity) -> Result<(), AdminError> {
        let p = self.find_own(identity)?;
        let shown = p.outlets.iter().filter(|outlet| !outlet.over.is_cancelled()).count();
        if shown < OUTLETS_MAX { Ok(()) } else { Err(AdminError::TooManyForwards) }
    }

    /// Begins to show a participant in the other room. `None` where it is shown there already. `over` is cancelled when
    /// its double is gone.
    pub fn show_in(
        &mut self,
        identity: &Identity,
        room: &crate::id::RoomSid,
        double: ParticipantSid,
        over: CancellationToken,
    ) -> Result<Option<Showing>, AdminError> {
        let source = self.find_own(identity)?.sid.clone();
        let Some(p) = self.get_mut(&source) else { return Err(AdminError::NoParticipant) };
        if p.outlets.iter().any(|outlet| outlet.room == *room && !outlet.over.is_cancelled()) {
            return Ok(None);
        }
        self.may_show(identity)?;
        let Some(p) = self.get_mut(&source) else { return Err(AdminError::NoParticipant) };
        let (sender, shown) = watch::channel(Shown::of(p));
        p.outlets.push(Outlet { double, room: room.clone(), shown: sender, over, lanes: Vec::new() });
        let worker = p.worker;
        let showing = Showing { source, worker, identity: p.identity.clone(), kind: p.kind, hidden: p.hidden(), shown };
        // From here on its videos have viewers who are not seen here.
        self.demand_changed = true;
        Ok(Some(showing))
    }

    /// Feeds a double's tracks.
    pub fn open_lanes(&mut self, source: &ParticipantSid, double: &ParticipantSid, lanes: Vec<Opening>) {
        let Some(p) = self.get_mut(source) else { return };
        let Some(outlet) = p.outlets.iter_mut().find(|outlet| outlet.double == *double) else { return };
        outlet.lanes.extend(lanes.iter().map(|(_, end)| end.lane));
        for (track, to) in lanes {
            let (room, participant) = (self.sid.clone(), source.clone());
            self.media(Command::OpenLane { room, participant, track, to });
        }
    }

    /// The double is gone, or was never let in.
    pub fn stop_showing(&mut self, source: &ParticipantSid, double: &ParticipantSid) {
        let Some(p) = self.get_mut(source) else { return };
        let ended: Vec<_> = p.outlets.extract_if(.., |outlet| outlet.double == *double).collect();
        self.demand_changed = true;
        for lane in ended.into_iter().flat_map(|outlet| outlet.lanes) {
            self.media(Command::CloseLane { room: self.sid.clone(), lane });
        }
    }

    /// Must follow every change of what others see: passes it on to where it is shown.
    pub(super) fn update_outlets(&mut self) {
        if !std::mem::take(&mut self.shown_changed) {
            return;
        }
        for p in self.participants.iter().filter(|p| !p.outlets.is_empty()) {
            let shown = Shown::of(p);
            for outlet in &p.outlets {
                outlet.shown.send_if_modified(|last| {
                    let changed = *last != shown;
                    if changed {
                        last.clone_from(&shown);
                    }
                    changed
                });
            }
        }
    }
}

/// The room in which it is shown.
impl Room {
    /// Lets a double in. What it shows follows by [`Room::update_double`].
    pub fn take_double(
        &mut self,
        now: Now,
        sid: ParticipantSid,
        showing: &Showing,
        double: Double,
        seat: Option<Seat>,
    ) -> Result<(), AdminError> {
        if self.predecessor(&showing.identity, showing.kind)?.is_some() {
            return Err(AdminError::AlreadyThere);
        }
        let claims = Claims::new(&showing.identity, Grants::participant(&self.name));
        let mut p = Participant::new(showing.identity.clone(), claims, now);
        // Nobody holds a token for it.
        p.claims = None;
        p.sid = sid.clone();
        p.kind = showing.kind;
        p.media = MediaState::Elsewhere;
        p.state = participant_info::State::Active;
        p.grants.hidden = showing.hidden;
        p.double = Some(double);
        p.seat = seat;
        describe(&mut p, &showing.shown.borrow());
        self.enter(p);
        let (room, participant) = (self.sid.clone(), sid.clone());
        self.media(Command::Join { room, participant, connections: Connections::None });
        self.announce(&sid, false);
        self.tell_room_update(Some(&sid));
        self.hook_joined(&sid);
        Ok(())
    }

    /// Brings a double in line with its participant. Returns the lanes that its tracks are to be fed by; `None` where the
    /// double is gone.
    pub fn update_double(&mut self, sid: &ParticipantSid, shown: &Shown) -> Option<Vec<Opening>> {
        // Before there is anything that somebody could get.
        self.permit_double(sid, shown);
        let p = self.get_mut(sid)?;
        let changed = describe(p, shown);
        let double = p.double.as_mut()?;
        let gone = |there: &TrackSid| !shown.tracks.iter().any(|info| info.sid == there.as_str());
        let ended: Vec<_> = double.tracks.extract_if(.., |(there, _)| gone(there)).collect();
        let new: Vec<_> = shown
            .tracks
            .iter()
            .filter(|info| !double.tracks.iter().any(|(there, _)| there.as_str() == info.sid))
            .cloned()
            .collect();
        for (_, here) in ended {
            self.track_ended(sid, &here);
            let (room, participant) = (self.sid.clone(), sid.clone());
            self.media(Command::Unpublish { room, participant, track: here });
        }
        let changed = self.update_double_tracks(sid, shown) || changed;
        let lanes: Vec<_> = new.into_iter().filter_map(|info| self.add_double_track(sid, info)).collect();
        if changed || !lanes.is_empty() {
            self.announce(sid, false);
        }
        let added: Vec<_> = lanes.iter().map(|(here, ..)| here.clone()).collect();
        for track in &added {
            self.sync_track(sid, track);
            self.hook_published(sid, track);
        }
        if !added.is_empty() {
            self.follow();
        }
        Some(lanes.into_iter().map(|(_, there, end)| (there, end)).collect())
    }

    /// What has changed of tracks that were shown before; true if anything has.
    fn update_double_tracks(&mut self, sid: &ParticipantSid, shown: &Shown) -> bool {
        let Some(p) = self.get_mut(sid) else { return false };
        let Some(double) = &p.double else { return false };
        let (mut changed, mut muted) = (false, Vec::new());
        for (there, here) in &double.tracks {
            let Some(info) = shown.tracks.iter().find(|info| info.sid == there.as_str()) else { continue };
            let Some(track) = p.tracks.iter_mut().find(|track| track.sid == *here) else { continue };
            let info = TrackInfo { sid: here.as_str().to_owned(), ..info.clone() };
            if track.info.muted != info.muted {
                muted.push((here.clone(), info.muted));
            }
            changed |= track.info != info;
            track.info = info;
        }
        for (track, muted) in muted {
            self.media(Command::Mute { room: self.sid.clone(), participant: sid.clone(), track, muted });
        }
        changed
    }

    /// A further track: its name here and there, and the lane that is to feed it.
    fn add_double_track(&mut self, sid: &ParticipantSid, info: TrackInfo) -> Option<(TrackSid, TrackSid, LaneEnd)> {
        let p = self.get_mut(sid)?;
        let double = p.double.as_mut()?;
        let (there, here) = (TrackSid::from(info.sid.as_str()), TrackSid::random());
        let lane = next_lane();
        let (from, to) = (LaneEnd { lane, worker: double.from }, LaneEnd { lane, worker: double.to });
        double.tracks.push((there.clone(), here.clone()));
        let kind = if info.r#type == TrackType::Video as i32 { MediaKind::Video } else { MediaKind::Audio };
        let (muted, announced) = (info.muted, p.joined.at);
        p.tracks.push(Track {
            sid: here.clone(),
            kind,
            info: TrackInfo { sid: here.as_str().to_owned(), ..info },
            cid: String::new(),
            live: true,
            announced,
            demand: Default::default(),
            backup_wanted: false,
        });
        self.count_track(kind, 1);
        let (room, participant, track) = (self.sid.clone(), sid.clone(), here.clone());
        self.media(Command::PublishLane { room, participant, track, kind, from });
        if muted {
            let (room, participant, track) = (self.sid.clone(), sid.clone(), here.clone());
            self.media(Command::Mute { room, participant, track, muted });
        }
        Some((here, there, to))
    }

    /// Its owner's word about who may have its tracks holds here, too, by identity.
    fn permit_double(&mut self, sid: &ParticipantSid, shown: &Shown) {
        let Some(double) = self.get_mut(sid).and_then(|p| p.double.as_mut()) else { return };
        if double.permission == shown.permission {
            return;
        }
        double.permission.clone_from(&shown.permission);
        let everyone = SubscriptionPermission { all_participants: true, ..Default::default() };
        self.set_permission(sid, shown.permission.clone().unwrap_or(everyone));
    }

    /// Its participant left, or the task ended.
    pub fn remove_double(&mut self, now: Now, sid: &ParticipantSid) {
        if self.get(sid).is_some_and(|p| p.double.is_some()) {
            self.remove(now, sid, DisconnectReason::ClientInitiated, None);
        }
    }
}

/// What is said of the participant itself; true if that is news.
fn describe(p: &mut Participant, shown: &Shown) -> bool {
    let grants = Grants {
        can_publish: Some(shown.can_publish),
        can_publish_sources: shown.sources.clone(),
        // Nothing comes from it here but its tracks, and nothing gets to it.
        can_subscribe: Some(false),
        can_publish_data: Some(false),
        can_update_own_metadata: Some(false),
        ..p.grants.clone()
    };
    let new = (&shown.name, &shown.metadata, &shown.attributes, &grants);
    let changed = (&p.name, &p.metadata, &p.attributes, &p.grants) != new;
    p.name.clone_from(&shown.name);
    p.metadata.clone_from(&shown.metadata);
    p.attributes.clone_from(&shown.attributes);
    p.grants = grants;
    changed
}
