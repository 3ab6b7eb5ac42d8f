//! The containers of a user's own podman, by its storage in the user's home. The user can write whatever they like there:
//! it is their word, which the description says.

use std::path::{Path, PathBuf};

use chaperone_model::Container;
use nix::unistd::{Uid, User};

use super::{podman, state::Folder};

/// `graphroot`, unless the user says otherwise (containers-storage.conf(5)).
const STORAGE: &str = ".local/share/containers/storage";

pub(super) fn container(user: u32, id: &str) -> Option<Container> {
    in_home(user, &home(user)?, id)
}

/// By the same word.
pub(super) fn runtime(user: u32, id: &str) -> Option<String> {
    podman::runtime(&Folder::open_of(user, &home(user)?, STORAGE)?, id)
}

fn home(user: u32) -> Option<PathBuf> {
    Some(User::from_uid(Uid::from_raw(user)).ok().flatten()?.dir)
}

fn in_home(user: u32, home: &Path, id: &str) -> Option<Container> {
    podman::container(&Folder::open_of(user, home, STORAGE)?, id)
}
