//! The certificate of the server's ports: read at the start, and again when it changes.

use std::time::{Duration, SystemTime};

use tokio::{signal::unix::Signal, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::Failure,
    tls::{Config, Tls, TlsError},
};

/// How often the files are looked at. Whoever renews a certificate does so days before it must be there.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often a certificate that is about to end is told of.
const WARN_EVERY: u32 = 24 * 60 * 60 / LOOK_EVERY.as_secs() as u32;

/// `None` where no certificate is set.
pub(super) fn load(config: &Config) -> Result<Option<Tls>, Failure> {
    if !config.is_on() {
        return Ok(None);
    }
    let tls = Tls::load(config).map_err(|error| Failure::Fault(error.to_string()))?;
    warn(&tls);
    Ok(Some(tls))
}

/// Reads the files again when they change, and on SIGHUP.
pub(super) async fn watch(tls: Tls, mut hangup: Signal, stop: CancellationToken) {
    let mut looks = 0u32;
    // Told once for each state of the files, not at every look.
    let mut told = String::new();
    loop {
        let reloaded = tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => {
                told.clear();
                tls.reload().map(|()| true)
            }
            () = sleep(LOOK_EVERY) => tls.reload_if_changed(),
        };
        looks += 1;
        match reloaded {
            Ok(true) => {
                told.clear();
                tracing::info!("the TLS certificate was read again");
                warn(&tls);
            }
            Ok(false) if looks.is_multiple_of(WARN_EVERY) => warn(&tls),
            Ok(false) => {}
            Err(error) => tell_once(&mut told, &error),
        }
    }
}

fn tell_once(told: &mut String, error: &TlsError) {
    let text = error.to_string();
    if *told != text {
        tracing::error!(error = text, "the new TLS certificate is not taken; the one from before goes on being used");
        *told = text;
    }
}

fn warn(tls: &Tls) {
    if let Some(warning) = tls.validity().warning(SystemTime::now()) {
        tracing::warn!("{warning}");
    }
}
