//! One client's socket: frames in become requests to its room, the room's messages become frames out.
//!
//! The link's queue ends where the room is done with the client: then everything is written and the socket closed.
//! A socket that stalls is closed; what the client missed it gets when it resumes.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use livekit_protocol as proto;
use proto::{SignalResponse, signal_response::Message};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use super::{
    Signalling,
    allowance::{Allowance, Verdict, cost},
    codec::{self, Encoding},
};
use crate::{
    auth::ApiKeys,
    rooms::{LinkSender, SignalLink, ToPeer},
    signalling::ice,
    turn_server::IceServers,
};

/// How often the socket itself is pinged, which keeps proxies from closing it.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A client says something every five seconds, and answers our pings. Three of those missing: it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long one frame may take to be written. Longer means that the client's buffers and ours are full.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a client that is put out may still send, so that it hears why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The room is done with the client; all is written.
    RoomDone,
    /// The client closed it.
    ClientGone,
    /// The client sent what is no message.
    Malformed,
    /// Nothing came for too long, or nothing could be written.
    Stalled,
    /// The client sent too much for too long; it was told to leave.
    TooMuch,
}

/// Runs until the room or the client is done.
pub(super) async fn serve(mut socket: WebSocket, link: SignalLink, state: Signalling) {
    let SignalLink { mut outbound, mut sender } = link;
    let end = run(&mut socket, &mut outbound, &mut sender, &state).await;
    let code = match end {
        End::RoomDone => Some((close_code::NORMAL, "")),
        End::Malformed => Some((close_code::INVALID, "no message that can be read")),
        End::TooMuch => Some((close_code::POLICY, "too many messages")),
        End::ClientGone | End::Stalled => None,
    };
    if let Some((code, reason)) = code {
        let close = Frame::Close(Some(CloseFrame { code, reason: reason.into() }));
        // The client may have closed first.
        let _ = timeout(WRITE_MAX, socket.send(close)).await;
        if end == End::TooMuch {
            // What lies unread when a socket is closed makes the kernel throw away what was said last.
            let _ = timeout(LAST_WORDS, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
        }
    }
    tracing::debug!(?end, "a signalling socket closed");
}

async fn run(
    socket: &mut WebSocket,
    outbound: &mut mpsc::Receiver<ToPeer>,
    sender: &mut LinkSender,
    state: &Signalling,
) -> End {
    let metrics = &state.metrics;
    let (received, sent) =
        (metrics.signal_messages.with_label_values(&["in"]), metrics.signal_messages.with_label_values(&["out"]));
    let mut encoding = Encoding::Binary;
    let mut allowance = Allowance::new(Instant::now().into_std());
    // The client talks too fast: it is not read until then. Once it was put out, it is not read at all.
    let (mut not_before, mut put_out) = (Instant::now(), false);
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let frame = tokio::select! {
            // What the room says goes first: it is bounded, and a client must not hold it up by talking.
            biased;
            message = outbound.recv() => {
                let Some(message) = message else { return if put_out { End::TooMuch } else { End::RoomDone } };
                if let ToPeer::HandOver(mailbox) = message {
                    sender.hand_over(mailbox).await;
                    continue;
                }
                sent.inc();
                let Some(response) = dress(message, &state.keys, &state.ice_servers) else { continue };
                codec::encode_frame(&response, encoding)
            }
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return End::Stalled;
                }
                Frame::Ping(Vec::new().into())
            }
            () = sleep_until(not_before), if !put_out && not_before > Instant::now() => continue,
            frame = socket.recv(), if !put_out && not_before <= Instant::now() => {
                let frame = match frame {
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return End::ClientGone,
                    Some(Ok(frame)) => frame,
                };
                heard = Instant::now();
                let bytes = codec::length(&frame);
                match codec::decode_frame(&frame) {
                    None => {}
                    Some(Err(reason)) => {
                        tracing::info!(reason, "a signalling socket is closed");
                        return End::Malformed;
                    }
                    Some(Ok((request, form))) => {
                        received.inc();
                        encoding = form;
                        let verdict = allowance.handle(heard.into_std(), cost(request.message.as_ref(), bytes));
                        // A closed room has said so in the queue, which is read first.
                        match verdict {
                            Verdict::TooMuch => {
                                tracing::info!("a client sent too many messages for too long and is put out");
                                metrics.limited.with_label_values(&["messages"]).inc();
                                put_out = true;
                                let _ = sender.put_out().await;
                            }
                            Verdict::Later(wait) => {
                                not_before = heard + wait;
                                let _ = sender.send(request).await;
                            }
                            Verdict::Now => drop(sender.send(request).await),
                        }
                    }
                }
                continue;
            }
        };
        if !matches!(timeout(WRITE_MAX, socket.send(frame)).await, Ok(Ok(()))) {
            return End::Stalled;
        }
    }
}

/// Turns the room's word into a message; tokens and credentials are made here, where the keys are.
fn dress(message: ToPeer, keys: &ApiKeys, ice_servers: &IceServers) -> Option<SignalResponse> {
    let message = match message {
        ToPeer::Message(message) => match *message {
            Message::Join(mut join) => {
                join.ice_servers = ice::servers(ice_servers);
                join.client_configuration = ice::client_configuration(ice_servers);
                Message::Join(join)
            }
            Message::Reconnect(mut reconnect) => {
                reconnect.ice_servers = ice::servers(ice_servers);
                reconnect.client_configuration = ice::client_configuration(ice_servers);
                Message::Reconnect(reconnect)
            }
            other => other,
        },
        ToPeer::RoomMoved { mut moved, claims } => match keys.refresh(&claims) {
            Ok(token) => {
                moved.token = token;
                Message::RoomMoved(*moved)
            }
            Err(error) => {
                tracing::warn!(%error, "a token could not be made");
                return None;
            }
        },
        // Not for the client.
        ToPeer::HandOver(_) => return None,
        ToPeer::RefreshToken(claims) => match keys.refresh(&claims) {
            Ok(token) => Message::RefreshToken(token),
            Err(error) => {
                tracing::warn!(%error, "a token could not be refreshed");
                return None;
            }
        },
    };
    Some(SignalResponse { message: Some(message) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn_server::Relay;

    #[test]
    fn who_resumes_gets_new_credentials_for_relays() {
        let relay = Relay { urls: vec!["turn:a".into()], secret: "north".into() };
        let ice_servers = IceServers::new(vec![relay], Duration::from_secs(60), true);
        let credentials = || {
            let message = ToPeer::Message(Box::new(Message::Reconnect(proto::ReconnectResponse::default())));
            let dressed = dress(message, &ApiKeys::dev(), &ice_servers).and_then(|response| response.message);
            let Some(Message::Reconnect(reconnect)) = dressed else { panic!("another message") };
            assert!(
                reconnect
                    .client_configuration
                    .is_some_and(|client| { client.force_relay() == proto::ClientConfigSetting::Enabled })
            );
            reconnect.ice_servers[0].username.clone()
        };
        assert_ne!(credentials(), credentials());
    }
}
