//! What goes between media workers: packets of tracks that are received in a room, or a part of one, on another worker, and
//! their requests for keyframes.
//!
//! One bounded channel for each pair and direction. Nobody waits: what finds no room is dropped and counted, as on a
//! network. A worker is woken once for all that another one has for it, not for each packet.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::sfu::Relayed;

/// What one worker may have for another: with 5,000 packets a second between them, 400 ms. A worker that is further
/// behind has no use for them.
const CARRIED_MAX: usize = 2_048;
/// Packets taken from one other worker in a tick, so that they cannot hold up sockets and timers.
const CARRIED_PER_TICK_MAX: usize = 512;

/// One worker's ends of all channels.
pub struct Lanes {
    /// To each worker, by number; none to itself.
    to: Vec<Option<Way>>,
    from: Vec<mpsc::Receiver<Relayed>>,
    /// For want of room, since this was read last.
    pub dropped: u64,
}

struct Way {
    channel: mpsc::Sender<Relayed>,
    waker: Arc<mio::Waker>,
    /// It has something new and does not know yet.
    news: bool,
}

/// Makes the ends of every worker, in order, each of which is woken by its waker.
pub fn between(wakers: &[Arc<mio::Waker>]) -> Vec<Lanes> {
    let mut ends: Vec<_> = wakers.iter().map(|_| Lanes { to: Vec::new(), from: Vec::new(), dropped: 0 }).collect();
    for sender in 0..wakers.len() {
        for (receiver, waker) in wakers.iter().enumerate() {
            let way = (sender != receiver).then(|| {
                let (channel, received) = mpsc::channel(CARRIED_MAX);
                ends[receiver].from.push(received);
                Way { channel, waker: waker.clone(), news: false }
            });
            ends[sender].to.push(way);
        }
    }
    ends
}

impl Lanes {
    /// Hands it to a worker, which is woken by [`Self::wake`].
    pub fn send(&mut self, worker: usize, relayed: Relayed) {
        let Some(way) = self.to.get_mut(worker).and_then(Option::as_mut) else { return };
        match way.channel.try_send(relayed) {
            Ok(()) => way.news = true,
            Err(mpsc::error::TrySendError::Full(_)) => self.dropped += 1,
            // A worker that has stopped, with all of its rooms.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    pub fn wake(&mut self) {
        for way in self.to.iter_mut().flatten() {
            if std::mem::take(&mut way.news) {
                // Fails only where the eventfd is gone, that is with the worker.
                let _ = way.waker.wake();
            }
        }
    }

    /// Takes what others have for this worker. True if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Relayed)) -> bool {
        let mut more = false;
        for channel in &mut self.from {
            let mut taken = 0;
            while taken < CARRIED_PER_TICK_MAX
                && let Ok(relayed) = channel.try_recv()
            {
                take(relayed);
                taken += 1;
            }
            more |= taken == CARRIED_PER_TICK_MAX;
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_worker_does_not_take_is_dropped_and_counted_and_it_is_woken_once() {
        let mut polls: Vec<_> = (0..3).map(|_| mio::Poll::new().unwrap()).collect();
        let waker = |poll: &mio::Poll| Arc::new(mio::Waker::new(poll.registry(), mio::Token(1)).unwrap());
        let wakers: Vec<_> = polls.iter().map(waker).collect();
        let mut lanes = between(&wakers);
        for _ in 0..CARRIED_MAX + 5 {
            lanes[0].send(2, Relayed::for_tests());
        }
        // To itself, and to one that there is not.
        lanes[0].send(0, Relayed::for_tests());
        lanes[0].send(3, Relayed::for_tests());
        assert_eq!(lanes[0].dropped, 5);
        let mut events = mio::Events::with_capacity(4);
        let mut woken = |poll: &mut mio::Poll| {
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            events.iter().count()
        };
        assert_eq!(woken(&mut polls[2]), 0, "not for each packet");
        lanes[0].wake();
        lanes[0].wake();
        assert_eq!((woken(&mut polls[1]), woken(&mut polls[2])), (0, 1));
        let mut taken = 0;
        assert!(lanes[2].receive(|_| taken += 1), "the rest in the next tick");
        assert_eq!(taken, CARRIED_PER_TICK_MAX);
        while lanes[2].receive(|_| taken += 1) {}
        assert_eq!(taken, CARRIED_MAX);
        drop(lanes.remove(2));
        lanes[0].send(2, Relayed::for_tests());
        assert_eq!(lanes[0].dropped, 5, "a worker that has stopped is no want of room");
    }
}
