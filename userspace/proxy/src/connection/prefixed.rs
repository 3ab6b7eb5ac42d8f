//! A stream whose beginning was read before it was known what it is.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use crate::http::through::writes_through;

/// A stream of which some bytes have been read already.
pub(super) struct Prefixed {
    pub(super) start: Bytes,
    pub(super) stream: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.start.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.start.len().min(buf.remaining());
        buf.put_slice(&self.start[..count]);
        self.start.advance(count);
        if self.start.is_empty() {
            self.start = Bytes::new(); // lets go of the buffer
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Prefixed);
