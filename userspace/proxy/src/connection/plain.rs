//! Connections that begin with a request in the clear.

use std::sync::Arc;

use bytes::BytesMut;
use chaperone_model::ConnectionKind;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    connection::{accepted::Accepted, hello, prefixed::Prefixed, reach::is_public},
    http::strict::{MAX_FIELDS, MAX_HEAD_BYTES},
};

impl Accepted {
    pub(super) async fn plain(self: Arc<Self>, mut stream: TcpStream) -> Result<(u64, u64), String> {
        let mut start = BytesMut::with_capacity(2048);
        let host = timeout(self.shared.limits.handshake_timeout, async {
            loop {
                if start.len() > MAX_HEAD_BYTES {
                    return Err("the request head is larger than 64 KiB".to_owned());
                }
                match stream.read_buf(&mut start).await {
                    Ok(0) => return Err("the connection ended before its request".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
                if let Some(host) = host_field(&start)? {
                    return Ok(host);
                }
            }
        });
        let host = host.await.map_err(|_| "no request head came in time".to_owned())??;
        let stream = Prefixed { start: start.freeze(), stream };
        if self.shared.catalog.host(&host).is_none() && !self.shared.generation().is_inspected(&host) {
            return Box::pin(self.pass_on(&host, stream)).await;
        }
        self.check_reach(&host).await?;
        Box::pin(self.open(Some(&host), Some(self.destination), ConnectionKind::Inspected, None)).await?;
        // At an address that is this name's alone, other names are not asked for.
        let name = Some(host.as_str()).filter(|_| !is_public(self.destination.ip()));
        Box::pin(self.serve_http1(name, stream)).await
    }
}

/// The Host of a request head: `None` until the head is whole. What is wrong with it in other ways, the strict reader
/// or the other side will say.
fn host_field(start: &[u8]) -> Result<Option<String>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(start) {
        Err(error) => Err(format!("not an HTTP/1.1 request: {error}")),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(_)) => {
            let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
            let (Some(host), None) = (hosts.next(), hosts.next()) else {
                return Err("the request has not exactly one Host field".to_owned());
            };
            let host = host.value.strip_suffix(b":80").unwrap_or(host.value);
            hello::host_name(host).map(Some).ok_or_else(|| "the request's Host is not a plain DNS name".to_owned())
        }
    }
}
