//! Where approvers answer besides the command line: an HTTPS API with its page, and messages to webhooks and to Slack.
//!
//! [`Api`] serves people who signed in at an OpenID Connect provider, and programs with a token of one. [`Messages`] tell
//! webhooks and [`Slack`] what becomes of questions. None of them decides anything: an answer goes to the daemon's
//! [`Backend`], where the command line's goes, and who may give it is looked at there, when it is given.
//!
//! It fails closed: whoever isn't known, or can't be held against their provider now, sees and answers nothing. What
//! fails here holds up no call but those that wait for the answer.

#![forbid(unsafe_code)]

mod api;
mod backend;
mod config;
#[cfg(test)]
mod fixture;
mod guard;
mod limits;
pub mod messages;
mod openapi;
mod page;
mod sealed;
mod server;
mod sessions;
mod sign_in;
mod slack;
mod types;

pub use backend::{Backend, BoxFuture, Person, Refused};
pub use config::{ApiSection, SlackSection, WebhookSection};
pub use messages::Messages;
pub use openapi::document;
pub use server::{Api, ApiError};
pub use slack::Slack;
pub use types::Question;
