//! `chaperone-fakes`: what answers as AWS inside a lab's network namespace, and as its DNS.
//!
//! It owns TLS under a CA of its own, and the record of what it was sent (`upstream.jsonl`). It never alters what a
//! back end answers: S3 is s3s-fs, which verifies signatures, everything else is moto, but for what moto has not: event
//! streams to AWS, whose signatures are checked by the SDK's signer, and ECR's registries. For tests and demonstrations.
#![forbid(unsafe_code)]

mod backend;
mod ca;
mod chunked;
mod dns;
mod events;
mod hosts;
mod models;
mod moto;
mod record;
mod server;
mod verify;
mod websocket;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;

/// Answers as AWS and as the DNS.
#[derive(Debug, Parser)]
struct Options {
    /// The lab's folder: `ca.crt`, `ca.key` and `upstream.jsonl` are in it, and `s3/` with the objects.
    #[arg(long)]
    dir: PathBuf,
    /// What answers as AWS.
    #[arg(long, value_enum, default_value = "moto")]
    aws: Aws,
    /// The address of every name.
    #[arg(long, default_value = "127.77.0.1")]
    address: Ipv4Addr,
    /// Where DNS is served.
    #[arg(long, default_value = "127.0.0.53:53")]
    dns: SocketAddr,
    /// The program `moto_server`.
    #[arg(long)]
    moto_server: Option<PathBuf>,
    /// A file with the one access key that s3s-fs knows: the id and the secret, in two lines.
    #[arg(long)]
    key: PathBuf,
}

/// What answers as AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Aws {
    /// S3 by s3s-fs, the rest by moto.
    Both,
    /// Everything by moto.
    Moto,
    /// Nothing: there is the DNS alone.
    None,
    /// S3 by s3s-fs, nothing else.
    S3,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("warn,s3s=off").with_writer(std::io::stderr).init();
    let options = Options::parse();
    dns::serve(options.dns, options.address).await?;
    let authority = ca::Authority::open_or_create(&options.dir)?;
    if options.aws != Aws::None {
        let moto = match options.aws {
            Aws::Both | Aws::Moto => {
                let program = options.moto_server.as_deref().context("--moto-server is needed for moto")?;
                Some(moto::start(program, &options.dir.join("moto.log")).await?)
            }
            Aws::None | Aws::S3 => None,
        };
        let s3 = match options.aws {
            Aws::Both | Aws::S3 => Some(backend::s3(&options.dir.join("s3"), &options.key)?),
            Aws::Moto | Aws::None => None,
        };
        let upstream = record::Upstream::open(&options.dir.join("upstream.jsonl"))?;
        let server = Arc::new(server::Server { upstream, s3, moto, events: events::Events::new(&options.key)? });
        let tls = TcpListener::bind((options.address, 443)).await.context("listening on port 443")?;
        let plain = TcpListener::bind((options.address, 80)).await.context("listening on port 80")?;
        tokio::spawn(server::serve_plain(plain, server.clone()));
        // Where AWS has WebSockets.
        let other = TcpListener::bind((options.address, 8443)).await.context("listening on port 8443")?;
        tokio::spawn(server::serve_tls(other, authority.server_config()?, server.clone()));
        tokio::spawn(server::serve_tls(tls, authority.server_config()?, server));
    }
    let mut out = std::io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush()).context("telling that it is ready")?;
    // Ends when the lab does: by a signal.
    std::future::pending().await
}
