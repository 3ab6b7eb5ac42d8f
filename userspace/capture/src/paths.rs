//! The paths of enrolled cgroups, also of those that are gone: a cgroup may be gone before its commands are heard of.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
};

use chaperone_model::CgroupId;

/// How many are remembered; a path has a kilobyte at most.
const MAX_PATHS: usize = 8192;

/// The paths of the latest cgroups that were enrolled.
#[derive(Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    known: HashMap<CgroupId, String>,
    /// The oldest first.
    order: VecDeque<CgroupId>,
}

impl Paths {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Ids are never given again before the next boot, and cgroups are never moved.
    pub(crate) fn remember(&mut self, id: CgroupId, path: String) {
        if self.known.insert(id, path).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_PATHS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// The path that this cgroup has, or had.
    pub(crate) fn of(&mut self, id: CgroupId) -> Option<String> {
        if !self.known.contains_key(&id) {
            self.remember(id, crate::cgroup_path(&self.root, id).ok()?);
        }
        self.known.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut paths = Paths::new("/nowhere".into());
        for number in 0..10_000 {
            paths.remember(CgroupId(number), format!("/agents/{number}"));
        }
        assert_eq!((paths.known.len(), paths.order.len()), (MAX_PATHS, MAX_PATHS));
        assert_eq!(paths.of(CgroupId(9_999)).as_deref(), Some("/agents/9999"));
        assert_eq!(paths.of(CgroupId(0)), None);
    }
}
