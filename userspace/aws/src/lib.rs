//! AWS, as seen from the wire: which service a name is, which operation a request is, which IAM actions and resources
//! that takes; SigV4 signatures checked and made; credentials; the metadata services' stand-in; AWS-shaped errors.
//!
//! Never opens an agent's socket and never decides: it turns bytes into a [`Call`](chaperone_model::Call) and back into
//! a signed request. What it can't tell for sure it refuses with a typed error, so that the caller denies.

#![forbid(unsafe_code)]

mod actions;
#[cfg(test)]
mod actions_tests;
mod answers;
mod bearer;
mod canonical;
mod catalog;
mod chunked;
#[cfg(test)]
mod coverage_tests;
mod credentials;
mod decode;
mod decode_error;
#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod default_policy_tests;
mod eks;
mod endpoint;
#[cfg(test)]
mod envelope_tests;
mod error;
mod event_stream;
mod explain;
mod form_v2;
mod git;
#[cfg(test)]
mod handmade_tests;
mod head;
mod host;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod hostile_wire_tests;
mod kubernetes_actions;
#[cfg(test)]
mod lenient_tests;
#[cfg(test)]
mod made_tests;
mod metadata;
mod placeholder;
mod post_policy;
mod presigned;
mod presigned_urls;
mod request_auth;
mod resources;
#[cfg(test)]
mod resources_tests;
mod roles;
mod route;
mod routes;
mod sensitive;
#[cfg(test)]
mod sensitive_tests;
mod sign;
#[cfg(test)]
mod sign_tests;
mod signing_key;
mod sigv4a;
mod tokens;
#[cfg(test)]
mod types_tests;
mod unmask;
mod unsigned;
mod vended;
mod websocket;
#[cfg(test)]
mod wire_tests;

pub use answers::{AnswerError, CredentialRewriter, MAX_CREDENTIALS_ANSWER, SecretFound, SecretScan, VendingCall};
pub use bearer::{take_api_key, take_bearer};
pub use canonical::{HeaderForm, PathRules};
pub use catalog::{Catalog, CatalogVersion};
pub use chunked::{AwsChunkedReader, ChunkKey, ChunkResigner, ChunkedError, ChunkedSink};
pub use credentials::{AwsCredentials, CredentialSource, CredentialsError, TokenField};
pub use decode::BodyNeed;
pub use decode_error::DecodeError;
pub use eks::{ClusterAnswer, DescribedCluster, EksToken};
pub use endpoint::{Endpoint, kubernetes::ClusterName};
pub use error::{AwsError, ErrorKind, error_response};
pub use event_stream::{EventKey, EventResigner, EventStreamError};
pub use explain::Explanation;
pub use form_v2::SignedForm;
pub use git::GitCredential;
pub use host::{HostKind, HostMatch, S3At};
pub use metadata::{Metadata, MetadataRequest};
pub use placeholder::{Placeholder, PlaceholderKey};
pub use post_policy::PostPolicy;
pub use presigned::Presigned;
pub use presigned_urls::{PresignedUrls, PresigningCall};
pub use request_auth::{HeaderAuthority, RequestAuth, payload_shape};
pub use roles::{Role, Sts, https_client};
pub use sensitive::{SensitiveMembers, Sensitivity, has_raw_answer};
pub use sign::{EMPTY_SHA256, MAX_CLOCK_SKEW, Scope, SignError, Signer, VerifyError};
pub use sigv4a::V4aAuth;
pub use tokens::IssuedTokens;
pub use unmask::{NoTextMember, PlacedText};
pub use vended::{VendedCredential, VendedCredentials};
pub use websocket::SignedHandshake;
