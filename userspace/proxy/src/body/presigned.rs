//! Presigned URLs that answers bring: noted for the session before the agent has them, so that it may use exactly those.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{HostMatch, PresigningCall};
use chaperone_identity::Resolved;
use chaperone_model::{Call, CallId};
use http::response;
use time::OffsetDateTime;

use crate::{
    body::{
        transform::{BodyTransform, Mode, TransformError},
        vended::Held,
    },
    data_plane::SessionContext,
};

/// A call whose answer may bring a presigned URL.
pub(crate) struct PresignedAnswer {
    session: Arc<Resolved<SessionContext>>,
    call: PresigningCall,
    /// What it is remembered by: the call's id and operation.
    by: String,
    held: Held,
}

impl PresignedAnswer {
    /// `None` for nearly every call.
    pub(crate) fn of(
        call: &Call,
        found: &HostMatch,
        id: CallId,
        session: &Arc<Resolved<SessionContext>>,
    ) -> Option<Box<dyn BodyTransform>> {
        let by = format!("{id} {}:{}", call.service, call.operation);
        let call = PresigningCall::of(call, found)?;
        Some(Box::new(Self { session: session.clone(), call, by, held: Held::default() }))
    }

    fn note(&self, url: &str) {
        self.session.own.vended.urls().note(url, &self.by, OffsetDateTime::now_utc());
    }
}

impl BodyTransform for PresignedAnswer {
    fn reads(&self) -> bool {
        matches!(self.call, PresigningCall::Member(_))
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        if !self.reads() {
            // What a redirection leads to.
            if let Some(url) = self.call.url(&head.headers, &[]) {
                self.note(&url);
            }
            return Mode::Untouched;
        }
        if !head.status.is_success() {
            return Mode::Untouched;
        }
        self.held.headers = head.headers.clone();
        Mode::Whole
    }

    fn push(&mut self, bytes: Bytes, _: &mut Vec<Bytes>) -> Result<(), TransformError> {
        self.held.push(&bytes)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        if let Some(url) = self.call.url(&self.held.headers, &self.held.body) {
            self.note(&url);
        }
        out.push(std::mem::take(&mut self.held.body).freeze());
        Ok(())
    }
}
