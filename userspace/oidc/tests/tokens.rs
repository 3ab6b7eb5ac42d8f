//! Tokens of a provider on loopback: each thing that can be wrong with one has its message.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, missing_docs)] // `json!` reads better by value

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chaperone_oidc::{Issuer, TokenError, Verified, Verifier};
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let bytes = |it: &[u8]| b64(it);
                json!({"kty": "RSA", "use": "sig", "kid": kid, "alg": "RS256",
                    "n": bytes(n.big_endian_without_leading_zero()), "e": bytes(e.big_endian_without_leading_zero())})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..])})
            }
        }
    }

    fn signature(&self, text: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "kid": kid, "typ": "JWT"}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        format!("{text}.{}", b64(self.signature(&text)))
    }
}

/// A provider, which says what it is told to.
struct Provider {
    issuer: String,
    keys: Arc<Mutex<Vec<Value>>>,
    document: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks")});
        let provider = Self {
            issuer,
            keys: Arc::new(Mutex::new(keys)),
            document: Arc::new(Mutex::new(Some(document))),
            asked: Arc::default(),
        };
        let (keys, document, asked) = (provider.keys.clone(), provider.document.clone(), provider.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(byte[0]);
                }
                asked.fetch_add(1, Ordering::Relaxed);
                let body = match (head.starts_with(b"GET /jwks "), &*document.lock()) {
                    (_, None) => None,
                    (true, _) => Some(json!({"keys": *keys.lock()})),
                    (false, Some(document)) => Some(document.clone()),
                };
                let answer = body.map_or_else(
                    || "HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                    |body| {
                        let body = body.to_string();
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
                    },
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        provider
    }

    fn issuer(&self, more: Value) -> Issuer {
        let mut issuer = json!({
            "name": "test", "issuer": self.issuer, "audiences": ["chaperone"], "insecure_loopback": true
        });
        issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(issuer).unwrap()
    }

    fn verifier(&self, more: Value) -> Verifier {
        Verifier::new(vec![self.issuer(more)]).unwrap()
    }

    fn claims(&self, more: Value) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({
            "iss": self.issuer, "aud": "chaperone", "sub": "bot", "iat": now, "nbf": now, "exp": now + 600, "jti": "t-1"
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    }
}

/// Between two questions to a provider, as it is documented.
const PAUSE: Duration = Duration::from_secs(5);

/// Lets so much time pass on the clock that says how old keys are.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn verify(verifier: &Verifier, token: &str) -> Result<Verified, TokenError> {
    verifier.verify(token, "coder").await
}

#[tokio::test]
async fn a_good_token_says_who_it_is() {
    let key = Key::rsa();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let verifier = provider.verifier(json!({
        "groups": "/realm/roles", "sponsor": "email", "display_name": "name", "claims": {"team": "/realm/team"}
    }));
    let claims = provider.claims(json!({
        "aud": ["other", "chaperone"], "email": "alice@example.com", "realm": {"roles": ["b", "a", "b"], "team": "red"}
    }));
    let verified = verify(&verifier, &format!("{}\n", key.token("k1", &claims))).await.unwrap();
    let identity = &verified.identity;
    assert_eq!((identity.subject.as_str(), identity.sponsor.as_deref()), ("bot", Some("alice@example.com")));
    assert_eq!(identity.groups, ["test:a", "test:b"]);
    assert_eq!((identity.token_id.as_str(), identity.claims["team"].as_str()), ("t-1", "red"));
    assert!(!verified.is_over());
    // The keys are asked for once.
    verify(&verifier, &key.token("k1", &claims)).await.unwrap();
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2, "the document, and the keys");
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_claims_has_its_message() {
    let key = Key::ec();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let verifier = provider.verifier(json!({
        "sponsor": "email", "groups": "groups", "require": {"repository_owner": "octo", "sub": "bo*"}
    }));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let good = json!({"email": "a", "groups": [], "repository_owner": "octo"});
    let token = |change: Value| {
        let mut claims = provider.claims(good.clone());
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        key.token("k1", &claims)
    };
    verify(&verifier, &token(json!({}))).await.unwrap();
    // Within the skew.
    for change in [json!({"exp": now - 10}), json!({"nbf": now + 10}), json!({"iat": now + 10})] {
        verify(&verifier, &token(change)).await.unwrap();
    }
    for (change, said) in [
        (json!({"aud": "other"}), "made for `other`, and not for `chaperone`"),
        (json!({"aud": ["a", "b"]}), "made for `a` or `b`"),
        (json!({"aud": null}), "made for nobody"),
        (json!({"aud": {"chaperone": true}}), "made for nobody"),
        (json!({"exp": now - 60}), "the token ended at"),
        (json!({"exp": null}), "`exp` is missing"),
        (json!({"exp": "tomorrow"}), "`exp` is not a time"),
        (json!({"exp": 1e300}), "`exp` is not a time"),
        (json!({"exp": -1}), "`exp` is not a time"),
        (json!({"nbf": now + 60}), "yet to come"),
        (json!({"iat": now + 60}), "yet to come"),
        (json!({"nbf": []}), "`nbf` is not a time"),
        (json!({"iss": "https://other.example"}), "no configured issuer is `https://other.example`"),
        (json!({"iss": format!("{}/", provider.issuer)}), "no configured issuer"),
        (json!({"iss": null}), "no configured issuer"),
        (json!({"sub": null}), "`sub` is missing"),
        (json!({"sub": "eve"}), "requires `bo*`"),
        (json!({"sub": ""}), "`sub` has 0 bytes"),
        (json!({"sub": "bo\u{0}t"}), "control characters"),
        (json!({"sub": "bo".repeat(300)}), "`sub` has 600 bytes"),
        (json!({"email": null}), "`email` is missing"),
        (json!({"email": ["a"]}), "`email` is not a text"),
        (json!({"groups": null}), "`groups` is missing"),
        (json!({"groups": [["a"]]}), "not a text"),
        (json!({"groups": {"a": 1}}), "neither a text nor a list"),
        (json!({"groups": vec!["g"; 300]}), "300 groups"),
        (json!({"repository_owner": "octo2"}), "`repository_owner` is `octo2`"),
        (json!({"repository_owner": null}), "`repository_owner` is missing"),
        (json!({"jti": 7}), "`jti`"),
    ] {
        let error = verify(&verifier, &token(change.clone())).await.expect_err(&change.to_string()).to_string();
        assert!(error.contains(said), "{change}: {error}");
    }
}

#[tokio::test]
async fn algorithms_are_those_configured_and_never_symmetric() {
    let (rsa, ec) = (Key::rsa(), Key::ec());
    let provider = Provider::start(vec![rsa.jwk("k1"), ec.jwk("k2")]).await;
    let verifier = provider.verifier(json!({"algorithms": ["RS256"]}));
    let claims = provider.claims(json!({}));
    verify(&verifier, &rsa.token("k1", &claims)).await.unwrap();
    // Unsigned, in the spellings that there are.
    for name in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS1", "ES256K", "rs256"] {
        let head = b64(json!({"alg": name, "kid": "k1"}).to_string());
        let text = format!("{head}.{}", b64(claims.to_string()));
        // By the public key as the shared secret: as it is published, and its parts.
        let jwk = rsa.jwk("k1");
        let mut forged = vec![format!("{text}.")];
        for secret in [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            forged.push(format!("{text}.{}", b64(hmac::sign(&secret, text.as_bytes()))));
        }
        for token in forged {
            let error = verify(&verifier, &token).await.unwrap_err();
            assert!(matches!(error, TokenError::Algorithm { .. }), "{name}: {error}");
        }
    }
    let error = verify(&verifier, &ec.token("k2", &claims)).await.unwrap_err().to_string();
    assert!(error.contains("`ES256`") && error.contains("RS256 alone"), "{error}");
    // One key's kind under the other's algorithm.
    let both = provider.verifier(json!({"algorithms": ["RS256", "ES256", "PS256", "EdDSA"]}));
    for (key, kid, algorithm) in
        [(&rsa, "k1", "ES256"), (&ec, "k2", "RS256"), (&rsa, "k1", "PS256"), (&ec, "k2", "EdDSA")]
    {
        let token = key.token_with(&json!({"alg": algorithm, "kid": kid}), &claims);
        assert!(verify(&both, &token).await.is_err(), "{algorithm}");
    }
    // A secret that is published as a key is none.
    provider.keys.lock().push(json!({"kty": "oct", "kid": "k3", "k": b64("secret"), "alg": "HS256"}));
    let fresh = provider.verifier(json!({}));
    let text = format!("{}.{}", b64(json!({"alg": "RS256", "kid": "k3"}).to_string()), b64(claims.to_string()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let forged = format!("{text}.{}", b64(hmac::sign(&secret, text.as_bytes())));
    assert!(matches!(verify(&fresh, &forged).await.unwrap_err(), TokenError::Key { .. }));
}

#[tokio::test]
async fn malformed_tokens_are_refused_before_anybody_is_asked() {
    let key = Key::rsa();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let verifier = provider.verifier(json!({}));
    let good = key.token("k1", &provider.claims(json!({})));
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c.d.e".into(),
        format!("{head}.{claims}"),
        format!("{head}.{claims}.{signature}.x"),
        format!("{head}=.{claims}.{signature}"),
        format!("{head}.{}.{signature}", b64("[]")),
        format!("{}.{claims}.{signature}", b64("{}")),
        format!("{}.{claims}.{signature}", b64(r#"{"alg":"RS256","kid":7}"#)),
        format!("{}.{claims}.{signature}", b64(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#)),
        format!("{head}.{}.{signature}", b64("{".repeat(1000))),
        "x".repeat(1 << 20),
        b64("{\"a\":".repeat(2000)) + "." + claims + ".x",
    ] {
        let error = verify(&verifier, &token).await.expect_err(&token);
        assert!(matches!(error, TokenError::Malformed(_) | TokenError::TooLong { .. }), "{error}");
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 0);
    // Keys that a token brings along are not its issuer's.
    let other = Key::rsa();
    let header = json!({"alg": "RS256", "kid": "k1", "jwk": other.jwk("k1"), "jku": "http://127.0.0.1:9/", "x5c": []});
    let error = verify(&verifier, &other.token_with(&header, &provider.claims(json!({})))).await.unwrap_err();
    assert_eq!(error, TokenError::Signature("test".into()));
    let swapped = format!("{head}.{}.{signature}", b64(provider.claims(json!({"sub": "root"})).to_string()));
    assert_eq!(verify(&verifier, &swapped).await.unwrap_err(), TokenError::Signature("test".into()));
}

#[tokio::test]
async fn keys_rotate_and_are_kept_while_the_provider_is_away() {
    let (old, new) = (Key::rsa(), Key::rsa());
    let provider = Provider::start(vec![old.jwk("old")]).await;
    let verifier = provider.verifier(json!({}));
    let claims = provider.claims(json!({}));
    verify(&verifier, &old.token("old", &claims)).await.unwrap();
    let document = provider.document.lock().take();
    verify(&verifier, &old.token("old", &claims)).await.expect("what is known stays");
    // Asked a moment ago: not again, whatever ids come.
    let before = provider.asked.load(Ordering::Relaxed);
    for kid in 0..50 {
        let error = verify(&verifier, &new.token(&kid.to_string(), &claims)).await.unwrap_err();
        assert!(matches!(error, TokenError::Key { .. }), "{error}");
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), before);
    *provider.document.lock() = document;
    *provider.keys.lock() = vec![new.jwk("new")];
    let token = new.token("new", &claims);
    let error = verify(&verifier, &token).await.unwrap_err();
    assert!(matches!(error, TokenError::Key { .. }), "asked a moment ago: {error}");
    pass(PAUSE).await;
    verify(&verifier, &token).await.expect("asked again, for a key that isn't known");
    let error = verify(&verifier, &old.token("old", &claims)).await.unwrap_err();
    assert!(matches!(error, TokenError::Key { .. }), "a key that was taken back: {error}");
}

#[tokio::test]
async fn keys_are_asked_for_each_hour_and_kept_for_a_day_while_the_provider_is_away() {
    let (old, new) = (Key::rsa(), Key::rsa());
    let provider = Provider::start(vec![old.jwk("old"), new.jwk("new")]).await;
    let verifier = provider.verifier(json!({}));
    let claims = provider.claims(json!({}));
    let (old_token, new_token) = (old.token("old", &claims), new.token("new", &claims));
    verify(&verifier, &old_token).await.unwrap();
    // A key that the provider took back is believed for no longer than an hour.
    *provider.keys.lock() = vec![new.jwk("new")];
    pass(Duration::from_mins(59)).await;
    verify(&verifier, &old_token).await.unwrap();
    pass(Duration::from_mins(1)).await;
    assert!(matches!(verify(&verifier, &old_token).await.unwrap_err(), TokenError::Key { .. }));
    // Away in the middle of the night: what is known goes on, and ends after a day.
    let document = provider.document.lock().take();
    for _ in 0..23 {
        pass(Duration::from_hours(1)).await;
        verify(&verifier, &new_token).await.unwrap();
    }
    pass(Duration::from_hours(1)).await;
    let error = verify(&verifier, &new_token).await.unwrap_err().to_string();
    assert!(error.contains("keys of the issuer `test` are not known") && error.contains("503"), "{error}");
    *provider.document.lock() = document;
    pass(PAUSE).await;
    verify(&verifier, &new_token).await.expect("it is back");
}

#[tokio::test]
async fn the_later_of_two_tokens_is_known() {
    let key = Key::ec();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let verifier = provider.verifier(json!({"groups": "groups"}));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let token = async |issued: i64, ends: i64, groups: &[&str]| {
        let claims = provider.claims(json!({"iat": now + issued, "exp": now + ends, "groups": groups}));
        verify(&verifier, &key.token("k1", &claims)).await.unwrap()
    };
    let first = token(-10, 600, &["a", "b"]).await;
    assert!(!first.supersedes(&first.clone()), "the same");
    assert!(token(-5, 600, &["a"]).await.supersedes(&first), "with another group and the same end");
    assert!(token(-10, 600, &["a"]).await.supersedes(&first), "made in the same second");
    assert!(token(-5, 300, &["a"]).await.supersedes(&first), "it ends sooner, and is what the provider says now");
    assert!(!token(-20, 600, &["c"]).await.supersedes(&first), "an older one");
    assert!(!token(-20, 900, &["c"]).await.supersedes(&first), "an older one that is good for longer");
    // Without a word on when they were made, their ends tell.
    let without = async |ends: i64, groups: &[&str]| {
        let mut claims = provider.claims(json!({"exp": now + ends, "groups": groups}));
        claims.as_object_mut().unwrap().remove("iat");
        verify(&verifier, &key.token("k1", &claims)).await.unwrap()
    };
    let first = without(600, &["a"]).await;
    assert!(without(600, &["b"]).await.supersedes(&first) && without(601, &["a"]).await.supersedes(&first));
    assert!(!without(599, &["b"]).await.supersedes(&first));
}

#[tokio::test]
async fn ids_that_collide_are_all_tried_and_a_token_without_one_too() {
    let (one, two, other) = (Key::rsa(), Key::rsa(), Key::rsa());
    let provider = Provider::start(vec![one.jwk("k"), two.jwk("k"), json!({"kty": "new"}), json!(7)]).await;
    let verifier = provider.verifier(json!({}));
    let claims = provider.claims(json!({}));
    for key in [&one, &two] {
        verify(&verifier, &key.token("k", &claims)).await.unwrap();
        verify(&verifier, &key.token_with(&json!({"alg": "RS256"}), &claims)).await.unwrap();
    }
    assert_eq!(verify(&verifier, &other.token("k", &claims)).await.unwrap_err(), TokenError::Signature("test".into()));
}

#[tokio::test]
async fn a_provider_that_is_another_or_away_is_named() {
    let key = Key::rsa();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let token = key.token("k1", &provider.claims(json!({})));
    for (document, said) in [
        (
            Some(json!({"issuer": "https://evil.example", "jwks_uri": "https://evil.example/jwks"})),
            "is the document of the issuer `https://evil.example`",
        ),
        (Some(json!({"issuer": provider.issuer, "jwks_uri": "https://evil.example/jwks"})), "on another host"),
        (Some(json!({"issuer": provider.issuer, "jwks_uri": "http://10.0.0.1/jwks"})), "must be https"),
        (Some(json!({"issuer": provider.issuer})), "names no `jwks_uri`"),
        (None, "503"),
    ] {
        *provider.document.lock() = document;
        let error = verify(&provider.verifier(json!({})), &token).await.unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let gone = Verifier::new(vec![provider.issuer(json!({"jwks_uri": "http://127.0.0.1:1/jwks"}))]).unwrap();
    let error = verify(&gone, &token).await.unwrap_err().to_string();
    assert!(error.contains("keys of the issuer `test` are not known: asking http://127.0.0.1:1/jwks"), "{error}");
    // Keys from a file need no provider.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": [key.jwk("k1")]}).to_string()).unwrap();
    verify(&provider.verifier(json!({"jwks_file": file.path()})), &token).await.unwrap();
}

#[tokio::test]
async fn an_issuer_speaks_of_its_agents_alone() {
    let key = Key::rsa();
    let provider = Provider::start(vec![key.jwk("k1")]).await;
    let verifier = provider.verifier(json!({"agents": ["reviewer"]}));
    let token = key.token("k1", &provider.claims(json!({})));
    verifier.verify(&token, "reviewer").await.unwrap();
    let error = verifier.verify(&token, "coder").await.unwrap_err().to_string();
    assert!(error.contains("says nothing of the agent `coder`"), "{error}");
}

/// The example configurations of the documentation, by their names there.
fn examples() -> BTreeMap<String, Value> {
    let text = include_str!("../../../docs/identities.md");
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let issuers = blocks.filter(|block| block.contains("[[identity.issuers]]")).flat_map(|block| {
        let Value::Object(mut whole) = toml::from_str(block).unwrap() else { panic!("{block}") };
        let issuers = whole["identity"]["issuers"].take();
        issuers.as_array().unwrap().clone()
    });
    issuers.map(|issuer| (issuer["name"].as_str().unwrap().to_owned(), issuer)).collect()
}

/// As the providers document their tokens; signed here. Where the keys are is changed in the examples, and nothing else.
#[tokio::test]
async fn tokens_in_the_shape_of_known_providers_are_accepted_with_their_examples() {
    let key = Key::rsa();
    let mut examples = examples();
    for (name, claims, (subject, sponsor, groups, kept), others) in [
        // https://docs.github.com/en/actions/reference/security/oidc
        (
            "github",
            json!({"aud": "chaperone", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
                "ref": "refs/heads/main", "sha": "example-sha", "repository": "octo-org/octo-repo",
                "repository_owner": "octo-org", "actor_id": "12", "repository_visibility": "private",
                "repository_id": "74", "repository_owner_id": "65", "run_id": "example-run-id", "run_number": "10",
                "run_attempt": "2", "runner_environment": "github-hosted", "actor": "octocat",
                "workflow": "example-workflow", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch",
                "ref_type": "branch", "ref_protected": "true", "job_workflow_ref":
                "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main"}),
            ("repo:octo-org/octo-repo:environment:prod", Some("octocat"), vec!["github:octo-org/octo-repo"], json!({})),
            // Anybody's own repository.
            json!({"repository_owner": "evil", "repository_owner_id": "66", "actor": "evil"}),
        ),
        // https://docs.gitlab.com/ci/secrets/id_token_authentication/
        (
            "gitlab",
            json!({"aud": "chaperone", "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
                "namespace_id": "72", "namespace_path": "my-group", "project_id": "20",
                "project_path": "my-group/my-project", "user_id": "1", "user_login": "sample-user",
                "user_email": "sample-user@example.com", "user_identities": [{"provider": "github", "extern_uid": "2"}],
                "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "feature-branch-1",
                "ref_type": "branch", "ref_protected": "false", "groups_direct": ["mygroup/mysubgroup"],
                "environment_protected": "false", "runner_id": 1, "runner_environment": "self-hosted",
                "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "public",
                "ci_config_ref_uri": "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main"}),
            (
                "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
                Some("sample-user"),
                vec![],
                json!({}),
            ),
            json!({"namespace_id": "73"}),
        ),
        // A token of `TokenRequest`, as https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
        (
            "cluster",
            json!({"aud": ["chaperone"], "sub": "system:serviceaccount:agents:coder", "jti": "ea28ed49-2e11-4280-9ec5",
                "kubernetes.io": {"namespace": "agents", "node": {"name": "127.0.0.1", "uid": "58456cb0"},
                "pod": {"name": "coder-0", "uid": "5e0bd49b"}, "serviceaccount": {"name": "coder", "uid": "14ee3fa4"},
                "warnafter": 1_729_605_240}}),
            ("system:serviceaccount:agents:coder", None, vec!["cluster:agents"], json!({"pod": "coder-0"})),
            json!({"sub": "system:serviceaccount:default:coder"}),
        ),
        // https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/: no `jti`, no `nbf`.
        (
            "spire",
            json!({"aud": ["chaperone"], "sub": "spiffe://example.org/agents/coder", "jti": null, "nbf": null}),
            ("spiffe://example.org/agents/coder", None, vec![], json!({})),
            json!({"sub": "spiffe://example.com/agents/coder"}),
        ),
    ] {
        let mut example = examples.remove(name).unwrap_or_else(|| panic!("the documentation has no `{name}`"));
        let provider = Provider::start(vec![key.jwk("k1")]).await;
        let settings = example.as_object_mut().unwrap();
        settings.insert("issuer".into(), provider.issuer.clone().into());
        settings.insert("insecure_loopback".into(), true.into());
        let keys = tempfile::NamedTempFile::new().unwrap();
        if settings.contains_key("jwks_file") {
            std::fs::write(keys.path(), json!({"keys": [key.jwk("k1")]}).to_string()).unwrap();
            settings.insert("jwks_file".into(), keys.path().to_str().into());
        }
        let verifier = Verifier::new(vec![serde_json::from_value(example).unwrap()]).unwrap();
        let token = |more: &Value| {
            let mut all = provider.claims(claims.clone());
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            key.token("k1", &all)
        };
        let identity =
            verify(&verifier, &token(&json!({}))).await.unwrap_or_else(|why| panic!("{name}: {why}")).identity;
        assert_eq!(
            (identity.subject.as_str(), identity.sponsor.as_deref(), identity.provider.as_str()),
            (subject, sponsor, name)
        );
        assert_eq!(identity.groups, groups);
        assert_eq!(serde_json::to_value(&identity.claims).unwrap(), kept);
        let error = verify(&verifier, &token(&others)).await.expect_err(name).to_string();
        assert!(error.contains("the configuration requires"), "{name}: {error}");
    }
    let left: Vec<_> = examples.into_iter().filter(|(_, example)| example.get("client_id").is_none()).collect();
    assert!(left.is_empty(), "examples that nobody tries: {left:?}");
}
