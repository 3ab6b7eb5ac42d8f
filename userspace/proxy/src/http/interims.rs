//! Telling a client that its answer takes longer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// `100`, since some clients (Python's `http.client`) skip no other.
pub(crate) const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// In a request's extensions: a way to tell an HTTP/1.1 client that its answer takes longer. RFC 9110, section 15.2: any
/// number of interim answers may come before the answer. Each starts the client's read timeout anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interims(Arc<AtomicBool>);

impl Interims {
    /// Sends one. To be called by the future that makes the answer, so that none comes within or after it.
    pub(crate) fn send(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether one is to be sent, which the connection does now.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}
