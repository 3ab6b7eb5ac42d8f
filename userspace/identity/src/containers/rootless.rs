//! The containers of a user's own podman, by its storage in the user's home. The user can write whatever they like there:
//! it is their word, which the description says.

use std::path::Path;

use chaperone_model::Container;
use nix::unistd::{Uid, User};

use super::{podman, state::Folder};

/// `graphroot`, unless the user says otherwise (containers-storage.conf(5)).
const STORAGE: &str = ".local/share/containers/storage";

pub(super) fn container(user: u32, id: &str) -> Option<Container> {
    let home = User::from_uid(Uid::from_raw(user)).ok().flatten()?.dir;
    in_home(user, &home, id)
}

fn in_home(user: u32, home: &Path, id: &str) -> Option<Container> {
    podman::container(&Folder::open_of(user, home, STORAGE)?, id)
}
