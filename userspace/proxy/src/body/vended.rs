//! Answers that carry credentials go on with placeholders in the credentials' place.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chaperone_aws::{CredentialRewriter, MAX_CREDENTIALS_ANSWER, VendingCall};
use chaperone_identity::Resolved;
use chaperone_model::Call;
use http::response;

use crate::{
    body::transform::{BodyTransform, Mode, TransformError},
    data_plane::SessionContext,
};

/// A call whose answer carries credentials.
pub(crate) struct VendedAnswer {
    session: Arc<Resolved<SessionContext>>,
    call: VendingCall,
    account: Option<String>,
    held: Held,
}

impl VendedAnswer {
    /// `None` for nearly every call.
    pub(crate) fn of(call: &Call, session: &Arc<Resolved<SessionContext>>) -> Option<Box<dyn BodyTransform>> {
        let account = call.account.as_deref().map(str::to_owned);
        let call = VendingCall::of(call)?;
        Some(Box::new(Self { session: session.clone(), call, account, held: Held::default() }))
    }
}

impl BodyTransform for VendedAnswer {
    fn reads(&self) -> bool {
        true
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        if !head.status.is_success() {
            return Mode::Untouched;
        }
        self.held.headers = head.headers.clone();
        // They are of the body as it comes.
        for name in ["content-md5", "digest", "etag", "x-amz-crc32"] {
            head.headers.remove(name);
        }
        Mode::Whole
    }

    fn push(&mut self, bytes: Bytes, _: &mut Vec<Bytes>) -> Result<(), TransformError> {
        self.held.push(&bytes)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        let rewriter = CredentialRewriter {
            keys: &self.session.own.vended,
            session: self.session.session.id,
            account: self.account.as_deref(),
            call: &self.call,
        };
        let given = rewriter.rewrite(&self.held.headers, &self.held.body);
        out.push(given.map_err(|error| TransformError(error.to_string()))?.into());
        Ok(())
    }
}

/// An answer that is read to its end before anything of it goes on.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: BytesMut,
}

impl Held {
    pub(crate) fn push(&mut self, bytes: &Bytes) -> Result<(), TransformError> {
        if self.body.len() + bytes.len() > MAX_CREDENTIALS_ANSWER {
            return Err(TransformError(chaperone_aws::AnswerError::TooLarge.to_string()));
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }
}
