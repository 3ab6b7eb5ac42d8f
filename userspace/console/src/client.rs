//! Asking the daemon over its control socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// An answer is a status or a grant.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why the daemon didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It can't be reached.
    #[error("asking the daemon at {path}: {why}; does it run (`systemctl status chaperone`), and are you root?")]
    Away {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends a control request; gives the answer's JSON.
pub async fn request(
    socket: &Path,
    method: Method,
    path: &str,
    body: &serde_json::Value,
) -> Result<serde_json::Value, ControlError> {
    let away = |why: String| ControlError::Away { path: socket.to_owned(), why };
    let stream = UnixStream::connect(socket).await.map_err(|error| away(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(error.to_string()))?;
    tokio::spawn(connection);
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "chaperone")
        .body(Full::new(body))
        .map_err(|error| away(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| away(error.to_string()))?
        .to_bytes();
    if !status.is_success() {
        return Err(ControlError::Refused(String::from_utf8_lossy(&bytes).trim().to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|error| away(format!("an answer that isn't JSON: {error}")))
}
