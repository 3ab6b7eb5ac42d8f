//! Why a request can't be decoded.

/// Why it can't be told what a request is. All of these are the agent's doing, or a service that the catalog lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not what the protocol says.
    #[error("the request's body is {0}")]
    Body(&'static str),
    /// The body is needed and was not given.
    #[error("BUG: the request's body is needed to decode it")]
    BodyNeeded,
    /// Two parts of the request say different things.
    #[error("the request contradicts itself: {0}")]
    Contradiction(&'static str),
    /// No client of AWS's writes a request so: what is wrong with it.
    #[error("{0}")]
    Envelope(String),
    /// The body is not the JSON that the operation takes.
    #[error("the request's body is {what}, at line {line} column {column}")]
    Json {
        /// What it is instead.
        what: &'static str,
        /// Where in the body, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
    },
    /// Nothing in IAM covers it, so no policy can permit it.
    #[error("IAM has no action for {what}, so no policy can permit it")]
    NoAction {
        /// What it is.
        what: &'static str,
    },
    /// The service is known, and nothing in it looks like this.
    #[error("no operation of {service} is like this request")]
    NoOperation {
        /// The service's name, or several.
        service: String,
    },
    /// The path can't be read in one way only.
    #[error("the request has {0}")]
    Path(&'static str),
    /// The signature is for another service or region than the host.
    #[error("the request is signed for `{signed}`, which is not what its host is")]
    Scope {
        /// Region and signing name.
        signed: String,
    },
    /// More than is read.
    #[error("the request's {0} is too large to be decoded")]
    TooLarge(&'static str),
    /// The name is AWS's, and no service is known by it.
    #[error("no service is known by the host's name")]
    UnknownService,
}

impl From<serde_json::Error> for DecodeError {
    /// Without the error's own text: it may quote the body.
    fn from(error: serde_json::Error) -> Self {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "JSON that breaks off",
            // Found after the reading, so that it has no place.
            serde_json::error::Category::Data if error.line() == 0 => return Self::Body("not a JSON object"),
            serde_json::error::Category::Data => "JSON with a member twice",
            _ => "not JSON, or nested too deeply",
        };
        Self::Json { what, line: error.line(), column: error.column() }
    }
}
