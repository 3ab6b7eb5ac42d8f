//! `upstream.jsonl`: one line for each request that was sent here, written when it is over.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use anyhow::Context as _;
use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use http::{StatusCode, Version, request::Parts};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::chunked::Decoder;

/// The file.
#[derive(Debug)]
pub struct Upstream {
    file: Mutex<File>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    time: &'a str,
    version: String,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    access_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    te: Option<&'a str>,
    body_length: u64,
    body_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_sha256: Option<String>,
    /// What STS was asked, as the form that it was asked by.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    status: Option<u16>,
    /// Whether the request's body came to its end.
    complete: bool,
}

/// The most of a body that is kept.
const MAX_KEPT: usize = 64 << 10;

impl Upstream {
    /// Opens the file, and appends to what is in it.
    pub fn open(path: &Path) -> anyhow::Result<Arc<Self>> {
        // It names the real key, which is nothing for agents to read.
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Arc::new(Self { file: Mutex::new(file) }))
    }

    /// Begins the line of a request.
    pub fn begin(self: &Arc<Self>, head: &Parts, host: &str) -> Exchange {
        let (uri, headers) = (&head.uri, &head.headers);
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let chunked =
            text("content-encoding").contains("aws-chunked") || text("x-amz-content-sha256").starts_with("STREAMING-");
        Exchange(Arc::new(Mutex::new(State {
            upstream: self.clone(),
            time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            version: head.version,
            method: head.method.to_string(),
            host: host.to_owned(),
            path: path.to_owned(),
            access_key_id: access_key_id(text("authorization"), uri.query().unwrap_or_default()),
            te: Some(text("te").to_owned()).filter(|te| !te.is_empty()),
            length: 0,
            digest: digest::Context::new(&SHA256),
            payload: chunked.then(Decoder::new),
            kept: host.starts_with("sts.").then(Vec::new),
            status: None,
            complete: false,
            request_over: false,
            response_over: false,
            written: false,
        })))
    }
}

/// One request, shared by its two bodies.
#[derive(Clone)]
pub struct Exchange(Arc<Mutex<State>>);

struct State {
    upstream: Arc<Upstream>,
    time: String,
    version: Version,
    method: String,
    host: String,
    path: String,
    access_key_id: Option<String>,
    te: Option<String>,
    length: u64,
    digest: digest::Context,
    payload: Option<Decoder>,
    kept: Option<Vec<u8>>,
    status: Option<u16>,
    complete: bool,
    request_over: bool,
    response_over: bool,
    written: bool,
}

impl Exchange {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request's body, digested as it is read.
    pub fn request<B: Body<Data = Bytes> + Unpin>(&self, body: B) -> Recorded<B> {
        let over = body.is_end_stream();
        let recorded = Recorded { body, exchange: self.clone(), side: Side::Request };
        if over {
            self.end(Side::Request, true);
        }
        recorded
    }

    /// The answer's body: when it ends the line is written.
    pub fn response<B: Body<Data = Bytes> + Unpin>(&self, status: StatusCode, body: B) -> Recorded<B> {
        self.state().status = Some(status.as_u16());
        let over = body.is_end_stream();
        let recorded = Recorded { body, exchange: self.clone(), side: Side::Response };
        if over {
            self.end(Side::Response, true);
        }
        recorded
    }

    fn end(&self, side: Side, complete: bool) {
        let mut state = self.state();
        match side {
            Side::Request if !state.request_over => {
                state.request_over = true;
                state.complete = complete;
            }
            Side::Response => state.response_over = true,
            Side::Request => {}
        }
        if state.request_over && state.response_over {
            state.write();
        }
    }
}

impl State {
    fn write(&mut self) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let payload = self.payload.take().and_then(Decoder::finish);
        let digest = std::mem::replace(&mut self.digest, digest::Context::new(&SHA256)).finish();
        let (payload_length, payload_sha256) = payload.unzip();
        let line = Line {
            time: &self.time,
            version: format!("{:?}", self.version),
            method: &self.method,
            host: &self.host,
            path: &self.path,
            access_key_id: self.access_key_id.as_deref(),
            te: self.te.as_deref(),
            body_length: self.length,
            body_sha256: hex::encode(digest),
            payload_length,
            payload_sha256,
            body: self.kept.take().map(|it| String::from_utf8_lossy(&it).into_owned()),
            status: self.status,
            complete: self.complete,
        };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        let mut file = self.upstream.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(&text) {
            tracing::error!("writing upstream.jsonl: {error}");
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.write();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A body on its way through.
pub struct Recorded<B> {
    body: B,
    exchange: Exchange,
    side: Side,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recorded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.side == Side::Request
            && let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let mut state = self.exchange.state();
            state.length += data.len() as u64;
            state.digest.update(data);
            if let Some(payload) = &mut state.payload {
                payload.update(data);
            }
            if let Some(kept) = &mut state.kept {
                let room = MAX_KEPT - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        // Before the last bytes are handed on, so that whoever has got them finds the line.
        if frame.is_none() || self.body.is_end_stream() {
            self.exchange.end(self.side, true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Recorded<B> {
    fn drop(&mut self) {
        self.exchange.end(self.side, false);
    }
}

/// The key that a request says it was signed by: in its header (SigV4, SigV2) or in its query.
fn access_key_id(authorization: &str, query: &str) -> Option<String> {
    let in_header = authorization
        .split_once("Credential=")
        .and_then(|(_, rest)| rest.split(['/', ',', ' ']).next())
        .or_else(|| authorization.strip_prefix("AWS ").and_then(|rest| rest.split(':').next()));
    let in_query = || {
        query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            match name {
                "X-Amz-Credential" => value.split(['/', '%']).next(),
                "AWSAccessKeyId" => Some(value),
                _ => None,
            }
        })
    };
    in_header.or_else(in_query).filter(|id| !id.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_requests_carry_them() {
        for (authorization, query, expected) in [
            (
                "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host",
                "",
                Some("AKIA1"),
            ),
            ("AWS AKIA2:sig=", "", Some("AKIA2")),
            ("", "a=b&X-Amz-Credential=AKIA3%2F20260101", Some("AKIA3")),
            ("", "AWSAccessKeyId=AKIA4&Signature=x", Some("AKIA4")),
            ("Bearer x", "a", None),
            ("", "", None),
        ] {
            assert_eq!(access_key_id(authorization, query).as_deref(), expected);
        }
    }

    #[test]
    fn a_line_is_written_however_an_exchange_ends() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("upstream.jsonl");
        let upstream = Upstream::open(&path).unwrap();
        let head = http::Request::put("/p?q").body(()).unwrap().into_parts().0;
        let begin = || upstream.begin(&head, "h");
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();

        let exchange = begin();
        let request = exchange.request(http_body_util::Empty::<Bytes>::new());
        let response = exchange.response(StatusCode::OK, http_body_util::Empty::<Bytes>::new());
        assert_eq!(lines(), 1, "written before the answer is sent");
        drop((exchange, request, response));
        assert_eq!(lines(), 1, "and once");
        drop(begin());
        assert_eq!(lines(), 2);
        let line: serde_json::Value =
            serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().next().unwrap()).unwrap();
        assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some("/p?q"), Some(200)));
    }
}
