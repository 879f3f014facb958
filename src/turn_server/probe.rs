//! A small TURN client: asks a relay for what a browser would, to see whether it gives it. For `viva doctor` and tests.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};
use turn_server_proto::{
    stun::types::{
        attribute::{ErrorCode, Nonce, Realm, Username},
        message::{
            BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials,
            MessageType, MessageWriteVec, Method, TransactionId,
        },
        prelude::{AttributeWrite, MessageWrite, MessageWriteExt},
    },
    types::{
        attribute::{Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress},
        message::{ALLOCATE, CREATE_PERMISSION, REFRESH, SEND},
    },
};

pub use super::client::Stream;
use super::{
    credentials::Credentials,
    framing::{Frames, pad},
};

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Datagrams may get lost: after this, a request is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a relay did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("refused with {0}")]
    Refused(u16),
    #[error("the answer is no TURN")]
    Malformed,
}

enum Wire {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Frames),
}

/// A client of one relay.
pub struct Probe {
    wire: Wire,
    credentials: Credentials,
    /// Realm and nonce, once the relay has asked for credentials.
    challenge: Option<(String, String)>,
}

impl Probe {
    pub async fn udp(relay: SocketAddr, credentials: Credentials) -> Result<Self, ProbeError> {
        let any: SocketAddr = if relay.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(relay).await?;
        Ok(Self { wire: Wire::Udp(socket), credentials, challenge: None })
    }

    pub async fn tcp(relay: SocketAddr, credentials: Credentials) -> Result<Self, ProbeError> {
        let connected = timeout_at(Instant::now() + PATIENCE, TcpStream::connect(relay)).await;
        Ok(Self::stream(connected.map_err(|_| ProbeError::Silent)??, credentials))
    }

    /// Over what is connected already, as by TLS.
    pub fn stream(stream: impl Stream + 'static, credentials: Credentials) -> Self {
        Self { wire: Wire::Stream(Box::new(stream), Frames::default()), credentials, challenge: None }
    }

    /// An allocation, and the address that the relay says it has.
    pub async fn allocate(&mut self) -> Result<SocketAddr, ProbeError> {
        let transport = RequestedTransport::new(RequestedTransport::UDP);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.request(ALLOCATE, |message, _| with(message, &transport)).await {
                // Once to ask for credentials, and once where the nonce was none of that client's.
                Err(ProbeError::Refused(ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE)) if attempts < 3 => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    let message = Message::from_bytes(&answer).map_err(|_| ProbeError::Malformed)?;
                    let relayed = message.attribute::<XorRelayedAddress>().map_err(|_| ProbeError::Malformed)?;
                    return Ok(relayed.addr(message.transaction_id()));
                }
            }
        }
    }

    /// Asks to send to this peer.
    pub async fn permit(&mut self, peer: IpAddr) -> Result<(), ProbeError> {
        let write = |message: &mut MessageWriteVec, id| {
            message.add_attribute(&XorPeerAddress::new((peer, 9).into(), id)).map_err(|_| ProbeError::Malformed)
        };
        self.request(CREATE_PERMISSION, write).await.map(drop)
    }

    /// Gives the allocation back.
    pub async fn release(&mut self) -> Result<(), ProbeError> {
        self.request(REFRESH, |message, _| with(message, &Lifetime::new(0))).await.map(drop)
    }

    /// Whether the relay answers at all.
    pub async fn binding(&mut self) -> Result<(), ProbeError> {
        self.request(BINDING, |_, _| Ok(())).await.map(drop)
    }

    /// Data for a peer; nobody says whether it arrived.
    pub async fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), ProbeError> {
        let id = TransactionId::generate();
        let kind = MessageType::from_class_method(MessageClass::Indication, SEND);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        with(&mut message, &XorPeerAddress::new(peer, id))?;
        with(&mut message, &Data::new(data))?;
        Ok(self.wire.send(message.finish()).await?)
    }

    /// The next data of a peer.
    pub async fn data(&mut self) -> Result<(SocketAddr, Vec<u8>), ProbeError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let bytes = timeout_at(until, self.wire.receive()).await.map_err(|_| ProbeError::Silent)??;
            let Ok(message) = Message::from_bytes(&bytes) else { continue };
            let (Ok(peer), Ok(data)) = (message.attribute::<XorPeerAddress>(), message.attribute::<Data>()) else {
                continue;
            };
            return Ok((peer.addr(message.transaction_id()), data.data().to_vec()));
        }
    }

    async fn request(
        &mut self,
        method: Method,
        write: impl Fn(&mut MessageWriteVec, TransactionId) -> Result<(), ProbeError>,
    ) -> Result<Vec<u8>, ProbeError> {
        let id = TransactionId::generate();
        let kind = MessageType::from_class_method(MessageClass::Request, method);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        write(&mut message, id)?;
        if let Some((realm, nonce)) = &self.challenge {
            let Credentials { username, password } = &self.credentials;
            with(&mut message, &Username::new(username).map_err(|_| ProbeError::Malformed)?)?;
            with(&mut message, &Realm::new(realm).map_err(|_| ProbeError::Malformed)?)?;
            with(&mut message, &Nonce::new(nonce).map_err(|_| ProbeError::Malformed)?)?;
            let key = LongTermKeyCredentials::new(username.clone(), password.clone(), realm.clone());
            let key = MessageIntegrityCredentials::from(key);
            message.add_message_integrity(&key, IntegrityAlgorithm::Sha1).map_err(|_| ProbeError::Malformed)?;
        }
        let bytes = message.finish();
        let until = Instant::now() + PATIENCE;
        self.wire.send(bytes.clone()).await?;
        let mut again = Instant::now() + AGAIN;
        loop {
            let Ok(answer) = timeout_at(again.min(until), self.wire.receive()).await else {
                if Instant::now() >= until {
                    return Err(ProbeError::Silent);
                }
                if matches!(self.wire, Wire::Udp(_)) {
                    self.wire.send(bytes.clone()).await?;
                }
                again += AGAIN;
                continue;
            };
            let answer = answer?;
            let Ok(message) = Message::from_bytes(&answer) else { return Err(ProbeError::Malformed) };
            if message.transaction_id() != id {
                continue;
            }
            if message.class() != MessageClass::Error {
                return Ok(answer);
            }
            if let (Ok(realm), Ok(nonce)) = (message.attribute::<Realm>(), message.attribute::<Nonce>()) {
                self.challenge = Some((realm.realm().to_owned(), nonce.nonce().to_owned()));
            }
            let code = message.attribute::<ErrorCode>().map_err(|_| ProbeError::Malformed)?.code();
            return Err(ProbeError::Refused(code));
        }
    }
}

fn with(message: &mut MessageWriteVec, attribute: &dyn AttributeWrite) -> Result<(), ProbeError> {
    message.add_attribute(attribute).map_err(|_| ProbeError::Malformed)
}

impl Wire {
    async fn send(&mut self, message: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(&message).await.map(drop),
            Self::Stream(stream, _) => {
                stream.write_all(&pad(message)).await?;
                stream.flush().await
            }
        }
    }

    /// The next message. May be dropped while it waits.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut datagram = vec![0; 2048];
                let length = socket.recv(&mut datagram).await?;
                datagram.truncate(length);
                Ok(datagram)
            }
            Self::Stream(stream, frames) => loop {
                match frames.next() {
                    Ok(Some(message)) => return Ok(message.into()),
                    Ok(None) => {}
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
                if stream.read_buf(&mut frames.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            },
        }
    }
}
