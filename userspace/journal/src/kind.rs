//! What records are: one table, from which their numbers, names and documentation come.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal;)+) => {
        /// What a record is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $variant,)+
            /// A later version's, by its number. It is kept as it is.
            Unknown(u8),
        }

        impl Kind {
            /// All that this version knows: number, name and what it is.
            pub(crate) const ALL: &'static [(u8, &'static str, &'static str)] =
                &[$(($code, $name, concat!($($doc),+)),)+];

            /// The kind with this number.
            pub const fn of(code: u8) -> Self {
                match code {
                    $($code => Self::$variant,)+
                    _ => Self::Unknown(code),
                }
            }

            /// Its number.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)+
                    Self::Unknown(code) => code,
                }
            }
        }
    };
}

kinds! {
    /// A segment's first record: JSON of `SegmentHeader`.
    Header = 1, "header";
    /// What was open when the segment began: JSON.
    Carry = 2, "carry";
    /// An event: JSON.
    Event = 3, "event";
    /// Bytes of a request's body.
    RequestBody = 4, "request-body";
    /// Bytes of an answer's body.
    ResponseBody = 5, "response-body";
    /// A signed checkpoint: JSON.
    Checkpoint = 6, "checkpoint";
    /// What the start after a crash cut off: JSON.
    Recovery = 7, "recovery";
    /// Which segments were removed because they had been shipped: JSON.
    Retirement = 8, "retirement";
    /// What stands around the payload of an aws-chunked request body, with where it stands.
    RequestFraming = 9, "request-framing";
}

impl Kind {
    /// Whether the payload is raw bytes of a body.
    pub const fn is_body(self) -> bool {
        matches!(self, Self::RequestBody | Self::ResponseBody)
    }

    /// Whether it belongs to a body, and so to a call that is open.
    pub(crate) const fn is_of_body(self) -> bool {
        self.is_body() || matches!(self, Self::RequestFraming)
    }

    /// Whether it is a later version's.
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        match Self::ALL.iter().find(|kind| kind.0 == code) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "unknown-{code}"),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
