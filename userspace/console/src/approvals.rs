//! The approvers' socket: any user of the host may ask, and who they are the kernel says.
//!
//! One request a line, one answer a line, in JSON. Whoever isn't an approver sees nothing but what their own groups are
//! asked, which is nothing.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use chaperone_model::ApprovalId;
use chaperone_policy::approvals::{Asking, Scope};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::UCred},
    sync::Semaphore,
    time::timeout,
};

use crate::{ClientError, server::ConsoleError, server::error};

/// A request is an id and a reason.
const MAX_REQUEST: u64 = 64 << 10;
/// An answer is at most a thousand questions.
const MAX_ANSWER: u64 = 64 << 20;
/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// For a request to come, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an approver can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ApprovalRequest {
    /// Allow or deny.
    Answer {
        /// The question.
        id: ApprovalId,
        /// Yes or no.
        allow: bool,
        /// Why.
        #[serde(default)]
        reason: String,
        /// What a yes is for.
        #[serde(default)]
        scope: Scope,
        /// For how many seconds it is for more than this call.
        #[serde(default)]
        seconds: u64,
    },
    /// The questions that the approver may answer; all that are listed, if `ended`.
    List {
        /// Those that are over, too.
        #[serde(default)]
        ended: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalResponse {
    /// What an answer made of its question.
    Answered(Box<Asking>),
    /// Why not, for people.
    Error(String),
    /// Questions, the oldest first.
    Questions(Vec<Asking>),
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id, at the time of connecting.
    pub pid: Option<i32>,
}

/// What serves approvers.
pub trait ApprovalBackend: Send + Sync + 'static {
    /// Does what they ask for.
    fn serve(&self, peer: Peer, request: ApprovalRequest) -> impl Future<Output = ApprovalResponse> + Send;
}

/// Opens the approvers' socket, 0666: the kernel says who connects.
pub fn serve_approvals<B: ApprovalBackend>(
    path: &Path,
    backend: Arc<B>,
) -> Result<impl Future<Output = ()> + Send + use<B>, ConsoleError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(error("making the folder of the approvers' socket", folder))?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("replacing the approvers' socket", path)(source));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error("opening the approvers' socket", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(error("opening the approvers' socket to all", path))?;
    Ok(async move {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = connections.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(peer) = stream.peer_cred() else { continue };
                    let backend = backend.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = answer(stream, &peer, &*backend).await {
                            tracing::debug!(%error, uid = peer.uid(), "an approver's connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "accepting an approver's connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn answer<B: ApprovalBackend>(stream: UnixStream, peer: &UCred, backend: &B) -> io::Result<()> {
    let peer = Peer { uid: peer.uid(), pid: peer.pid() };
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    timeout(PATIENCE, BufReader::new(read.take(MAX_REQUEST)).read_until(b'\n', &mut line)).await??;
    let response = match serde_json::from_slice(&line) {
        Ok(request) => backend.serve(peer, request).await,
        Err(error) => ApprovalResponse::Error(format!("a request that can't be read: {error}")),
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    timeout(PATIENCE, write.write_all(&text)).await?
}

/// Sends an approver's request.
pub async fn approvals(socket: &Path, request: &ApprovalRequest) -> Result<ApprovalResponse, ClientError> {
    exchange(socket, request)
        .await
        .map_err(|error| ClientError::Away { path: socket.to_owned(), why: error.to_string() })
}

async fn exchange<T: DeserializeOwned>(socket: &Path, request: &ApprovalRequest) -> io::Result<T> {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut line = Vec::new();
    BufReader::new(read.take(MAX_ANSWER)).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}
