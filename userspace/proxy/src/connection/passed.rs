//! Connections that are passed on byte for byte: not AWS.

use std::sync::Arc;

use chaperone_model::ConnectionKind;

use crate::connection::{accepted::Accepted, prefixed::Prefixed, tunnel};

impl Accepted {
    pub(super) async fn pass_on(self: Arc<Self>, name: &str, mut stream: Prefixed) -> Result<(u64, u64), String> {
        if let Some(stop) = self.shared.stops.of(&self.session.session) {
            let why = format!("{} is stopped", stop.of);
            self.open(Some(name), None, ConnectionKind::Refused, Some(why.clone())).await?;
            return Err(why);
        }
        let from = if self.at_home { None } else { Some(&stream.stream) };
        let after = self.shared.limits.connect_timeout;
        let mut upstream = match tunnel::connect(name, self.destination, from, &self.share, after).await {
            Ok(upstream) => upstream,
            Err(error) => {
                self.open(Some(name), None, ConnectionKind::Refused, Some(error.to_string())).await?;
                return Err(error.to_string());
            }
        };
        self.shared.metrics.passed.inc();
        self.open(Some(name), upstream.peer_addr().ok(), ConnectionKind::Passed, None).await?;
        let copied = tokio::select! {
            // A tunnel has no end of its own to wait for.
            () = self.shared.stop.cancelled() => return Err("the daemon stopped".to_owned()),
            copied = tunnel::copy(&mut stream, &mut upstream) => copied,
        };
        copied.map_err(|error| error.to_string())
    }
}
