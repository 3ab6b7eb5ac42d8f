//! Containers that are held from their start, until it is known whose they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chaperone_capture::{Capture, CaptureError, PendingCgroups, cgroup_path};
use chaperone_identity::Ownership;
use chaperone_model::CgroupId;
use chaperone_proxy::DataPlane;

/// How often those are looked at again of which it isn't known, and how often for those that nobody told of.
const AGAIN: Duration = Duration::from_secs(1);
const ALL: Duration = Duration::from_secs(5);

/// Decides on them as they appear, in a thread of its own: it reads files, and a container waits. It ends with the daemon.
pub fn decide(mut appearing: PendingCgroups, capture: Arc<Capture>, shared: Arc<DataPlane>) -> anyhow::Result<()> {
    let decide = move || {
        let mut waiting = Waiting::default();
        let mut looked = Instant::now();
        loop {
            let mut appeared = match appearing.read(AGAIN) {
                Ok(appeared) => appeared,
                Err(error) => {
                    tracing::error!(%error, "containers that are held can't be told any more, and are seen late");
                    std::thread::park_timeout(AGAIN);
                    Vec::new()
                }
            };
            if looked.elapsed() >= ALL {
                looked = Instant::now();
                match capture.held() {
                    Ok(held) => waiting.known.retain(|id, _| held.contains(id)),
                    Err(error) => tracing::error!(%error, "listing the cgroups that are held"),
                }
                appeared.extend(capture.held().unwrap_or_default());
            }
            appeared.extend(waiting.known.keys());
            for id in appeared.into_iter().collect::<BTreeSet<_>>() {
                if let Err(error) = waiting.decide(id, &capture, &shared) {
                    tracing::error!(%error, cgroup = id.0, "a container is held and can't be decided on");
                }
            }
        }
    };
    std::thread::Builder::new().name("held".to_owned()).spawn(decide).context("starting the thread for containers")?;
    Ok(())
}

/// Those of which it isn't known whose they are, with the reason that was told.
#[derive(Default)]
struct Waiting {
    known: BTreeMap<CgroupId, String>,
}

impl Waiting {
    fn decide(&mut self, id: CgroupId, capture: &Capture, shared: &DataPlane) -> Result<(), CaptureError> {
        let path = match cgroup_path(capture.cgroup_root(), id) {
            Ok(path) => path,
            Err(CaptureError::CgroupGone { .. }) => {
                self.known.remove(&id);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match shared.decide(&path) {
            Ownership::Agent(agent) => {
                capture.confirm(id)?;
                tracing::info!(cgroup = path, agent, "a container is an agent's");
            }
            Ownership::Nobody => {
                shared.sessions.remember_nobodys(id);
                capture.release(id)?;
                tracing::debug!(cgroup = path, "a container is no agent's");
            }
            Ownership::Unknown(why) => {
                if self.known.get(&id) != Some(&why) {
                    tracing::warn!(
                        cgroup = path,
                        why,
                        "it isn't known whose this container is: it is held, and refused"
                    );
                }
                self.known.insert(id, why);
                return Ok(());
            }
        }
        self.known.remove(&id);
        Ok(())
    }
}
