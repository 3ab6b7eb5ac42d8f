//! Logins at a provider on loopback that answers as the test says; `tests/system/tests/oidc_provider.rs` has a real one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chaperone_oidc::{Issuer, Login, LoginError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What the token endpoint was asked, and when.
type Asked = Arc<Mutex<Vec<(Instant, String)>>>;

struct Provider {
    issuer: String,
    key: EcdsaKeyPair,
    device: Arc<Mutex<Value>>,
    /// What the token endpoint answers, one after the other; the last one again and again.
    tokens: Arc<Mutex<VecDeque<(u16, Value)>>>,
    asked: Asked,
}

async fn body_of(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.ok().filter(|length| *length > 0)?;
        read.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let wanted = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= wanted.unwrap_or(0) {
            return Some((head.lines().next()?.to_owned(), body.to_owned()));
        }
    }
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..])});
        let device = json!({"device_code": "dc", "user_code": "WDJB-MJHT", "verification_uri": format!("{issuer}/device"),
            "expires_in": 60, "interval": 1});
        let provider = Self {
            issuer: issuer.clone(),
            key,
            device: Arc::new(Mutex::new(device)),
            tokens: Arc::default(),
            asked: Arc::default(),
        };
        let (device, tokens, asked) = (provider.device.clone(), provider.tokens.clone(), provider.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some((line, body)) = body_of(&mut stream).await else { continue };
                let (status, answer) = match line.split(' ').nth(1).unwrap() {
                    "/jwks" => (200, json!({"keys": [jwk]})),
                    "/device_authorization" => (200, device.lock().clone()),
                    "/token" => {
                        asked.lock().push((Instant::now(), body));
                        let mut tokens = tokens.lock();
                        if tokens.len() > 1 { tokens.pop_front().unwrap() } else { tokens[0].clone() }
                    }
                    _ => (
                        200,
                        json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                        "token_endpoint": format!("{issuer}/token"),
                        "authorization_endpoint": format!("{issuer}/authorize"),
                        "device_authorization_endpoint": format!("{issuer}/device_authorization")}),
                    ),
                };
                let text = answer.to_string();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        provider
    }

    fn issuer(&self) -> Issuer {
        serde_json::from_value(json!({"name": "op", "issuer": self.issuer, "audiences": ["cli"], "client_id": "cli",
            "scopes": ["offline_access"], "insecure_loopback": true}))
        .unwrap()
    }

    fn login(&self) -> Login {
        Login::new(self.issuer()).unwrap()
    }

    fn token(&self, more: &Value) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({"iss": self.issuer, "aud": "cli", "sub": "alice", "iat": now, "exp": now + 600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = format!("{}.{}", b64(json!({"alg": "ES256", "kid": "k"}).to_string()), b64(claims.to_string()));
        format!("{text}.{}", b64(self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap()))
    }

    fn gives(&self, more: &Value) -> (u16, Value) {
        let answer =
            json!({"access_token": "a", "token_type": "Bearer", "refresh_token": "r", "id_token": self.token(more)});
        (200, answer)
    }

    fn answers(&self, all: impl IntoIterator<Item = (u16, Value)>) {
        *self.tokens.lock() = all.into_iter().collect();
    }
}

fn no(error: &str) -> (u16, Value) {
    (400, json!({"error": error}))
}

#[tokio::test]
async fn the_provider_is_asked_as_often_as_it_allows_and_no_more() {
    let provider = Provider::start().await;
    provider.answers([no("authorization_pending"), no("slow_down"), provider.gives(&json!({}))]);
    let login = provider.login();
    let begun = login.device().await.unwrap();
    assert_eq!((begun.url(), begun.code()), (&*format!("{}/device", provider.issuer), "WDJB-MJHT".to_owned()));
    let who = begun.finish().await.unwrap();
    assert!(who.is_renewable() && who.verified.identity.subject == "alice");
    let asked = provider.asked.lock().clone();
    assert_eq!(asked.len(), 3);
    // Its interval; and after it has said so, five seconds more (RFC 8628, 3.5).
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1), "{asked:?}");
    assert!(asked[2].0 - asked[1].0 >= Duration::from_secs(6), "{asked:?}");
    assert!(
        asked.iter().all(|(_, body)| body.contains("device_code=dc") && body.contains("client_id=cli")),
        "{asked:?}"
    );

    // A fresh token, by the refresh token, which is given anew or kept.
    provider.answers([provider.gives(&json!({"exp": OffsetDateTime::now_utc().unix_timestamp() + 900}))]);
    let fresh = login.renew(&who).await.unwrap();
    assert!(fresh.verified.supersedes(&who.verified));
    assert!(provider.asked.lock().last().unwrap().1.contains("refresh_token=r"));
    provider.answers([no("invalid_grant")]);
    let error = login.renew(&fresh).await.unwrap_err();
    assert!(!error.is_passing() && error.to_string().contains("invalid_grant"), "{error}");
    provider.answers([(503, json!({}))]);
    assert!(login.renew(&fresh).await.unwrap_err().is_passing());
    provider.answers([(200, json!({"access_token": "a", "token_type": "Bearer"}))]);
    let error = login.renew(&fresh).await.unwrap_err().to_string();
    assert!(error.contains("has no ID token"), "{error}");
}

#[tokio::test]
async fn codes_end_are_refused_or_are_nonsense() {
    let provider = Provider::start().await;
    let login = provider.login();
    let finish = async || login.device().await.unwrap().finish().await.unwrap_err();
    provider.answers([no("access_denied")]);
    assert!(matches!(finish().await, LoginError::Denied(_)));
    provider.answers([no("expired_token")]);
    assert!(matches!(finish().await, LoginError::TooLate(_)));
    provider.answers([no("authorization_pending")]);
    provider.device.lock()["expires_in"] = 2.into();
    assert!(matches!(finish().await, LoginError::TooLate(_)));
    provider.device.lock()["expires_in"] = 600.into();
    // Whoever may ask at any time isn't asked without a pause; and the code is shown, whatever is in it.
    provider.device.lock()["interval"] = 0.into();
    provider.device.lock()["user_code"] = "A\u{1b}[2JB\n".into();
    provider.answers([no("authorization_pending"), no("unauthorized_client")]);
    let begun = login.device().await.unwrap();
    assert_eq!(begun.code(), "A[2JB");
    let before = provider.asked.lock().len();
    let error = begun.finish().await.unwrap_err();
    assert!(matches!(&error, LoginError::Refused { why, .. } if why.contains("unauthorized_client")), "{error}");
    let asked = provider.asked.lock()[before..].to_vec();
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1), "{asked:?}");
    // Tokens for others, or of others, are not believed.
    for (claims, said) in [
        (json!({"aud": "other"}), "made for `other`"),
        (json!({"aud": ["cli", "other"]}), "`azp` is missing"),
        (json!({"azp": "other"}), "`azp` is not this client"),
        (json!({"iss": "https://other.example"}), "no configured issuer"),
    ] {
        provider.answers([provider.gives(&claims)]);
        let error = finish().await.to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    // People aren't sent anywhere.
    for at in ["javascript:alert(1)", "http://evil.example/", "https://a@evil.example/", ""] {
        provider.device.lock()["verification_uri"] = at.into();
        assert!(login.device().await.is_err(), "{at}");
    }
}

#[tokio::test]
async fn a_browser_comes_back_with_what_it_was_sent_away_with() {
    let provider = Provider::start().await;
    let login = provider.login();
    let query = |url: &str, name: &str| {
        let all = url.split_once('?').unwrap().1.split('&');
        all.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let come_back = async |url: &str, with: &str| {
        let redirect = query(url, "redirect_uri").unwrap().replace("%3A", ":").replace("%2F", "/");
        let (at, path) = redirect.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(format!("GET /{path}?{with} HTTP/1.1\r\nhost: {at}\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let begun = login.browser().await.unwrap();
    let url = begun.url().to_owned();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "cli"),
        ("scope", "openid+offline_access"),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ] {
        assert_eq!(query(&url, name).as_deref(), Some(value), "{url}");
    }
    let (state, nonce) = (query(&url, "state").unwrap(), query(&url, "nonce").unwrap());
    provider.answers([provider.gives(&json!({"nonce": nonce}))]);
    let browser = async {
        assert!(come_back(&url, "code=c&state=another").await.contains("400 Bad Request"));
        come_back(&url, &format!("code=c1&state={state}")).await
    };
    let (who, page) = tokio::join!(begun.finish(), browser);
    assert!(page.contains("goes on in the terminal"), "{page}");
    assert_eq!(who.unwrap().verified.identity.subject, "alice");
    let asked = provider.asked.lock().last().unwrap().1.clone();
    assert!(asked.contains("code=c1") && asked.contains("code_verifier="), "{asked}");
    // Somebody else's token, which came by another login.
    for (claims, said) in
        [(json!({"nonce": "other"}), "not the one of this sign-in"), (json!({}), "not the one of this")]
    {
        let begun = login.browser().await.unwrap();
        let url = begun.url().to_owned();
        provider.answers([provider.gives(&claims)]);
        let with = format!("code=c&state={}", query(&url, "state").unwrap());
        let (who, _) = tokio::join!(begun.finish(), come_back(&url, &with));
        let error = who.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let begun = login.browser().await.unwrap();
    let url = begun.url().to_owned();
    let with = format!("error=access_denied&state={}", query(&url, "state").unwrap());
    let (who, _) = tokio::join!(begun.finish(), come_back(&url, &with));
    assert!(matches!(who.unwrap_err(), LoginError::Denied(_)));
}

#[test]
fn logins_need_a_client_whose_tokens_are_believed() {
    let check = |more: Value| {
        let mut issuer = json!({"name": "op", "issuer": "https://op.example", "audiences": ["cli"]});
        issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<Issuer>(issuer).unwrap().check()
    };
    check(json!({"client_id": "cli", "scopes": ["offline_access"]})).unwrap();
    for (more, said) in [
        (json!({"client_id": "other"}), "audiences: add \"other\""),
        (json!({"client_id": ""}), "client_id: what the provider calls"),
        (json!({"scopes": ["email"]}), "`client_id` must be there"),
        (json!({"client_id": "cli", "scopes": ["a b"]}), "each is one word"),
        (json!({"client_id": "cli", "scopes": [""]}), "each is one word"),
    ] {
        let error = check(more).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let issuer = json!({"name": "op", "issuer": "https://op.example", "audiences": ["cli"]});
    assert!(Login::new(serde_json::from_value(issuer).unwrap()).unwrap_err().contains("has no `client_id`"));
}
