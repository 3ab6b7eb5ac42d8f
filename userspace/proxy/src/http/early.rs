//! Connections whose other side answers, and closes, before it has read the whole request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that may still be read when it can't be written to any more. What can't be sent is dropped: then the answer
/// that is there already is what counts, and not that the other side took no more. Without an answer, reading fails.
pub(crate) struct AnswersEarly<S> {
    stream: S,
    deaf: bool,
}

impl<S> AnswersEarly<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, deaf: false }
    }

    fn forgive<T>(&mut self, written: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                tracing::debug!(%error, "the other side reads no more: its answer is waited for");
                self.deaf = true;
                Poll::Ready(Ok(instead))
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswersEarly<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnswersEarly<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bytes.iter().map(|bytes| bytes.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.forgive(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.forgive(ended, ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that answers 403 at the first bytes and closes while more is coming: its answer is read all the same.
    #[tokio::test]
    async fn the_answer_of_a_server_that_reads_no_more_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 16];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(b"403").await.unwrap();
        });
        let mut client = AnswersEarly::new(TcpStream::connect(address).await.unwrap());
        client.write_all(&[b'x'; 64]).await.unwrap();
        server.await.unwrap();
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..64 {
            client.write_all(&piece).await.unwrap();
        }
        let mut answer = [0; 3];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"403");
    }
}
