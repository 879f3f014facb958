//! The task that keeps a participant's double in another room in line ([`super::forwarding`]). It waits for both rooms;
//! neither waits for it.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    AdminError, RoomHandle,
    forwarding::{Double, Showing},
    quota::Seat,
};
use crate::id::{Identity, ParticipantSid};

pub(super) struct Forwarder {
    pub here: RoomHandle,
    pub there: RoomHandle,
    pub identity: Identity,
    pub double: ParticipantSid,
    over: CancellationToken,
}

impl Forwarder {
    pub fn new(here: RoomHandle, there: RoomHandle, identity: Identity) -> Self {
        Self { here, there, identity, double: ParticipantSid::random(), over: CancellationToken::new() }
    }

    /// Runs until the participant or its double is gone. Answers once the double is there, or why it is not.
    pub async fn run(self, seat: Option<Seat>, reply: oneshot::Sender<Result<(), AdminError>>) {
        let begun = self.begin(seat).await;
        let (result, showing) = match begun {
            Ok(showing) => (Ok(()), showing),
            Err(error) => (Err(error), None),
        };
        // Whoever asked may have stopped waiting.
        let _ = reply.send(result);
        let Some(mut showing) = showing else { return };
        tracing::info!(room = %self.there.sid(), participant = %self.double, "somebody of another room is shown");
        self.follow(&mut showing).await;
        self.end(&showing.source).await;
    }

    async fn begin(&self, seat: Option<Seat>) -> Result<Option<Showing>, AdminError> {
        let (identity, double, room) = (self.identity.clone(), self.double.clone(), self.there.sid().clone());
        let over = self.over.clone();
        let shown = self.here.with(move |here, _| here.show_in(&identity, &room, double, over)).await??;
        let Some(showing) = shown else { return Ok(None) };
        let source = showing.source.clone();
        let apart = showing.worker != self.there.worker;
        let (from, to) = (apart.then_some(showing.worker), apart.then_some(self.there.worker));
        let (sid, double) = (self.double.clone(), Double::new(from, to, self.over.clone()));
        let let_in =
            self.there.with(move |there, now| there.take_double(now, sid, &showing, double, seat).map(|()| showing));
        match let_in.await.map_err(AdminError::from).and_then(|result| result) {
            Ok(showing) => Ok(Some(showing)),
            Err(error) => {
                self.end(&source).await;
                Err(error)
            }
        }
    }

    async fn follow(&self, showing: &mut Showing) {
        loop {
            let shown = showing.shown.borrow_and_update().clone();
            let double = self.double.clone();
            let Ok(Some(lanes)) = self.there.with(move |there, _| there.update_double(&double, &shown)).await else {
                return;
            };
            let (source, double) = (showing.source.clone(), self.double.clone());
            if !lanes.is_empty()
                && self.here.with(move |here, _| here.open_lanes(&source, &double, lanes)).await.is_err()
            {
                return;
            }
            tokio::select! {
                changed = showing.shown.changed() => if changed.is_err() { return },
                () = self.over.cancelled() => return,
            }
        }
    }

    /// Whichever side it ended by, the other one follows. A room that is closed has nothing to end.
    async fn end(&self, source: &ParticipantSid) {
        let (source, double) = (source.clone(), self.double.clone());
        let _ = self.here.with(move |here, _| here.stop_showing(&source, &double)).await;
        let double = self.double.clone();
        let _ = self.there.with(move |there, now| there.remove_double(now, &double)).await;
    }
}
