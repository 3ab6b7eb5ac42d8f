//! What EKS says of a cluster: clients are to trust us at its API server, too, and it is noted which server that is.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{ClusterAnswer, DescribedCluster};
use chaperone_model::Call;
use http::response;

use crate::{
    body::{
        transform::{BodyTransform, Mode, TransformError},
        vended::Held,
    },
    data_plane::DataPlane,
};

/// An answer with a cluster in it.
pub(crate) struct ClusterInAnswer {
    plane: Arc<DataPlane>,
    /// Whose credentials asked.
    account: Option<String>,
    held: Held,
}

impl ClusterInAnswer {
    /// `None` for nearly every call.
    pub(crate) fn of(call: &Call, plane: &Arc<DataPlane>) -> Option<Box<dyn BodyTransform>> {
        let account = call.account.as_deref().map(str::to_owned);
        ClusterAnswer::is_of(&call.service, &call.operation)
            .then(|| Box::new(Self { plane: plane.clone(), account, held: Held::default() }) as _)
    }
}

impl BodyTransform for ClusterInAnswer {
    fn reads(&self) -> bool {
        true
    }

    fn head(&mut self, head: &mut response::Parts) -> Mode {
        if head.status.is_success() { Mode::Whole } else { Mode::Untouched }
    }

    fn push(&mut self, bytes: Bytes, _: &mut Vec<Bytes>) -> Result<(), TransformError> {
        self.held.push(&bytes)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), TransformError> {
        let body = std::mem::take(&mut self.held.body).freeze();
        if let (Some(account), Some(described)) = (&self.account, DescribedCluster::of(&body))
            && let Err(error) = self.plane.clusters.learn(account, &described)
        {
            tracing::warn!(cluster = described.name, %error, "a cluster can't be gone to");
        }
        // What isn't understood goes on as it is: then the agent doesn't trust us there, and nothing else happens.
        out.push(ClusterAnswer::with_authority(&body, &self.plane.own_authority).map_or(body, Bytes::from));
        Ok(())
    }
}
