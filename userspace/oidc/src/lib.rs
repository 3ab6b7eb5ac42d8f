//! Who an agent is: tokens of OpenID Connect providers, verified.
//!
//! [`Issuer`] is what the configuration says of a provider. [`Verifier`] holds a token against it and gives an
//! [`Identity`](chaperone_model::Identity), or a [`TokenError`] that says what is wrong. It never decides what an agent
//! may do, and it keeps no token.
//!
//! It fails closed: a token is believed only if one configured issuer made it, for a configured audience, with an
//! algorithm that the configuration names, by a key that the provider published lately.
//!
//! The crate `openidconnect` is made for clients that ask for ID tokens by themselves, with a client id and a nonce. Tokens
//! of workloads (GitHub Actions, GitLab, Kubernetes, SPIFFE) come without either, so that the checks here are our own, on
//! signatures that `jsonwebtoken` verifies by aws-lc. People sign in by [`RelyingParty`], on the crate `oauth2` that
//! `openidconnect` itself is made on: its ID tokens pass the same checks as all others, rather than a second set with a
//! second cryptographic library.

#![forbid(unsafe_code)]

mod claims;
mod discovery;
mod error;
mod exchange;
mod fetch;
mod file;
mod issuer;
mod keys;
mod login;
mod sign_in;
mod verifier;

pub use claims::Claims;
pub use error::{FileError, ProviderError, TokenError};
pub use fetch::{Answer, Fetch};
pub use file::{Stamp, TokenFile, read};
pub use issuer::{Algorithm, Issuer};
pub use login::{BrowserLogin, DeviceLogin, LoggedIn, Login, LoginError};
pub use sign_in::{Begun, GroupsFrom, RelyingParty, SignIn, SignInError, SignedIn, names, secret};
pub use verifier::{Verified, Verifier};

/// The longest token that is read.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
