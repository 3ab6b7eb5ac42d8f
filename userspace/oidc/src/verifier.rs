//! A token, held against the configured issuers.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chaperone_model::Identity;
use jsonwebtoken::crypto;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    Algorithm, Issuer, MAX_TOKEN_BYTES, TokenError,
    claims::{self, Claims},
    keys::Keys,
};

/// All configured issuers, with their keys.
#[derive(Debug, Default)]
pub struct Verifier {
    issuers: Vec<(Issuer, Keys)>,
}

/// Who an agent is, and until when that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub identity: Identity,
    /// When the token was made, if it says so.
    issued: Option<OffsetDateTime>,
    /// When it ends: by the token's `exp` and the skew.
    ends: OffsetDateTime,
    /// The same by a clock that nobody sets back.
    ends_at: Instant,
}

impl Verified {
    /// Whether the token has ended: by either clock.
    pub fn is_over(&self) -> bool {
        OffsetDateTime::now_utc() >= self.ends || Instant::now() >= self.ends_at
    }

    /// How long it is until the token's own end.
    pub fn left(&self) -> Duration {
        Duration::try_from(self.identity.expires - OffsetDateTime::now_utc()).unwrap_or_default()
    }

    /// Whether this is what the provider says after `before`, of the same subject: by when they were made, or else by
    /// their ends. Of two that are as late as each other the one that comes later is, if it says anything else.
    pub fn supersedes(&self, before: &Self) -> bool {
        let later = match (self.issued, before.issued) {
            (Some(own), Some(other)) => own.cmp(&other),
            _ => self.identity.expires.cmp(&before.identity.expires),
        };
        later.is_ge() && self.identity != before.identity
    }
}

/// The furthest end that is believed: a token that is good for ever is good for a year.
const MAX_LIFE: Duration = Duration::from_hours(366 * 24);

impl Verifier {
    /// One for these issuers, which were checked.
    pub fn new(issuers: Vec<Issuer>) -> Result<Self, String> {
        let made = |issuer: Issuer| {
            issuer.check()?;
            let keys = Keys::new(&issuer).map_err(|why| format!("the issuer `{}`: {why}", issuer.name))?;
            Ok((issuer, keys))
        };
        Ok(Self { issuers: issuers.into_iter().map(made).collect::<Result<_, String>>()? })
    }

    /// Who a token of the agent `agent` says that it is.
    pub async fn verify(&self, token: &str, agent: &str) -> Result<Verified, TokenError> {
        self.verify_at(token, agent, OffsetDateTime::now_utc()).await
    }

    /// As [`verify`](Self::verify), at another time.
    pub async fn verify_at(&self, token: &str, agent: &str, now: OffsetDateTime) -> Result<Verified, TokenError> {
        self.check(token, Some(agent), now).await.map(|(verified, _)| verified)
    }

    /// Who the bearer of a token is, who is a person or a program and no agent; and what else the token says.
    pub async fn verify_bearer(&self, token: &str) -> Result<(Verified, Claims), TokenError> {
        self.check(token, None, OffsetDateTime::now_utc()).await
    }

    /// Who an ID token says has signed in, which `client` asked for with this nonce (OpenID Connect Core, 3.1.3.7). Without
    /// a browser there is none.
    pub async fn verify_id_token(
        &self,
        token: &str,
        client: &str,
        nonce: Option<&str>,
    ) -> Result<(Verified, Claims), TokenError> {
        let (verified, claims) = self.check(token, None, OffsetDateTime::now_utc()).await?;
        let claim = |claim: &str, why: &str| Err(TokenError::Claim { claim: claim.into(), why: why.into() });
        if nonce.is_some_and(|nonce| claims.get("nonce").and_then(Value::as_str) != Some(nonce)) {
            return claim("nonce", "is not the one of this sign-in");
        }
        let of_several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
        match claims.get("azp") {
            None if of_several => claim("azp", "is missing, and the token is for several clients"),
            Some(other) if other != client => claim("azp", "is not this client"),
            _ => Ok((verified, claims)),
        }
    }

    async fn check(
        &self,
        token: &str,
        agent: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<(Verified, Claims), TokenError> {
        let token = Token::read(token)?;
        // Which issuer it is to be held against is all that is believed of it yet.
        let name = token.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let found = self.issuers.iter().find(|(issuer, _)| issuer.issuer == name);
        let (issuer, keys) = found.ok_or_else(|| TokenError::Issuer(shown(name)))?;
        if let Some(agent) = agent
            && !issuer.agents.is_empty()
            && !issuer.agents.iter().any(|it| it == agent)
        {
            return Err(TokenError::Agent { issuer: issuer.name.clone(), agent: agent.to_owned() });
        }
        let algorithm = Algorithm::named(&token.algorithm).filter(|it| issuer.algorithms.contains(it));
        let algorithm = algorithm.ok_or_else(|| TokenError::Algorithm {
            found: shown(&token.algorithm),
            issuer: issuer.name.clone(),
            allowed: issuer.algorithms.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        // Ids may collide: any of those keys is the issuer's own.
        let keys = keys.of(issuer, token.kid.as_deref(), algorithm).await?;
        let signed = |key| crypto::verify(token.signature, token.signed.as_bytes(), key, algorithm.jwt());
        if !keys.iter().any(|key| signed(key).unwrap_or(false)) {
            return Err(TokenError::Signature(issuer.name.clone()));
        }
        check_audience(issuer, &token.claims)?;
        let (issued, ends) = check_times(issuer, &token.claims, now)?;
        claims::check_required(issuer, &token.claims)?;
        let skew = time::Duration::seconds(issuer.clock_skew.into());
        let identity = claims::identity(issuer, &token.claims, token.id()?, ends)?;
        let left = Duration::try_from(ends + skew - now).unwrap_or_default().min(MAX_LIFE);
        Ok((Verified { identity, issued, ends: ends + skew, ends_at: Instant::now() + left }, token.claims))
    }
}

/// A signed token, taken apart.
struct Token<'a> {
    signed: &'a str,
    signature: &'a str,
    algorithm: String,
    kid: Option<String>,
    claims: Claims,
}

impl<'a> Token<'a> {
    fn read(text: &'a str) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed("it has no dots"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("it has one dot and not two"))?;
        if payload.contains('.') {
            return Err(malformed("it has more than two dots: encrypted tokens aren't taken"));
        }
        let object = |part: &str, wrong: &'static str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(wrong))?;
            serde_json::from_slice::<Claims>(&bytes).map_err(|_| malformed(wrong))
        };
        let header = object(header, "its header is not a JSON object in base64url")?;
        let claims = object(payload, "its claims are not a JSON object in base64url")?;
        // RFC 7515, 4.1.11: whoever doesn't understand what is critical must refuse it. Nothing is understood here.
        if header.contains_key("crit") {
            return Err(malformed("its header has a critical extension"));
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("its key id is not a text")),
        };
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(malformed("its header names no algorithm"))?;
        Ok(Self { signed, signature, algorithm: algorithm.to_owned(), kid, claims })
    }

    /// What it is called in records.
    fn id(&self) -> Result<String, TokenError> {
        match self.claims.get("jti") {
            None => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.signed.as_bytes());
                Ok(format!("sha256:{}", hex::encode(digest)))
            }
            Some(Value::String(id)) if (1..=256).contains(&id.len()) && !id.chars().any(char::is_control) => {
                Ok(id.clone())
            }
            Some(_) => Err(TokenError::Claim { claim: "jti".into(), why: "is not a text of 1 to 256 bytes".into() }),
        }
    }
}

fn check_audience(issuer: &Issuer, claims: &Claims) -> Result<(), TokenError> {
    let found: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if issuer.audiences.iter().any(|wanted| found.contains(&wanted.as_str())) {
        return Ok(());
    }
    let list = |all: &mut dyn Iterator<Item = String>| all.map(|it| format!("`{it}`")).collect::<Vec<_>>().join(" or ");
    Err(TokenError::Audience {
        found: if found.is_empty() { "nobody".into() } else { list(&mut found.iter().take(8).map(|it| shown(it))) },
        wanted: list(&mut issuer.audiences.iter().cloned()),
    })
}

/// Holds the times against `now`, and gives when it was made, if it says so, and its end.
fn check_times(
    issuer: &Issuer,
    claims: &Claims,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, OffsetDateTime), TokenError> {
    let time = |name: &str| -> Result<Option<OffsetDateTime>, TokenError> {
        let Some(value) = claims.get(name) else { return Ok(None) };
        // `NumericDate` may have a fraction.
        #[allow(clippy::cast_possible_truncation)] // what is out of range is no time either
        let seconds = value.as_i64().or_else(|| value.as_f64().map(|it| it.floor() as i64));
        let time = seconds.and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
        // So that adding the skew stays in range.
        let time = time.filter(|it| (1970..=9000).contains(&it.year()));
        let why = "is not a time in seconds".to_owned();
        time.map(Some).ok_or(TokenError::Claim { claim: name.to_owned(), why })
    };
    let said = |time: OffsetDateTime| {
        time.format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_else(|_| time.unix_timestamp().to_string())
    };
    let skew = time::Duration::seconds(issuer.clock_skew.into());
    let missing = TokenError::Claim { claim: "exp".into(), why: "is missing: a token must have an end".into() };
    let ends = time("exp")?.ok_or(missing)?;
    if now >= ends + skew {
        return Err(TokenError::Expired(said(ends)));
    }
    for begins in ["nbf", "iat"] {
        if let Some(begins) = time(begins)?
            && now + skew < begins
        {
            return Err(TokenError::NotYet(said(begins)));
        }
    }
    Ok((time("iat")?, ends))
}

/// As much of what a token says as can be shown.
fn shown(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(256).collect()
}
