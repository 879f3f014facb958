//! The media ports, by what a browser does first: a STUN binding request with the credentials of an answer (RFC 8445).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use turn_server_proto::stun::types::{
    attribute::{AttributeType, RawAttribute, Username},
    message::{
        BINDING, IntegrityAlgorithm, Message, MessageClass, MessageIntegrityCredentials, MessageType, MessageWriteVec,
        ShortTermCredentials, TransactionId,
    },
    prelude::{MessageWrite, MessageWriteExt},
};

use super::{Finding, connection::Target, join::UFRAG, machine::is_private};

const UDP: &str = "media UDP";
const TCP: &str = "media TCP";
/// For the answer to one request; there are [`TRIES`].
const PATIENCE: Duration = Duration::from_millis(700);
const TRIES: usize = 4;
const PRIORITY: u16 = 0x0024;
const ICE_CONTROLLING: u16 = 0x802a;

/// Where an answer says that media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub address: SocketAddr,
    pub tcp: bool,
}

/// What of an answer is needed to ask for an address.
#[derive(Debug, PartialEq, Eq)]
pub struct Remote {
    ufrag: String,
    password: String,
    pub candidates: Vec<Candidate>,
}

impl Remote {
    pub fn read(answer: &str) -> Option<Self> {
        let value = |name: &str| answer.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::to_owned);
        let mut candidates: Vec<Candidate> = answer.lines().filter_map(candidate).collect();
        candidates.dedup();
        Some(Self { ufrag: value("a=ice-ufrag:")?, password: value("a=ice-pwd:")?, candidates })
    }

    fn request(&self) -> Option<(TransactionId, Vec<u8>)> {
        let id = TransactionId::generate();
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        message.add_attribute(&Username::new(&format!("{}:{UFRAG}", self.ufrag)).ok()?).ok()?;
        message
            .add_attribute(&RawAttribute::new(AttributeType::new(PRIORITY), &1_845_501_695u32.to_be_bytes()))
            .ok()?;
        message.add_attribute(&RawAttribute::new(AttributeType::new(ICE_CONTROLLING), &[7; 8])).ok()?;
        let key = MessageIntegrityCredentials::from(ShortTermCredentials::new(self.password.clone()));
        message.add_message_integrity(&key, IntegrityAlgorithm::Sha1).ok()?;
        message.add_fingerprint().ok()?;
        Some((id, message.finish()))
    }

    async fn answers(&self, candidate: Candidate) -> bool {
        for _ in 0..TRIES {
            let Some((id, request)) = self.request() else { return false };
            let asked = async {
                if candidate.tcp {
                    by_tcp(candidate.address, &request).await
                } else {
                    by_udp(candidate.address, &request).await
                }
            };
            if let Ok(Some(answer)) = timeout(PATIENCE, asked).await
                && Message::from_bytes(&answer)
                    .is_ok_and(|m| m.transaction_id() == id && m.has_class(MessageClass::Success))
            {
                return true;
            }
        }
        false
    }
}

/// `a=candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ host …`
fn candidate(line: &str) -> Option<Candidate> {
    let mut words = line.trim().strip_prefix("a=candidate:")?.split_ascii_whitespace().skip(2);
    let tcp = match words.next()?.to_lowercase().as_str() {
        "udp" => false,
        "tcp" => true,
        _ => return None,
    };
    let (ip, port) = (words.nth(1)?.parse::<IpAddr>().ok()?, words.next()?.parse().ok()?);
    Some(Candidate { address: SocketAddr::new(ip, port), tcp })
}

async fn by_udp(to: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(to).await.ok()?;
    socket.send(request).await.ok()?;
    let mut answer = vec![0; 2048];
    let length = socket.recv(&mut answer).await.ok()?;
    answer.truncate(length);
    Some(answer)
}

/// In the frames of RFC 4571: two bytes of length.
async fn by_tcp(to: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_u16(u16::try_from(request.len()).ok()?).await.ok()?;
    stream.write_all(request).await.ok()?;
    let mut answer = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

/// Whether media gets there without a relay.
pub async fn examine(target: &Target, answer: &str, findings: &mut Vec<Finding>) -> bool {
    let Some(remote) = Remote::read(answer) else {
        findings.push(Finding::failure(UDP, "the server's answer has no ICE credentials", "see the server's log"));
        return false;
    };
    let mut any = false;
    for (check, tcp) in [(UDP, false), (TCP, true)] {
        let candidates: Vec<_> = remote.candidates.iter().copied().filter(|candidate| candidate.tcp == tcp).collect();
        if candidates.is_empty() {
            continue;
        }
        let asked = candidates.iter().map(|candidate| remote.answers(*candidate));
        let answered = futures::future::join_all(asked).await;
        let of = |wanted: bool| {
            let chosen = candidates.iter().zip(&answered).filter(|(_, answered)| **answered == wanted);
            chosen.map(|(candidate, _)| candidate.address).collect::<Vec<_>>()
        };
        let (good, silent) = (of(true), of(false));
        any |= !good.is_empty();
        findings.push(verdict(check, target, &good, &silent));
    }
    any
}

fn verdict(check: &'static str, target: &Target, good: &[SocketAddr], silent: &[SocketAddr]) -> Finding {
    let list = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !good.is_empty() {
        // Addresses of the machine that lead nowhere from here are usual: other networks, loopback.
        return Finding::ok(check, format!("{} answers", list(good)));
    }
    let way = if check == UDP { "UDP" } else { "TCP" };
    let ports: std::collections::BTreeSet<u16> = silent.iter().map(SocketAddr::port).collect();
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    if silent.iter().all(|address| is_private(address.ip())) && !is_local(&target.host) {
        return Finding::failure(
            check,
            format!("clients are told private addresses only, which lead nowhere from here: {}", list(silent)),
            "set rtc.advertise_ips to the public address of the server",
        );
    }
    Finding::failure(
        check,
        format!("no answer from {}", list(silent)),
        format!("open {way} port {ports} in the firewall, and see that rtc.advertise_ips is the server's address"),
    )
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_private)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn candidates_are_read_from_an_answer() {
        let answer = "a=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\na=candidate:1 1 udp 2130706431 192.0.2.7 7882 typ host\r\n\
                      a=candidate:2 1 TCP 1 2001:db8::7 7880 typ host tcptype passive\r\na=candidate:3 1 udp 1 a.local 9 typ host";
        let remote = Remote::read(answer).unwrap();
        assert_eq!((remote.ufrag.as_str(), remote.password.as_str()), ("abcd", "efgh"));
        let candidate = |address: &str, tcp| Candidate { address: address.parse().unwrap(), tcp };
        assert_eq!(remote.candidates, [candidate("192.0.2.7:7882", false), candidate("[2001:db8::7]:7880", true)]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(answer in ".*", line in "a=candidate:.*") {
            let _ = Remote::read(&answer);
            let _ = candidate(&line);
        }
    }
}
