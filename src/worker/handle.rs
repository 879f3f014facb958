//! The control plane's end of a media worker.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;

use crate::sfu::Command;

/// Cheap clone; one per worker. Only `rooms` holds these.
#[derive(Clone)]
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    waker: Arc<mio::Waker>,
    advertised: Arc<[SocketAddr]>,
}

#[derive(Debug, thiserror::Error)]
#[error("the media worker has stopped")]
pub struct WorkerClosed;

impl WorkerHandle {
    pub(super) fn new(commands: mpsc::Sender<Command>, waker: Arc<mio::Waker>, advertised: &[SocketAddr]) -> Self {
        Self { commands, waker, advertised: advertised.into() }
    }

    /// Where clients are told to send media to.
    pub fn advertised(&self) -> &[SocketAddr] {
        &self.advertised
    }

    /// A handle without a thread, and what it is told. Without the latter it is that of a worker that has stopped.
    #[cfg(test)]
    pub fn detached() -> (Self, mpsc::Receiver<Command>) {
        let (commands, told) = mpsc::channel(64);
        let poll = mio::Poll::new().expect("an epoll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("an eventfd");
        (Self::new(commands, Arc::new(waker), &[]), told)
    }

    /// Whether the worker has stopped, which is for good.
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits while the worker's queue is full: control is never dropped.
    pub async fn send(&self, command: Command) -> Result<(), WorkerClosed> {
        self.commands.send(command).await.map_err(|_| WorkerClosed)?;
        self.wake();
        Ok(())
    }

    /// For media ([`Command::Inject`]): dropped where the queue is full, `Ok(false)`.
    pub fn try_send(&self, command: Command) -> Result<bool, WorkerClosed> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.wake();
                Ok(true)
            }
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(WorkerClosed),
        }
    }

    fn wake(&self) {
        // Fails only where the eventfd is gone, that is with the worker; the next send says so.
        let _ = self.waker.wake();
    }
}
