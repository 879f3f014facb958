//! What stands before the relay's machine: whose request it is, and whether it may be asked at all. Pure.

use std::net::SocketAddr;

use turn_server_proto::{
    stun::types::{
        attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress},
        message::{IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageIntegrityCredentials, MessageWriteVec},
        prelude::{MessageWrite, MessageWriteExt},
    },
    types::{
        attribute::{RequestedTransport, XorPeerAddress},
        message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION},
    },
};

use super::{credentials, peers::Peers};
use crate::auth::Secret;

/// What clients hash into their key; it tells nobody anything.
pub const REALM: &str = "viva";
/// Longest user name that is looked at, bytes; ours have 27.
const USERNAME_BYTES_MAX: usize = 128;

/// Somebody whose request was signed with a password of ours that is still good.
pub struct Caller {
    pub username: String,
    pub password: String,
    key: MessageIntegrityCredentials,
    algorithm: IntegrityAlgorithm,
}

impl Caller {
    /// `unix`: now, Unix seconds.
    pub fn of(message: &Message<'_>, secret: &Secret, unix: u64) -> Option<Self> {
        let username = message.attribute::<Username>().ok()?.username().to_owned();
        if username.len() > USERNAME_BYTES_MAX || credentials::end(&username)? < unix {
            return None;
        }
        let password = credentials::password(secret, &username);
        let key = LongTermKeyCredentials::new(username.clone(), password.clone(), REALM.to_owned());
        let key = MessageIntegrityCredentials::from(key);
        let algorithm = message.validate_integrity(&key).ok()?;
        Some(Self { username, password, key, algorithm })
    }

    /// A refusal that the client can trust.
    pub fn refusal(&self, message: &Message<'_>, code: u16) -> Option<Vec<u8>> {
        let mut answer = error(message, code)?;
        answer.add_message_integrity(&self.key, self.algorithm).ok()?;
        Some(answer.finish())
    }
}

/// Why a signed request is refused, whatever the machine behind would say.
pub fn forbidden(message: &Message<'_>, peers: &Peers) -> Option<u16> {
    match message.method() {
        // Datagrams are all that media is made of.
        ALLOCATE => {
            let wanted = message.attribute::<RequestedTransport>().ok()?;
            (wanted.protocol() != RequestedTransport::UDP).then_some(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL)
        }
        CREATE_PERMISSION | CHANNEL_BIND => {
            let id = message.transaction_id();
            // Each of them: one that is allowed must not carry another in.
            let mut asked = (0..).map_while(|n| message.nth_attribute::<XorPeerAddress>(n).ok());
            asked.any(|peer| !peers.allows(peer.addr(id).ip())).then_some(ErrorCode::FORBIDDEN)
        }
        _ => None,
    }
}

/// The answer to a request without good credentials, which asks for some. Keeps nothing.
pub fn challenge(message: &Message<'_>) -> Option<Vec<u8>> {
    let mut answer = error(message, ErrorCode::UNAUTHORIZED)?;
    answer.add_attribute(&Realm::new(REALM).ok()?).ok()?;
    answer.add_attribute(&Nonce::new(&format!("{:032x}", rand::random::<u128>())).ok()?).ok()?;
    Some(answer.finish())
}

/// The answer to a STUN binding request: where it came from.
pub fn binding(message: &Message<'_>, from: SocketAddr) -> Option<Vec<u8>> {
    let mut answer = Message::builder_success(message, MessageWriteVec::new());
    answer.add_attribute(&XorMappedAddress::new(from, message.transaction_id())).ok()?;
    answer.add_fingerprint().ok()?;
    Some(answer.finish())
}

fn error(message: &Message<'_>, code: u16) -> Option<MessageWriteVec> {
    let mut answer = Message::builder_error(message, MessageWriteVec::new());
    answer.add_attribute(&ErrorCode::builder(code).build().ok()?).ok()?;
    Some(answer)
}
