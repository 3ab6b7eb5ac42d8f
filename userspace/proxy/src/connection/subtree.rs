//! How many cgroups an agent may make: each is one of the hooks' entries, which the host's agents share.
//!
//! The kernel itself holds it to that, by `cgroup.max.descendants` of the cgroup that the agent was put into, which is not
//! the agent's to change (cgroups(7), delegation): past it, its mkdir(2) says `EAGAIN`, and nobody else's does.

use std::{fs, io, path::Path};

/// Holds what is made below this cgroup to `most`, unless it is held to less already.
pub(crate) fn bound(cgroup: &Path, most: u32) -> io::Result<()> {
    let file = cgroup.join("cgroup.max.descendants");
    let now = fs::read_to_string(&file)?;
    // `max` is no number.
    if now.trim().parse().is_ok_and(|now: u64| now <= u64::from(most)) {
        return Ok(());
    }
    fs::write(&file, most.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_set_and_a_lower_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cgroup.max.descendants");
        for (before, after) in [("max\n", "2048"), ("5\n", "5\n"), ("4000000000\n", "2048"), ("2048\n", "2048\n")] {
            fs::write(&file, before).unwrap();
            bound(folder.path(), 2048).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
        }
    }
}
