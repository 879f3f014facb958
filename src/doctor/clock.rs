//! Clocks: tokens begin and end by them, and so do credentials for relays.

use std::time::{Duration, SystemTime};

use super::Finding;

const CHECK: &str = "clock";
/// Tokens are taken with clocks that differ by a minute.
const DIFFERENCE_MAX: Duration = Duration::from_secs(60);
/// Above the second that HTTP's dates are precise to, and what a slow answer takes.
const DIFFERENCE_USUAL: Duration = Duration::from_secs(5);

/// Compares the time that the server says with ours. `date`: its `Date` header.
pub fn compare(date: Option<&str>, now: SystemTime) -> Finding {
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Finding::skipped(CHECK, "the server's answers say no time");
    };
    let (ahead, difference) = match theirs.duration_since(now) {
        Ok(ahead) => ("ahead of", ahead),
        Err(behind) => ("behind", behind.duration()),
    };
    let seen = format!("the server's clock is {} s {ahead} this machine's", difference.as_secs());
    let advice = "set both clocks by NTP (timedatectl set-ntp true)";
    match difference {
        d if d > DIFFERENCE_MAX => Finding::failure(
            CHECK,
            format!("{seen}: tokens made elsewhere are refused as expired or not yet valid"),
            advice,
        ),
        d if d > DIFFERENCE_USUAL => Finding::warning(CHECK, seen, advice),
        _ => Finding::ok(CHECK, "the server's clock and this machine's agree"),
    }
}

/// Whether the kernel knows of anything that sets this machine's clock.
pub fn synchronised() -> Option<Finding> {
    // SAFETY: `timex` is plain data; with no mode set, the call only reads.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    let unset = state == libc::TIME_ERROR || status & libc::STA_UNSYNC != 0;
    (state >= 0 && unset).then(|| {
        Finding::warning(
            CHECK,
            "nothing keeps this machine's clock right",
            "turn NTP on (timedatectl set-ntp true), unless the host of this container has it",
        )
    })
}
