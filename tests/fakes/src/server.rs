//! HTTP/1.1 and HTTP/2, with and without TLS.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use s3s::service::S3Service;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    backend::{self, Answer, AnswerBody},
    events::Events,
    hosts, models,
    record::{Recorded, Upstream},
    verify, websocket,
};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The back ends and the record.
pub struct Server {
    /// What was sent here.
    pub upstream: Arc<Upstream>,
    /// S3, if s3s-fs is it.
    pub s3: Option<S3Service>,
    /// What event streams go to.
    pub events: Events,
    /// moto, if it runs.
    pub moto: Option<SocketAddr>,
}

/// Serves HTTPS.
pub async fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>, server: Arc<Server>) {
    // S3's front ends don't offer HTTP/2. (And over it s3s-fs ends ranges with hundreds of empty frames.)
    let mut s3 = ServerConfig::clone(&config);
    s3.alpn_protocols = vec![b"http/1.1".to_vec()];
    let s3 = Arc::new(s3);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (config, s3, server) = (config.clone(), s3.clone(), server.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let accepted = async {
                let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
                let is_s3 = start.client_hello().server_name().is_some_and(|name| hosts::s3(name).is_some());
                start.into_stream(if is_s3 { s3 } else { config }).await
            };
            match accepted.await {
                Ok(stream) => serve_connection(stream, server).await,
                Err(error) => tracing::info!("no TLS: {error}"),
            }
        });
    }
}

/// Serves HTTP.
pub async fn serve_plain(listener: TcpListener, server: Arc<Server>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve_connection(stream, server.clone()));
    }
}

async fn serve_connection<S>(stream: S, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().half_close(true);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::info!("connection ended: {error}");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Recorded<AnswerBody>> {
        if request.version() < http::Version::HTTP_2 && request.uri().authority().is_some() {
            let why = "an absolute-form target, which AWS's front ends don't take\n".to_owned();
            tracing::error!("{why}");
            let exchange = self.upstream.begin(&request.into_parts().0, "");
            let answer = backend::text_answer(StatusCode::BAD_REQUEST, "text/plain", why);
            let status = answer.status();
            return answer.map(|body| exchange.response(status, body));
        }
        let host = host(&request);
        let (mut head, body) = request.into_parts();
        let exchange = self.upstream.begin(&head, &host);
        if head.headers.contains_key(header::UPGRADE) {
            drop(exchange.request(body));
            let answer = websocket::ask(head).await.unwrap_or_else(|error| {
                tracing::error!("{host}: {error}");
                backend::text_answer(StatusCode::BAD_GATEWAY, "text/plain", format!("the lab's fake failed: {error}\n"))
            });
            let status = answer.status();
            return answer.map(|body| exchange.response(status, body));
        }
        let body = exchange.request(body);
        // HTTP/2 has it in the target alone; s3s reads the field.
        if let Ok(value) = host.parse() {
            head.headers.insert(header::HOST, value);
        }
        let request = Request::from_parts(head, body);
        let answer = match self.route(&host, request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!("{host}: {error}");
                backend::text_answer(StatusCode::BAD_GATEWAY, "text/plain", format!("the lab's fake failed: {error}\n"))
            }
        };
        let status = answer.status();
        answer.map(|body| exchange.response(status, body))
    }

    async fn route(&self, host: &str, request: Request<Recorded<Incoming>>) -> Result<Answer, BoxError> {
        if !hosts::is_aws(host) || hosts::is_application(host) {
            return Ok(backend::page(host));
        }
        if let Some(service) = &self.s3
            && hosts::s3(host).is_some()
        {
            return backend::ask_s3(service, request).await;
        }
        let (head, body) = request.into_parts();
        if verify::is_for(host) || models::is_for(&head, host) {
            let (id, secret) = self.events.key();
            let kind = head.headers.get(header::CONTENT_TYPE);
            if kind.is_some_and(|kind| *kind == "application/vnd.amazon.eventstream") {
                return Ok(match verify::check(&head, host, &[], id, secret)? {
                    Ok(()) => self.events.answer(Request::from_parts(head, body)),
                    Err(refused) => refused,
                });
            }
            let body = body.collect().await?.to_bytes();
            let signed = verify::check(&head, host, &body, id, secret)?;
            return Ok(signed.map_or_else(|refused| refused, |()| models::answer(&head)));
        }
        let request = Request::from_parts(head, body);
        if hosts::is_registry(host) {
            return backend::registry(&request.into_parts().0, |url| self.events.presigned(url));
        }
        match self.moto {
            Some(moto) => backend::ask_moto(moto, host, request).await,
            None => Ok(backend::text_answer(
                StatusCode::NOT_IMPLEMENTED,
                "text/plain",
                format!("nothing plays {host} in this lab: it was started without moto\n"),
            )),
        }
    }
}

/// The name that a request is for, without its port.
fn host(request: &Request<Incoming>) -> String {
    let field = || request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(http::uri::Authority::as_str).or_else(field).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.to_ascii_lowercase()
}
