//! HTTP/2 frames that cost the receiver more than the sender, counted before h2 sees them.
//!
//! h2 bounds headers, CONTINUATION frames and streams that are reset before they are accepted. PING, SETTINGS, PRIORITY,
//! RST_STREAM and empty DATA frames are legal in any number (RFC 9113, 10.5) and each costs an answer or some work, so
//! that a connection has a budget of them: a burst, and some a second.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::http::through::writes_through;

/// Control frames that may come at once; SDKs send a handful in a connection's life.
const BURST: f64 = 200.0;
/// Control frames that may come every second after that.
const PER_SECOND: f64 = 20.0;
/// CONTINUATION frames of one header block: the bound of h2 on the header list is 64 KiB, and frames have 16.
const MAX_CONTINUATIONS: u32 = 16;
const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A stream whose incoming HTTP/2 frames are counted.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    stream: S,
    budget: Budget,
}

#[derive(Debug)]
struct Budget {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    continuations: u32,
    left: f64,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0, continuations: 0, left: BURST, since: now }
    }

    fn take(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[..wanted]);
            self.have += wanted;
            bytes = &bytes[wanted..];
            if self.have == HEAD {
                self.have = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> io::Result<()> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = length;
        let costly = match kind {
            DATA => length == 0 && flags & END_STREAM == 0,
            PRIORITY | RST_STREAM | SETTINGS | PING => true,
            _ => false,
        };
        self.continuations = match kind {
            CONTINUATION => self.continuations + 1,
            _ => 0,
        };
        if self.continuations > MAX_CONTINUATIONS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many CONTINUATION frames in one header block"));
        }
        if costly {
            self.left = (self.left + now.duration_since(self.since).as_secs_f64() * PER_SECOND).min(BURST) - 1.0;
            self.since = now;
            if self.left < 0.0 {
                let why = "too many HTTP/2 control frames (PING, SETTINGS, PRIORITY, RST_STREAM, empty DATA)";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        } else if kind == HEADERS {
            // A stream that is opened may be reset once: cancelled calls are ordinary, and h2 bounds their number.
            self.left = (self.left + 1.0).min(BURST);
        }
        Ok(())
    }
}

impl<S> Frames<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, budget: Budget::new(Instant::now()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        Poll::Ready(this.budget.take(&buf.filled()[before..], Instant::now()))
    }
}

writes_through!(Frames<S>, S);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 1], &vec![0xff; length]].concat()
    }

    fn count(frames: &[Vec<u8>], step: usize) -> io::Result<()> {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let bytes = [vec![0; PREFACE], frames.concat()].concat();
        bytes.chunks(step).try_for_each(|piece| budget.take(piece, now))
    }

    #[test]
    fn floods_end_the_connection_however_they_are_cut() {
        for step in [1, 7, 4096] {
            for flood in [frame(PING, 0, 8), frame(SETTINGS, 0, 6), frame(RST_STREAM, 0, 4), frame(DATA, 0, 0)] {
                assert!(count(&vec![flood.clone(); 150], step).is_ok());
                assert!(count(&vec![flood; 250], step).is_err());
            }
            assert!(count(&vec![frame(CONTINUATION, 0, 3); 17], step).is_err());
        }
    }

    #[test]
    fn ordinary_traffic_has_no_bound() {
        assert!(count(&vec![frame(DATA, 0, 1000); 5000], 4096).is_ok());
        assert!(count(&vec![frame(HEADERS, 5, 100); 5000], 4096).is_ok());
        // Each call cancelled.
        assert!(count(&vec![[frame(HEADERS, 5, 100), frame(RST_STREAM, 0, 4)].concat(); 5000], 4096).is_ok());
        let now = Instant::now();
        let mut budget = Budget::new(now);
        budget.take(&[0; PREFACE], now).unwrap();
        for second in 0..1000 {
            budget.take(&frame(PING, 0, 8).repeat(10), now + Duration::from_secs(second)).unwrap();
        }
    }
}
