//! From an accepted socket to what becomes of it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use chaperone_capture::{ALTERNATE_HTTPS, cgroup_path, is_metadata};
use chaperone_model::{ConnectionClosed, ConnectionId, Event};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    connection::accepted::{Accepted, Opening},
    data_plane::DataPlane,
};

impl DataPlane {
    /// Accepts until told to stop, or until the listener is destroyed.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            // The permit first: when there is none, connections wait in the kernel's queue.
            let permit = tokio::select! {
                () = self.stop.cancelled() => return,
                permit = self.connections.clone().acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let shared = self.clone();
                    self.tasks.spawn(async move {
                        let _permit = permit;
                        let _held = shared.metrics.connections.hold();
                        shared.clone().handle(stream).await;
                    });
                }
                // Whoever owns its network namespace destroyed it (`ss -K`), and it will never listen again.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::error!(
                        "a listener was destroyed: until there is another one, connections wait or are refused"
                    );
                    return;
                }
                Err(error) => {
                    // Out of files or memory: what is open must end first. A pause keeps the loop from spinning.
                    tracing::error!(%error, "accepting a connection failed");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn handle(self: Arc<Self>, stream: TcpStream) {
        self.metrics.accepted.inc();
        let accepted = match self.origin(&stream).await {
            Ok(accepted) => Arc::new(accepted),
            Err(refused) => {
                self.metrics.refused.inc();
                if let Some(error) = refused {
                    tracing::warn!(error, "a connection was refused");
                }
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let result = match &accepted.place {
            Ok(_) => tokio::select! {
                biased;
                why = accepted.clone().cut_off() => Err(why),
                ended = accepted.share.lane().run(accepted.clone().dispatch(stream)) => ended,
            },
            Err(why) => Err(why.clone()),
        };
        let (sent_bytes, received_bytes, error) = match result {
            Ok((sent, received)) => (sent, received, None),
            Err(error) => (0, 0, Some(error)),
        };
        if let Some(why) = &error
            && !*accepted.opened.lock()
        {
            self.metrics.refused.inc();
            let _ = Box::pin(accepted.open(Opening::refused(None, why.clone()))).await;
        }
        let event = Event::ConnectionClosed(ConnectionClosed {
            id: accepted.id,
            session: accepted.session.session.id,
            at: OffsetDateTime::now_utc(),
            sent_bytes,
            received_bytes,
            error,
        });
        if let Err(error) = self.journal.append_now(&event) {
            tracing::error!(%error, "the end of a connection could not be recorded");
        }
    }

    /// Whose connection it is; or why it is refused, if that is to be told.
    async fn origin(self: &Arc<Self>, stream: &TcpStream) -> Result<Accepted, Option<String>> {
        let mut origin = self.origins.of(stream).map_err(|error| error.to_string())?;
        let path = cgroup_path(&self.cgroup_root, origin.cgroup).map_err(|error| error.to_string())?;
        let (cgroup, agent) = self.sessions.sharing(&path);
        let share = self.quotas.of(cgroup, agent.as_deref().unwrap_or_default());
        let place = match share.connect(is_metadata(origin.destination.0.ip())) {
            Ok(place) => Ok(place),
            Err(exceeded) => {
                // Each would be recorded at the cost of those that keep to their share.
                let refused = exceeded.told.ok_or(None)?;
                Err(format!("{exceeded}; refused since this was told last: {refused}"))
            }
        };
        if origin.process.argv.is_empty() {
            origin = self.origins.described(stream).await.map_err(|error| error.to_string())?;
        }
        if let Err(why) = &place {
            tracing::warn!(cgroup = path, why, "a connection was refused");
        }
        let (session, recorded) = if is_metadata(origin.destination.0.ip()) {
            self.session_soon(&path).await?
        } else {
            self.session_at(&path).await?
        };
        Ok(Accepted {
            shared: self.clone(),
            session,
            id: ConnectionId::new(),
            process: Arc::new(origin.process),
            destination: origin.destination.0,
            asked: OnceLock::new(),
            share,
            place,
            at_home: self.home == Some(origin.netns),
            opened: Mutex::new(false),
            unrecorded: recorded.err().map_or_else(OnceLock::new, OnceLock::from),
        })
    }
}

/// Calls under way are told why they end before their connection does.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Accepted {
    /// Ends when the session is stopped from now on. What comes while it is stopped is refused call by call.
    async fn cut_off(self: Arc<Self>) -> String {
        let (stops, session) = (&self.shared.stops, &self.session.session);
        stops.resumed(session).await;
        let stop = stops.stopped(session).await;
        sleep(LAST_WORDS).await;
        format!("{} was stopped", stop.of)
    }

    fn canonical_destination(&self) -> SocketAddr {
        SocketAddr::new(self.destination.ip().to_canonical(), self.destination.port())
    }

    async fn dispatch(self: Arc<Self>, stream: TcpStream) -> Result<(u64, u64), String> {
        match self.destination.port() {
            _ if is_metadata(self.destination.ip()) => Box::pin(self.serve_metadata(stream)).await,
            _ if self.shared.proxies.contains(&self.canonical_destination()) => {
                Box::pin(self.asked_as_proxy(stream)).await
            }
            443 | ALTERNATE_HTTPS => self.tls(stream, BytesMut::new()).await,
            80 => self.plain(stream, BytesMut::new()).await,
            port => Err(format!("BUG: a connection to port {port} was redirected")),
        }
    }
}
