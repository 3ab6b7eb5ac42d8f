//! A way to a server of the tests' that can be broken: closed, silent, or for reading alone.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As if it weren't there.
    Open,
    /// Nobody listens, and connections are reset.
    Closed,
    /// Connections are taken, and no byte passes. What was on its way passes once this is over.
    Silent,
    /// Requests are for reading alone, as the server itself then says.
    ReadOnly,
}

/// An address of a server's.
pub(crate) struct Relay {
    port: u16,
    server: u16,
    mode: watch::Sender<Mode>,
    tls: Option<Arc<ServerConfig>>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) async fn start(server: u16, tls: Option<ServerConfig>) -> Self {
        let mode = watch::Sender::new(Mode::Open);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut relay = Self { port, server, mode, tls: tls.map(Arc::new), listening: None };
        relay.listen(listener);
        relay
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn set(&mut self, mode: Mode) {
        if mode == Mode::Closed {
            let listening = self.listening.take().unwrap();
            listening.abort();
            drop(listening.await);
        }
        self.mode.send_replace(mode);
        if mode != Mode::Closed && self.listening.is_none() {
            let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
            self.listen(listener);
        }
    }

    fn listen(&mut self, listener: TcpListener) {
        let (server, mode, tls) = (self.server, self.mode.clone(), self.tls.clone());
        self.listening = Some(tokio::spawn(async move {
            loop {
                let (agent, _) = listener.accept().await.unwrap();
                let (mode, tls) = (mode.subscribe(), tls.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    match tls {
                        // Who shows no certificate that is asked for gets no further.
                        Some(tls) => {
                            if let Ok(agent) = TlsAcceptor::from(tls).accept(agent).await {
                                pass_both_ways(agent, server, mode).await;
                            }
                        }
                        None => pass_both_ways(agent, server, mode).await,
                    }
                });
            }
        }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

async fn pass_both_ways<A: tokio::io::AsyncRead + tokio::io::AsyncWrite>(
    agent: A,
    server: TcpStream,
    mode: watch::Receiver<Mode>,
) {
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    let (mut from_server, mut to_server) = server.into_split();
    let mut closed = mode.clone();
    let there = async {
        let mut mode = mode.clone();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_agent.read(&mut buffer).await {
            let mode = *mode.wait_for(|mode| *mode != Mode::Silent).await.unwrap();
            let bytes = &buffer[..read];
            // A request begins where a read does: the client waits for each answer.
            let sent = match bytes.strip_prefix(b"POST /?") {
                Some(rest) if mode == Mode::ReadOnly => {
                    to_server.write_all(&[b"POST /?readonly=2&", rest].concat()).await
                }
                _ => to_server.write_all(bytes).await,
            };
            if sent.is_err() {
                break;
            }
        }
        // What was sent stays sent, also if its answer isn't waited for.
        drop(to_server.shutdown().await);
    };
    let back = async {
        let mut mode = mode.clone();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            mode.wait_for(|mode| *mode != Mode::Silent).await.unwrap();
            if to_agent.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        drop(to_agent.shutdown().await);
    };
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = closed.wait_for(|mode| *mode == Mode::Closed) => {}
    }
}
