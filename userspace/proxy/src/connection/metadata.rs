//! Connections to a metadata service: its stand-in answers.

use std::{convert::Infallible, sync::Arc};

use chaperone_aws::MetadataRequest;
use chaperone_capture::{METADATA_V4, METADATA_V6};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    connection::accepted::{Accepted, Opening},
    http::{
        heads::{Heads, Refused},
        keep_alive::tell,
        strict::{Role, Strict},
    },
};

impl Accepted {
    pub(super) async fn serve_metadata<S>(self: Arc<Self>, stream: S) -> Result<(u64, u64), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.shared.metrics.metadata.inc();
        self.open(Opening::metadata()).await?;
        let heads = Arc::new(Heads::new(&self.share));
        let strict = Strict::new(stream, Role::Requests(heads.clone()));
        let accepted = self.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let response = match heads.refused(request.headers_mut()) {
                Some(Refused::Quota(why)) => Response::builder().status(503).body(Bytes::from(format!("{why}\n"))),
                Some(Refused::Violation(why)) => Response::builder().status(400).body(Bytes::from(format!("{why}\n"))),
                None => Ok(accepted.metadata(&request)),
            };
            let response = response.unwrap_or_default().map(Full::new);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.limits.handshake_timeout)
            .serve_connection(TokioIo::new(strict), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.shared.stop.cancelled() => {
                // Clients keep it for later.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        tell(ended).map(|()| (0, 0))
    }

    fn metadata(&self, request: &Request<Incoming>) -> Response<Bytes> {
        let generation = self.shared.generation();
        let own = &self.session.own;
        let request = MetadataRequest {
            placeholder: &own.placeholder,
            region: &generation.settings.region,
            role_name: &generation.settings.role,
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            now: OffsetDateTime::now_utc(),
        };
        let metadata = &self.shared.metadata;
        match self.target().ip().to_canonical() {
            ip if ip == METADATA_V4[1] => metadata.respond_ecs(&request),
            ip if ip == METADATA_V4[2] || ip == METADATA_V6[1] => metadata.respond_pod_identity(&request),
            _ => metadata.respond(&request),
        }
    }
}
