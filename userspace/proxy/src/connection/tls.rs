//! Connections that begin with a TLS handshake.

use std::sync::Arc;

use bytes::BytesMut;
use chaperone_policy::EgressKind;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::connection::{
    accepted::{Accepted, Opening},
    hello::{self, ACCESS_DENIED},
    prefixed::Prefixed,
};

/// What devices speak to AWS IoT's broker on port 443: by a certificate of their own, or by a customer's own authorizer.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#protocol-mapping>
const MQTT_BY_CERTIFICATE: &[u8] = b"x-amzn-mqtt-ca";
const MQTT: &[u8] = b"mqtt";
const HTTP_BY_CERTIFICATE: &[u8] = b"x-amzn-http-ca";

impl Accepted {
    fn is_iots(&self, name: &str) -> bool {
        self.shared.catalog.host(name).is_some_and(|found| found.services().any(|service| service == "iot-data"))
    }

    pub(super) async fn tls(self: Arc<Self>, mut stream: TcpStream, mut start: BytesMut) -> Result<(u64, u64), String> {
        let limits = &self.shared.limits;
        start.reserve(2048);
        let hello = timeout(limits.handshake_timeout, hello::read(&mut stream, &mut start, &self.share));
        let hello = hello.await.map_err(|_| "no ClientHello came in time".to_owned())??;
        let stream = Prefixed { start: start.freeze(), stream };
        let Some(hello::Hello { name, protocol }) = hello else {
            let asked = self.asked.get().and_then(|asked| asked.name.as_deref());
            if let Some(asked) = asked.filter(|asked| self.shared.catalog.host(asked).is_some()) {
                return Err(format!("the proxy was asked for `{asked}`, and the ClientHello has no server name"));
            }
            return Box::pin(self.pass_on(None, EgressKind::Tls, stream)).await;
        };
        if let Some(asked) = self.asked.get().and_then(|asked| asked.name.as_ref()).filter(|asked| **asked != name) {
            return Err(format!("the proxy was asked for `{asked}`, and the ClientHello is for `{name}`"));
        }
        if self.shared.catalog.host(&name).is_none() && !self.shared.generation().is_inspected(&name) {
            return Box::pin(self.pass_on(Some(&name), EgressKind::Tls, stream)).await;
        }
        if let Some(protocol) = protocol.filter(|_| self.is_iots(&name)) {
            match protocol.as_slice() {
                MQTT | MQTT_BY_CERTIFICATE => {
                    return Box::pin(self.pass_on(Some(&name), EgressKind::Mqtt, stream)).await;
                }
                HTTP_BY_CERTIFICATE => {
                    let why = format!(
                        "{name} is called by a device's own certificate, which nobody between could show: sign these calls"
                    );
                    self.open(Opening::refused(Some(&name), why.clone())).await?;
                    let mut stream = stream;
                    hello::alert(&mut stream, ACCESS_DENIED).await;
                    return Err(why);
                }
                _ => {}
            }
        }
        self.check_reach(&name).await?;
        Box::pin(self.open(Opening::inspected(&name, self.target()))).await?;
        let acceptor = TlsAcceptor::from(self.shared.tls.clone());
        let handshake = async {
            let _turn = self.share.handshake().await;
            acceptor.accept(stream).await
        };
        let tls = timeout(limits.handshake_timeout, Box::pin(handshake))
            .await
            .map_err(|_| format!("the TLS handshake for {name} took too long"))?
            .map_err(|error| format!("the TLS handshake for {name} failed: {error}; does the agent trust the CA?"))?;
        let connection = tls.get_ref().1;
        if connection.server_name().is_none_or(|seen| !seen.eq_ignore_ascii_case(&name)) {
            return Err(format!("the ClientHello was read in two ways: `{name}` and {:?}", connection.server_name()));
        }
        if connection.alpn_protocol() == Some(b"h2") {
            Box::pin(self.serve_http2(&name, tls)).await
        } else {
            Box::pin(self.serve_http1(Some(&name), tls)).await
        }
    }
}
