//! Threads and sockets around [`crate::sfu`].

mod handle;

pub use handle::{WorkerClosed, WorkerHandle};
