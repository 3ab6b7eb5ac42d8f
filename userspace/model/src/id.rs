//! Identifiers: UUIDv7, so that they sort by time, each in a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a {kind} id (a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057)")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier, later than every one this process made before.
            #[allow(clippy::new_without_default)] // two calls give two values
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes, big-endian as in RFC 9562.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The identifier with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// As a plain UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| ParseIdError { kind: $kind, text: text.chars().take(80).collect() })
            }
        }
    };
}

id!(
    /// A question whether a call may go out, put to people.
    ApprovalId,
    "approval"
);
id!(
    /// One exchange: a request and its answer.
    CallId,
    "call"
);
id!(
    /// One execution of a program by an agent's process.
    CommandId,
    "command"
);
id!(
    /// One accepted connection of an agent's process.
    ConnectionId,
    "connection"
);
id!(
    /// One agent in one cgroup instance.
    SessionId,
    "session"
);
