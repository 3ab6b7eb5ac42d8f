//! Asking the daemon over its control socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::{
    api::{ControlError, ControlRequest, ControlResponse},
    server::PATH,
};

/// An answer is a status or a grant.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon can't be reached.
    #[error("asking the daemon at {path}: {why}; does it run (`systemctl status chaperone`), and are you root?")]
    Away {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The daemon is another version than this program.
    #[error(
        "the daemon at {path} doesn't know what it is asked: it is another version; restart it (`systemctl restart chaperone`)"
    )]
    OtherVersion {
        /// The socket.
        path: PathBuf,
    },
    /// It refused.
    #[error(transparent)]
    Refused(ControlError),
}

/// Asks the daemon that has this control socket.
pub async fn request(socket: &Path, request: &ControlRequest) -> Result<ControlResponse, ClientError> {
    let away = |why: String| ClientError::Away { path: socket.to_owned(), why };
    let stream = UnixStream::connect(socket).await.map_err(|error| away(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(error.to_string()))?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(request).map_err(|error| away(format!("BUG: {error}")))?;
    let request = Request::post(PATH)
        .header(HOST, "chaperone")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| away(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| away(error.to_string()))?
        .to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|_| ClientError::OtherVersion { path: socket.to_owned() });
    }
    match serde_json::from_slice(&bytes) {
        Ok(refused) => Err(ClientError::Refused(refused)),
        Err(_) if status == StatusCode::NOT_FOUND => Err(ClientError::OtherVersion { path: socket.to_owned() }),
        Err(_) => Err(away(format!("it answered {status}: {}", String::from_utf8_lossy(&bytes).trim()))),
    }
}
