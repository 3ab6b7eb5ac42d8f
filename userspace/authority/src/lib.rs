//! The local certificate authority, the leaves it issues, and the trust stores on the host that must know it.
//!
//! It never talks to the network and knows nothing of AWS beyond the domain names it is told. It fails closed: a CA
//! key that others can read, a certificate that doesn't fit its key, or a name outside the CA's constraints is an
//! error, never a warning.

#![forbid(unsafe_code)]

mod ca;
mod image;
mod trust;

pub use ca::{AuthorityError, CertificateAuthority};
pub use image::{CaCertificate, Merged, trust_below};
pub use trust::{Trust, TrustError, TrustReport, TrustStore};
