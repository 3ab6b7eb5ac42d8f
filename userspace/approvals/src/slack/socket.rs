//! Socket Mode: Slack's side sends what users press over a WebSocket that this side opens, so that the daemon needn't be
//! reachable. <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use http::Uri;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::{Slack, interaction::Interaction};
use crate::{Backend, config::is_allowed_loopback};

/// For connecting.
const PATIENCE: Duration = Duration::from_secs(10);
/// Slack pings more often than this.
const SILENCE: Duration = Duration::from_secs(90);
/// The largest message.
const MOST_MESSAGE: usize = 1 << 20;
/// Between two attempts, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Listens until it is dropped.
pub(super) async fn listen(slack: Arc<Slack>, backend: Arc<dyn Backend>) {
    let Some(token) = slack.app_token.clone() else { return };
    let mut pause = PAUSES.0;
    loop {
        let began = Instant::now();
        let ended = session(&slack, &backend, &token, &mut pause).await;
        *slack.trouble.lock() = ended.as_ref().err().cloned();
        match &ended {
            Ok(()) if began.elapsed() > pause => tracing::debug!("Slack wants the connection to be opened anew"),
            // However often it wants that.
            Ok(()) => sleep(pause).await,
            Err(why) => {
                tracing::warn!(why, "no connection to Slack: buttons there do nothing until there is one");
                let [random, ..] = crate::sessions::random();
                sleep(pause + pause * u32::from(random) / 1024).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

async fn session(
    slack: &Arc<Slack>,
    backend: &Arc<dyn Backend>,
    token: &str,
    pause: &mut Duration,
) -> Result<(), String> {
    let opened = slack.call("apps.connections.open", token, &json!({})).await.map_err(|failure| failure.why)?;
    let url = opened["url"].as_str().ok_or("apps.connections.open: there is no url")?;
    let uri: Uri = url.parse().map_err(|_| "apps.connections.open: the url is none")?;
    let host = uri.host().ok_or("apps.connections.open: the url has no host")?.to_owned();
    let port = uri.port_u16();
    let dial = |port: u16| TcpStream::connect((host.trim_matches(['[', ']']).to_owned(), port));
    let patience = |_| format!("connecting to {host}: no answer within {} seconds", PATIENCE.as_secs());
    let failed = |error: std::io::Error| format!("connecting to {host}: {error}");
    match uri.scheme_str() {
        Some("wss") => {
            let stream = timeout(PATIENCE, dial(port.unwrap_or(443))).await.map_err(patience)?.map_err(failed)?;
            let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
            let connector = TlsConnector::from(slack.fetch.tls());
            let stream = timeout(PATIENCE, connector.connect(name, stream)).await.map_err(patience)?.map_err(failed)?;
            converse(slack, backend, url, stream, pause).await
        }
        Some("ws") if is_allowed_loopback(&host, slack.section.insecure_loopback) => {
            let stream = timeout(PATIENCE, dial(port.unwrap_or(80))).await.map_err(patience)?.map_err(failed)?;
            converse(slack, backend, url, stream, pause).await
        }
        _ => Err("apps.connections.open: the url is not wss".to_owned()),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    slack: &Arc<Slack>,
    backend: &Arc<dyn Backend>,
    url: &str,
    stream: S,
    pause: &mut Duration,
) -> Result<(), String> {
    let bounds = WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let opened = timeout(PATIENCE, client_async_with_config(url, stream, Some(bounds))).await;
    // The URL has a ticket in it, which isn't told.
    let (mut socket, _): (WebSocketStream<S>, _) =
        opened.map_err(|_| "the handshake took too long")?.map_err(|error| format!("the handshake: {error}"))?;
    loop {
        let next = timeout(SILENCE, socket.next()).await;
        let next = next.map_err(|_| format!("nothing was heard for {} seconds", SILENCE.as_secs()))?;
        let text = match next.ok_or("the connection ended")?.map_err(|error| error.to_string())? {
            Message::Text(text) => text,
            Message::Close(_) => return Ok(()),
            // Pings are answered by themselves.
            _ => continue,
        };
        let Ok(said) = serde_json::from_str::<Value>(&text) else { continue };
        match said["type"].as_str() {
            Some("hello") => {
                *pause = PAUSES.0;
                *slack.trouble.lock() = None;
                tracing::info!("connected to Slack");
            }
            Some("disconnect") => return Ok(()),
            _ => {}
        }
        let Some(envelope) = said["envelope_id"].as_str() else { continue };
        let heard = Message::text(json!({ "envelope_id": envelope }).to_string());
        timeout(PATIENCE, socket.send(heard))
            .await
            .map_err(|_| "nothing is taken")?
            .map_err(|error| error.to_string())?;
        // What wasn't heard to be heard comes again.
        if said["type"] == "interactive"
            && slack.seen.lock().is_new(&format!("envelope {envelope}"))
            && let Some(interaction) = Interaction::of_payload(&said["payload"])
        {
            tokio::spawn(slack.clone().act(backend.clone(), interaction));
        }
    }
}
