//! The seam to the signalling side: what a socket gets from its room and what it gives.

use livekit_protocol as proto;
use proto::{DisconnectReason, leave_request::Action, signal_response::Message};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    LinkId,
    room::leave_request,
    task::{Link, Mail},
};
use crate::auth::Claims;

/// Something for a client. Sent in order; the end of the queue means: write everything, then close the socket.
pub enum ToPeer {
    Message(Box<Message>),
    /// A new token is due: mint it from these claims and send it as `refresh_token`. Rooms hold no keys.
    RefreshToken(Box<Claims>),
    /// The client is in another room now; a token for it, made from these claims, goes into the message.
    RoomMoved {
        moved: Box<proto::RoomMovedResponse>,
        claims: Box<Claims>,
    },
    /// From here on requests go to another room: [`LinkSender::hand_over`].
    HandOver(Mailbox),
}

impl ToPeer {
    pub(super) fn message(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

/// Where requests for a room go.
pub struct Mailbox(pub(super) mpsc::Sender<Mail>);

/// One client's connection to its room. Dropping its [`LinkSender`] tells the room that the socket is gone.
pub struct SignalLink {
    pub outbound: mpsc::Receiver<ToPeer>,
    pub sender: LinkSender,
}

/// The client's side of the link: its requests go in here.
pub struct LinkSender {
    link: Option<(LinkId, mpsc::Sender<Mail>)>,
    /// Held until the socket is closed, so that a shutdown can wait for it.
    _token: TaskTrackerToken,
}

#[derive(Debug, thiserror::Error)]
#[error("the room is closed")]
pub struct LinkClosed;

impl SignalLink {
    pub(super) fn new(link: Link, mailbox: mpsc::Sender<Mail>, token: TaskTrackerToken) -> Self {
        Self { outbound: link.outbound, sender: LinkSender { link: Some((link.id, mailbox)), _token: token } }
    }

    /// For a client that resumes into a room that is gone: says only that it must join anew.
    pub(super) fn start_anew(token: TaskTrackerToken) -> Self {
        let leave = leave_request(DisconnectReason::StateMismatch, Action::Reconnect);
        let (tx, outbound) = mpsc::channel(1);
        // The queue is new and holds one.
        let _ = tx.try_send(ToPeer::message(leave));
        Self { outbound, sender: LinkSender { link: None, _token: token } }
    }
}

impl LinkSender {
    /// Waits while the room's mailbox is full, so that a flood stays in the client's own socket.
    pub async fn send(&self, request: proto::SignalRequest) -> Result<(), LinkClosed> {
        let Some((link, mailbox)) = &self.link else { return Ok(()) };
        mailbox.send(Mail::Request { link: *link, request: Box::new(request) }).await.map_err(|_| LinkClosed)
    }
}

impl LinkSender {
    /// The client has sent too much: it is told to leave, and its place goes.
    pub async fn put_out(&self) -> Result<(), LinkClosed> {
        let Some((link, mailbox)) = &self.link else { return Ok(()) };
        mailbox.send(Mail::PutOut { link: *link }).await.map_err(|_| LinkClosed)
    }

    /// Sends requests to another room from here on. Returns once the old one has passed on all that it got before.
    pub async fn hand_over(&mut self, to: Mailbox) {
        let Some((link, mailbox)) = &mut self.link else { return };
        let (reply, passed_on) = oneshot::channel();
        if mailbox.send(Mail::PassedOn { link: Some(*link), reply }).await.is_ok() {
            // An error says that the room is over: it passes nothing on any more.
            let _ = passed_on.await;
        }
        *mailbox = to.0;
    }
}

impl Drop for LinkSender {
    fn drop(&mut self) {
        let Some((link, mailbox)) = self.link.take() else { return };
        let Err(mpsc::error::TrySendError::Full(mail)) = mailbox.try_send(Mail::LinkClosed { link }) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { mailbox.send(mail).await });
        }
    }
}
