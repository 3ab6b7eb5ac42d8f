//! The socket where users besides root register sessions, and do nothing else.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{net::UnixListener, sync::Semaphore, time::timeout};

use crate::{
    actor::Actor,
    approvals::Peer,
    log_limit::LogLimit,
    server::{Backend, ConsoleError, error, pause, serve},
};

/// Registrars' connections at once; more wait.
const MAX_REGISTRARS: usize = 16;
/// For one of them: a provider may have to be asked.
const REGISTRAR_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens the socket where users besides root register sessions, 0666: the kernel says who connects, and whether they may,
/// with the process that they connect by, `may` says.
pub fn serve_registrars<B: Backend, M: Fn(Peer) -> Result<(), String> + Send + 'static>(
    path: &Path,
    backend: Arc<B>,
    may: M,
) -> Result<impl Future<Output = ()> + Send + use<B, M>, ConsoleError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(error("making the folder of the registrars' socket", folder))?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("replacing the registrars' socket", path)(source));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error("opening the registrars' socket", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(error("opening the registrars' socket to all", path))?;
    Ok(async move {
        let connections = Arc::new(Semaphore::new(MAX_REGISTRARS));
        let refused = LogLimit::new();
        while let Ok(permit) = connections.clone().acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            // Before anything of it is read or recorded.
            if let Err(why) = may(Peer { uid: peer.uid(), pid: peer.pid() }) {
                // Anybody can try as often as they like.
                if let Some(untold) = refused.admit() {
                    let (uid, pid) = (peer.uid(), peer.pid());
                    tracing::warn!(uid, pid, why, untold, "who may not register sessions tried to: refused");
                }
                continue;
            }
            let served =
                timeout(REGISTRAR_TIMEOUT, serve(stream, backend.clone(), Some(Arc::new(Actor::of_peer(&peer)))));
            tokio::spawn(async move {
                let _permit = permit;
                if served.await.is_err() {
                    tracing::debug!("a registrar's connection took too long");
                }
            });
        }
    })
}
