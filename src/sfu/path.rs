//! The two ends that datagrams travel between, and which of several such paths to a client is used.
//!
//! The client decides: it checks paths and nominates one (RFC 8445 section 8.1.1), and each check that we answer renews
//! its consent to be sent to (RFC 7675; we are ICE-lite, so our own checks do not exist and its checks are the proof).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Without a check for this long nothing more is sent, RFC 7675 section 5.1. str0m says before that, after 15 s, that the
/// connection is lost.
const CONSENT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    /// Frames of RFC 4571 on a TCP connection that the client opened.
    Tcp,
}

impl Protocol {
    /// Position in the pairs of [`super::SfuStats`].
    pub fn index(self) -> usize {
        match self {
            Self::Udp => 0,
            Self::Tcp => 1,
        }
    }
}

/// A candidate pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    pub protocol: Protocol,
    /// Our candidate: what clients were told.
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Path {
    pub fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, local, remote }
    }

    pub fn tcp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, local, remote }
    }
}

/// Where to send, and whether the client still wants that.
#[derive(Default)]
pub struct Selected {
    current: Option<Proven>,
    /// Another path, nominated once since the current one was.
    challenger: Option<Path>,
    /// ICE was restarted: what was nominated before counts no more.
    restarted: bool,
}

#[derive(Clone, Copy)]
struct Proven {
    path: Path,
    at: Instant,
    /// The client went silent, and has not checked this path since.
    doubted: bool,
}

impl Selected {
    /// A check of the client came by this path and was answered. Returns whether datagrams take another path now.
    ///
    /// Clients of the older kind nominate every path that works, again and again. So a path is left for a worse one only
    /// when the client nominates that twice and the present one not once between.
    pub fn handle_check(&mut self, now: Instant, path: Path, nominates: bool) -> bool {
        if let Some(current) = self.current.as_mut().filter(|current| current.path == path) {
            current.at = now;
            current.doubted = false;
            if nominates {
                (self.challenger, self.restarted) = (None, false);
            }
            return false;
        }
        let dead = self.current.is_some_and(|current| !current.consents(now));
        // Many clients nominate once: where that path is all that is left, it is taken by its next check.
        let left_over = dead && self.challenger == Some(path);
        if !nominates && !left_over {
            return false;
        }
        let at_once = match self.current {
            None => true,
            Some(current) if dead || current.doubted || self.restarted => true,
            Some(current) => current.path.protocol == Protocol::Tcp && path.protocol == Protocol::Udp,
        };
        if !at_once && self.challenger != Some(path) {
            self.challenger = Some(path);
            return false;
        }
        (self.challenger, self.restarted) = (None, false);
        self.current.replace(Proven { path, at: now, doubted: false }).is_some()
    }

    /// Nothing comes from the client any more: unless it checks this path again, any other that it nominates is taken.
    pub fn doubt(&mut self) {
        if let Some(current) = &mut self.current {
            current.doubted = true;
        }
    }

    /// ICE was restarted: the next path that is nominated is used, and the present one until then (RFC 8445 section 9).
    pub fn handle_restart(&mut self) {
        (self.challenger, self.restarted) = (None, self.current.is_some());
    }

    /// The path that the client nominated; `None` before it did.
    pub fn path(&self) -> Option<Path> {
        self.current.map(|current| current.path)
    }

    /// False where the client was heard no more: nothing may be sent to it.
    pub fn consents(&self, now: Instant) -> bool {
        self.current.is_none_or(|current| current.consents(now))
    }
}

impl Proven {
    fn consents(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < CONSENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (Path, Path, Path) {
        let (local, remote) = (SocketAddr::from(([192, 0, 2, 1], 7882)), SocketAddr::from(([192, 0, 2, 9], 5000)));
        let other = SocketAddr::from(([192, 0, 2, 9], 6000));
        (Path::udp(local, remote), Path::udp(local, other), Path::tcp(local, remote))
    }

    #[test]
    fn the_path_that_the_client_nominates_is_used_and_checks_alone_change_nothing() {
        let (now, mut selected) = (Instant::now(), Selected::default());
        let (udp, _, tcp) = paths();
        assert!(!selected.handle_check(now, tcp, false));
        assert_eq!(selected.path(), None);
        assert!(!selected.handle_check(now, tcp, true), "the first is no change");
        assert_eq!(selected.path(), Some(tcp));
        assert!(selected.handle_check(now, udp, true), "UDP is better, and taken at once");
        assert_eq!(selected.path(), Some(udp));
        assert!(!selected.handle_check(now, tcp, false));
        assert_eq!(selected.path(), Some(udp));
    }

    #[test]
    fn a_client_that_nominates_everything_stays_on_udp() {
        let (now, mut selected) = (Instant::now(), Selected::default());
        let (udp, other, tcp) = paths();
        for _ in 0..10 {
            for path in [udp, tcp, other] {
                selected.handle_check(now, path, true);
            }
            assert_eq!(selected.path(), Some(udp));
        }
    }

    #[test]
    fn a_client_that_leaves_a_path_is_followed_at_its_second_nomination() {
        let (now, mut selected) = (Instant::now(), Selected::default());
        let (udp, _, tcp) = paths();
        selected.handle_check(now, udp, true);
        assert!(!selected.handle_check(now, tcp, true));
        // It looks whether UDP is back, and does not nominate it.
        selected.handle_check(now, udp, false);
        assert!(selected.handle_check(now, tcp, true));
        assert_eq!(selected.path(), Some(tcp));
    }

    #[test]
    fn after_a_restart_one_nomination_is_enough_and_until_then_nothing_changes() {
        let (now, mut selected) = (Instant::now(), Selected::default());
        let (udp, other, tcp) = paths();
        selected.handle_check(now, udp, true);
        selected.handle_restart();
        assert!(!selected.handle_check(now, tcp, false));
        assert_eq!(selected.path(), Some(udp));
        assert!(selected.handle_check(now, other, true), "a client with another address, which nominates once");
        assert_eq!(selected.path(), Some(other));
        assert!(!selected.handle_check(now, udp, true), "and from then on as before");
    }

    #[test]
    fn a_path_that_was_nominated_once_is_taken_when_the_present_one_has_died() {
        let (start, mut selected) = (Instant::now(), Selected::default());
        let (udp, other, _) = paths();
        let at = |secs| start + Duration::from_secs(secs);
        selected.handle_check(at(0), udp, true);
        assert!(!selected.handle_check(at(1), other, true));
        assert!(!selected.handle_check(at(29), other, false), "the present one may come back");
        assert!(selected.handle_check(at(31), other, false));
        assert!(selected.consents(at(31)));
    }

    #[test]
    fn a_path_that_went_silent_is_left_at_the_first_nomination_unless_it_comes_back() {
        for comes_back in [false, true] {
            let (now, mut selected) = (Instant::now(), Selected::default());
            let (udp, _, tcp) = paths();
            selected.handle_check(now, udp, true);
            selected.doubt();
            if comes_back {
                selected.handle_check(now, udp, false);
            }
            assert_eq!(selected.handle_check(now, tcp, true), !comes_back);
            assert_eq!(selected.path(), Some(if comes_back { udp } else { tcp }));
        }
    }

    #[test]
    fn consent_ends_half_a_minute_after_the_last_check_and_comes_back_with_the_next() {
        let (start, mut selected) = (Instant::now(), Selected::default());
        let (udp, other, _) = paths();
        let at = |secs| start + Duration::from_secs(secs);
        assert!(selected.consents(at(0)), "nothing is known yet");
        selected.handle_check(at(0), udp, true);
        selected.handle_check(at(10), udp, false);
        assert!(selected.consents(at(39)));
        assert!(!selected.consents(at(40)));
        assert!(selected.handle_check(at(50), other, true), "the old path is dead: the new one is taken at once");
        assert!(selected.consents(at(50)));
        selected.handle_check(at(90), other, false);
        assert!(selected.consents(at(90)));
    }
}
