//! HTTP/1.1 framing: what is let through is what came, however it is cut, and httparse reads the same head.
#![no_main]

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use chaperone_proxy::http::{
    heads::Heads,
    strict::{Role, Strict},
};
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(self.1.min(self.0.len()).min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

/// What is let through, and whether anything was refused.
fn through(data: &[u8], step: usize) -> (Vec<u8>, bool) {
    let told = Arc::new(Heads::default());
    let mut strict = Strict::new(Pieces(data, step), Role::Requests(told.clone()));
    let mut out = Vec::new();
    let mut failed = false;
    while let Some(read) = strict.read_buf(&mut out).now_or_never() {
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    let refused = told.violation().is_some();
    (out, failed || refused)
}

fuzz_target!(|data: &[u8]| {
    let (whole, refused) = through(data, data.len().max(1));
    for step in [1, 7] {
        let (out, other) = through(data, step);
        assert_eq!(refused, other, "cut into {step}");
        // What came whole before a bad body is not always handed on with the error; then it is lost with the connection.
        let (short, long) = if out.len() < whole.len() { (&out, &whole) } else { (&whole, &out) };
        assert!(long.starts_with(short) && (refused || short == long), "cut into {step}");
    }
    if !refused {
        assert_eq!(whole, data[..whole.len()]);
        if let Some(end) = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let mut fields = [httparse::EMPTY_HEADER; 256];
            let mut head = httparse::Request::new(&mut fields);
            let read = head.parse(&whole).expect("httparse reads what is let through");
            assert_eq!(read, httparse::Status::Complete(end + 4));
            let hosts = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
            assert_eq!(hosts, 1);
        }
    }
});
