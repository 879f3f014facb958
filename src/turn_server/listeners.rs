//! The ports of the relay: datagrams are handed to their clients' tasks, connections get a task each.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, sync::mpsc, time::sleep};
use turn_server_proto::{
    stun::types::message::{BINDING, Message, MessageClass},
    types::message::ALLOCATE,
};

use super::{
    client::{self, Context, Wire},
    gate,
};
use crate::front::{self, Crowd, Handler};

/// Messages on their way to one client's task; a further one is dropped, as any network would.
const INBOX_MAX: usize = 256;
/// Clients per allocation that may be at one port: those that have none yet, or that reconnect.
const CLIENTS_PER_ALLOCATION: usize = 2;
/// Largest datagram of a client: media and its header.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Pause after the port failed, for instance for want of memory.
const RETRY: Duration = Duration::from_millis(200);

/// Binds; an address for all of IPv6 is for all of IPv4, too, and for that alone where there is no IPv6.
pub async fn bind<S, F: Future<Output = io::Result<S>>>(
    at: SocketAddr,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<S> {
    match open(at).await {
        Err(error) if at.ip().is_unspecified() && at.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {
            open((Ipv4Addr::UNSPECIFIED, at.port()).into()).await
        }
        other => other,
    }
}

/// Datagrams of all clients. Only a client that asks for an allocation is remembered, by its address; for seconds, if it
/// shows no good credentials. One source must not take the places of all others: `crowd` counts it.
pub async fn datagrams(socket: UdpSocket, context: Context, crowd: Crowd, allocations_max: usize) {
    let socket = Arc::new(socket);
    let clients_max = allocations_max.saturating_mul(CLIENTS_PER_ALLOCATION);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut datagram) => received,
            Some(done) = tasks.join_next() => {
                if let Ok(gone) = done {
                    clients.remove(&gone);
                }
                // A task that panicked left its entry behind.
                clients.retain(|_, inbox| !inbox.is_closed());
                continue;
            }
            () = context.stop.cancelled() => return,
        };
        let Ok((length, from)) = received else {
            sleep(RETRY).await;
            continue;
        };
        let bytes = datagram.get(..length).unwrap_or_default();
        if let Some(inbox) = clients.get(&from) {
            match inbox.try_send(bytes.to_vec()) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    context.metrics.turn_server_refused.with_label_values(&["behind"]).inc();
                    continue;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => _ = clients.remove(&from),
            }
        }
        match greet(from, bytes) {
            Greeting::Answer(answer) => _ = socket.try_send_to(&answer, from),
            Greeting::Welcome => {
                let place = if clients.len() < clients_max { crowd.enter(from.ip().to_canonical()) } else { None };
                let Some(place) = place else {
                    context.metrics.turn_server_refused.with_label_values(&["capacity"]).inc();
                    continue;
                };
                let (inbox, messages) = mpsc::channel(INBOX_MAX);
                let _ = inbox.try_send(bytes.to_vec());
                clients.insert(from, inbox);
                let wire = Wire::Datagrams { inbox: messages, socket: socket.clone(), client: from };
                let context = context.clone();
                tasks.spawn(async move {
                    let _place = place;
                    client::run(context, wire, from).await;
                    from
                });
            }
            Greeting::Nothing => {}
        }
    }
}

enum Greeting {
    Answer(Vec<u8>),
    Welcome,
    Nothing,
}

/// What a datagram from an unknown address gets.
fn greet(from: SocketAddr, bytes: &[u8]) -> Greeting {
    let Ok(message) = Message::from_bytes(bytes) else { return Greeting::Nothing };
    if message.class() != MessageClass::Request {
        return Greeting::Nothing;
    }
    if message.method() == ALLOCATE {
        return Greeting::Welcome;
    }
    let canonical = SocketAddr::new(from.ip().to_canonical(), from.port());
    let answer = match message.method() {
        BINDING => gate::binding(&message, canonical),
        _ => gate::challenge(&message),
    };
    answer.map_or(Greeting::Nothing, Greeting::Answer)
}

/// Connections, each a client: for a port of the relay's own, and for the one that HTTP is on.
pub fn handler(context: Context) -> Handler {
    front::handler(move |stream: front::Stream| {
        let (peer, transport) = (stream.peer(), if stream.is_tls() { "tls" } else { "tcp" });
        let context = Context { transport, ..context.clone() };
        async move { client::run(context, Wire::stream(stream), peer).await }
    })
}
