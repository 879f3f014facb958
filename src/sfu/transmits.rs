//! Datagrams to send, their bytes side by side: what goes to one destination is one run of memory, which the kernel takes
//! in one call.

use super::path::{Path, Protocol};

/// Beyond this the memory is given back once it is empty; a burst of keyframes to a large room needs less.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub struct Transmits {
    bytes: Vec<u8>,
    list: Vec<Transmit>,
}

#[derive(Clone, Copy)]
struct Transmit {
    path: Path,
    end: usize,
}

/// Datagrams for one destination; all of one length, but for the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    pub path: Path,
    pub bytes: &'a [u8],
    pub segment: usize,
}

impl Transmits {
    /// Where the next datagram is written to, by appending. [`Self::commit`] ends it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was appended since the last commit is a datagram.
    pub fn commit(&mut self, path: Path) {
        debug_assert!(self.bytes.len() > self.committed());
        self.list.push(Transmit { path, end: self.bytes.len() });
    }

    /// What was appended since the last commit is none.
    pub fn roll_back(&mut self) {
        self.bytes.truncate(self.committed());
    }

    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.commit(path);
    }

    fn committed(&self) -> usize {
        self.list.last().map_or(0, |last| last.end)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    /// All datagrams in order.
    pub fn iter(&self) -> impl Iterator<Item = (Path, &[u8])> {
        let mut start = 0;
        self.list.iter().map(move |transmit| {
            let bytes = &self.bytes[start..transmit.end];
            start = transmit.end;
            (transmit.path, bytes)
        })
    }

    /// All datagrams in order, as runs of at most so many datagrams and bytes. What goes by TCP comes one by one.
    pub fn runs(&self, datagrams_max: usize, bytes_max: usize) -> impl Iterator<Item = Run<'_>> {
        let (mut at, mut start) = (0, 0);
        std::iter::from_fn(move || {
            let first = self.list.get(at)?;
            let segment = first.end - start;
            let (mut end, mut count) = (first.end, 1);
            let mut last = segment;
            while let Some(next) = self.list.get(at + count).filter(|next| next.path == first.path) {
                let length = next.end - end;
                let joins = first.path.protocol == Protocol::Udp
                    && last == segment
                    && length <= segment
                    && count < datagrams_max
                    && next.end - start <= bytes_max;
                if !joins {
                    break;
                }
                (last, end, count) = (length, next.end, count + 1);
            }
            let run = Run { path: first.path, bytes: &self.bytes[start..end], segment };
            (at, start) = (at + count, end);
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path::udp(([192, 0, 2, 1], 7882).into(), ([192, 0, 2, 9], port).into())
    }

    #[test]
    fn equal_datagrams_to_one_destination_leave_as_one_run_and_a_shorter_one_ends_it() {
        let mut transmits = Transmits::default();
        for (port, length) in [(1, 900), (1, 900), (1, 300), (1, 900), (2, 900), (2, 1_000), (2, 10)] {
            transmits.push(path(port), &vec![7; length]);
        }
        let runs: Vec<_> =
            transmits.runs(64, 65_000).map(|it| (it.path.remote.port(), it.segment, it.bytes.len())).collect();
        assert_eq!(runs, [(1, 900, 2_100), (1, 900, 900), (2, 900, 900), (2, 1_000, 1_010)]);
        let few: Vec<_> = transmits.runs(2, 65_000).map(|run| run.bytes.len()).collect();
        assert_eq!(few, [1_800, 300, 900, 900, 1_010]);
        let small: Vec<_> = transmits.runs(64, 1_000).map(|run| run.bytes.len()).collect();
        assert_eq!(small, [900, 900, 300, 900, 900, 1_000, 10]);
        assert_eq!(
            transmits.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(),
            [900, 900, 300, 900, 900, 1_000, 10]
        );
    }

    #[test]
    fn frames_of_a_tcp_connection_stay_single() {
        let mut transmits = Transmits::default();
        let tcp = Path { protocol: Protocol::Tcp, ..path(1) };
        transmits.push(tcp, &[1; 10]);
        transmits.push(tcp, &[2; 10]);
        assert_eq!(transmits.runs(64, 65_000).count(), 2);
        transmits.clear();
        assert!(transmits.is_empty() && transmits.runs(64, 65_000).next().is_none());
    }

    #[test]
    fn what_is_rolled_back_is_not_sent() {
        let mut transmits = Transmits::default();
        transmits.push(path(1), &[1; 10]);
        transmits.buffer().extend_from_slice(&[2; 5]);
        transmits.roll_back();
        transmits.push(path(1), &[3; 4]);
        assert_eq!(transmits.iter().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), [vec![1; 10], vec![3; 4]]);
    }
}
