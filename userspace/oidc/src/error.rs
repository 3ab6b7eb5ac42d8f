//! What is wrong with a token, its file, or its provider.

use std::path::PathBuf;

/// Why a token is not believed. None of these texts holds any of the token but names that it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its shape.
    #[error("this is no signed token (JWT): {0}")]
    Malformed(&'static str),
    /// Its size.
    #[error("the token has {bytes} bytes: at most {} are read", crate::MAX_TOKEN_BYTES)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// `alg`.
    #[error(
        "the token is signed with `{found}`, and the issuer `{issuer}` may use {allowed} alone (identity.issuers, algorithms)"
    )]
    Algorithm {
        /// The token's.
        found: String,
        /// The issuer's name.
        issuer: String,
        /// What is configured.
        allowed: String,
    },
    /// `iss`.
    #[error(
        "no configured issuer is `{0}`: add it to identity.issuers, character for character, if its tokens are to be believed"
    )]
    Issuer(String),
    /// The issuer isn't for this agent.
    #[error("the issuer `{issuer}` says nothing of the agent `{agent}`: it is not among its `agents`")]
    Agent {
        /// The issuer's name.
        issuer: String,
        /// The agent.
        agent: String,
    },
    /// `aud`.
    #[error("the token is made for {found}, and not for {wanted}: ask the provider for one with that audience")]
    Audience {
        /// The token's.
        found: String,
        /// What is configured.
        wanted: String,
    },
    /// `exp`.
    #[error("the token ended at {0}: bring a fresh one")]
    Expired(String),
    /// `nbf` or `iat`.
    #[error("the token is valid from {0} on, which is yet to come: check the clocks of this host and of the provider")]
    NotYet(String),
    /// A claim that has to be there, or to be something else.
    #[error("the token's claim `{claim}` {why}")]
    Claim {
        /// Which.
        claim: String,
        /// What is wrong with it.
        why: String,
    },
    /// `kid`.
    #[error("the issuer `{issuer}` has no key `{kid}` that fits `{algorithm}`, also after asking again{}", asked.as_ref().map(|why| format!(" ({why})")).unwrap_or_default())]
    Key {
        /// The issuer's name.
        issuer: String,
        /// The key's id; empty, if the token names none.
        kid: String,
        /// The token's algorithm.
        algorithm: &'static str,
        /// Why it couldn't be asked.
        asked: Option<String>,
    },
    /// The signature.
    #[error("the token's signature is not the issuer `{0}`'s")]
    Signature(String),
    /// No keys at all.
    #[error("the keys of the issuer `{issuer}` are not known: {why}")]
    Provider {
        /// The issuer's name.
        issuer: String,
        /// Why.
        why: ProviderError,
    },
}

/// Why a provider's keys couldn't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It doesn't answer, or not what it should.
    #[error("asking {url}: {why}")]
    Ask {
        /// What was asked for.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// The document is another issuer's.
    #[error("{url} is the document of the issuer `{found}`, and not of `{wanted}`")]
    OtherIssuer {
        /// What was asked for.
        url: String,
        /// What it says.
        found: String,
        /// What is configured.
        wanted: String,
    },
    /// The keys are elsewhere.
    #[error("the keys are said to be at {0}, on another host than the issuer: set `jwks_uri` to it, if that is right")]
    ElsewhereKeys(String),
    /// It was asked a moment ago.
    #[error("it was asked less than {0} seconds ago")]
    TooSoon(u64),
    /// The file with keys.
    #[error("reading {path}: {why}")]
    File {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a token's file isn't read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token file {}: {why}", path.display())]
pub struct FileError {
    /// Where it should be.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
}
