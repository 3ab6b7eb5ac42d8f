//! The hooks' log lines, passed on to the daemon's log.

use std::{
    io,
    time::{Duration, Instant},
};

use aya_log::EbpfLogger;
use parking_lot::Mutex;
use tokio::io::{Interest, unix::AsyncFd};

use crate::CaptureError;

/// Lines per second; an agent can cause refusals as fast as it can call connect(2).
const LINES_PER_SECOND: u32 = 20;

/// Passes lines on until the runtime ends. Needs a tokio runtime with I/O.
pub(crate) fn forward(logger: EbpfLogger<Forward>) -> Result<tokio::task::JoinHandle<()>, CaptureError> {
    // SAFETY: the descriptor is the ring buffer's, which the logger owns and neither closes nor exchanges.
    let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger =
        registered.map_err(|error| CaptureError::system("watching the hooks' log")(error.into_parts().1))?;
    Ok(tokio::spawn(async move {
        let failed: io::Error = loop {
            match logger.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => break error,
            }
        };
        tracing::warn!(%failed, "the hooks' log can't be read any more");
    }))
}

/// Makes tracing events of aya-log's records.
#[derive(Debug, Default)]
pub(crate) struct Forward {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
}

impl Forward {
    /// Whether one more line may pass now; and how many were held back before it.
    fn admit(&self, now: Instant) -> Option<u32> {
        let mut window = self.window.lock();
        match window.as_mut() {
            Some(open) if now.duration_since(open.began) < Duration::from_secs(1) => {
                open.lines = open.lines.saturating_add(1);
                (open.lines <= LINES_PER_SECOND).then_some(0)
            }
            past => {
                let held_back = past.map_or(0, |past| past.lines.saturating_sub(LINES_PER_SECOND));
                *window = Some(Window { began: now, lines: 1 });
                Some(held_back)
            }
        }
    }
}

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(held_back) = self.admit(Instant::now()) else { return };
        if held_back > 0 {
            tracing::warn!(target: "chaperone_ebpf", held_back, "more lines came from the kernel hooks than are logged");
        }
        match record.level() {
            log::Level::Error => tracing::error!(target: "chaperone_ebpf", "{}", record.args()),
            log::Level::Warn => tracing::warn!(target: "chaperone_ebpf", "{}", record.args()),
            log::Level::Info => tracing::info!(target: "chaperone_ebpf", "{}", record.args()),
            log::Level::Debug | log::Level::Trace => tracing::debug!(target: "chaperone_ebpf", "{}", record.args()),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_held_back_and_counted() {
        let forward = Forward::default();
        let now = Instant::now();
        let passed = (0..1000).filter(|_| forward.admit(now).is_some()).count();
        assert_eq!(passed, LINES_PER_SECOND as usize);
        assert_eq!(forward.admit(now + Duration::from_secs(1)), Some(1000 - LINES_PER_SECOND));
        assert_eq!(forward.admit(now + Duration::from_secs(1)), Some(0));
    }
}
