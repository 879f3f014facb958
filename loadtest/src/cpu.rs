//! What the kernel has counted: CPU time and memory of processes, datagrams that sockets had no room for.

use std::{collections::HashSet, path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// Another process, looked at from outside.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
    clock: ClockId,
}

impl Process {
    pub fn new(pid: u32) -> Result<Self> {
        let seen = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()));
        let clock = seen.with_context(|| format!("there is no process {pid} on this machine to measure"))?;
        Ok(Self { pid, clock })
    }

    /// CPU time of all its threads, ended ones too; exact, not counted in ticks.
    pub fn cpu(&self) -> Result<Duration> {
        let time = clock_gettime(self.clock).with_context(|| format!("process {} is gone", self.pid))?;
        Ok(time.into())
    }

    /// Resident memory, KiB.
    pub fn rss_kib(&self) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid);
        let text =
            std::fs::read_to_string(Path::new(&file)).with_context(|| format!("process {} is gone", self.pid))?;
        rss_of(&text).with_context(|| format!("{file} has no VmRSS"))
    }
}

fn rss_of(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Processes that wanted to run in the last minute: figures of a busy machine are worth less.
pub fn machine_load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Datagrams that the kernel threw away since these UDP ports were opened: their readers were too slow.
pub fn udp_drops(ports: &HashSet<u16>) -> u64 {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(drops_of)
        .filter(|(port, _)| ports.contains(port))
        .map(|it| it.1)
        .sum()
}

/// Port and drops of a line of /proc/net/udp.
fn drops_of(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let port = fields.nth(1)?.rsplit_once(':')?.1;
    Some((u16::from_str_radix(port, 16).ok()?, fields.next_back()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_spent_what_its_threads_spent() {
        let own = Process::new(std::process::id()).unwrap();
        let (before, thread) = (own.cpu().unwrap(), thread_cpu());
        let mut sum = 0u64;
        while thread_cpu() - thread < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(own.cpu().unwrap() - before >= Duration::from_millis(5));
        assert!(own.rss_kib().unwrap() > 100);
    }

    #[test]
    fn nobody_s_process_is_told() {
        let said = Process::new(0x7fff_fff0).unwrap_err().to_string();
        assert!(said.contains("no process"), "{said}");
    }

    #[test]
    fn memory_is_read_from_its_line() {
        assert_eq!(rss_of("Name:\tviva\nVmRSS:\t   12345 kB\nThreads:\t4\n"), Some(12_345));
        assert_eq!(rss_of("Name:\tviva\n"), None);
    }

    #[test]
    fn what_a_full_socket_loses_is_counted() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (sender, to) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), receiver.local_addr().unwrap());
        let ports = HashSet::from([to.port()]);
        assert_eq!(udp_drops(&ports), 0);
        for _ in 0..5_000 {
            sender.send_to(&[0; 1_200], to).unwrap();
        }
        assert!(udp_drops(&ports) > 0);
    }
}
