//! WebSockets, which go to a server that a test has started: it checks the handshake's signature by itself.

use http::{Request, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream};

use crate::{backend::Answer, server::BoxError};

/// Where a test's server listens.
const SERVER: &str = "127.0.0.1:4567";

/// Sends the handshake on as it is, and then whatever comes.
pub async fn ask(head: Parts) -> Result<Answer, BoxError> {
    let stream = TcpStream::connect(SERVER).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut agent = Request::from_parts(head.clone(), ());
    let mut answer = sender.send_request(Request::from_parts(head, Empty::<bytes::Bytes>::new())).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let other = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(agent), Ok(other)) = (hyper::upgrade::on(&mut agent).await, other.await) else { return };
            let _ = copy_bidirectional(&mut TokioIo::new(agent), &mut TokioIo::new(other)).await;
        });
    }
    Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}
