//! What the daemon does for approvers.

use chaperone_model::{ApprovalId, Approver, Event};
use chaperone_policy::approvals::{Answer, AnswerError, Asking};
pub use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// Somebody whom a provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The provider.
    pub issuer: String,
    /// Who they are to it.
    pub subject: String,
    /// Their groups there, as `PROVIDER:GROUP`.
    pub groups: Vec<String>,
    /// Other names of theirs.
    pub also: Vec<String>,
    /// What people call them.
    pub display_name: Option<String>,
}

/// Why an answer has no effect.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It isn't one that counts.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The daemon can't take it now.
    #[error("the answer can't be kept now, so that it doesn't count: {0}")]
    Unavailable(String),
}

/// The daemon, as far as approvers are concerned.
pub trait Backend: Send + Sync + 'static {
    /// A provider says this of somebody, now. Gives the name by which they approve, under which it is remembered.
    fn know<'a>(&'a self, person: &'a Person) -> BoxFuture<'a, Result<String, String>>;

    /// The approvers' groups that somebody of this name is in now.
    fn groups(&self, name: &str) -> Vec<String>;

    /// All questions, the oldest first.
    fn questions(&self) -> Vec<Asking>;

    /// Somebody answers, which is recorded.
    fn answer(&self, id: ApprovalId, answer: Answer, approver: Approver) -> BoxFuture<'_, Result<Asking, Refused>>;

    /// Counts changes of questions.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Records what became of a message.
    fn record(&self, event: &Event);
}
