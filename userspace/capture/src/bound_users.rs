//! Users whose processes are agents' wherever they are, and with them their subordinate ids: `newuidmap` gives those to
//! anything that the user starts in a user namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use aya::maps::lpm_trie::Key;
use nix::unistd::User;

use crate::{Capture, CaptureError};

/// subuid(5).
const SUBORDINATE: &str = "/etc/subuid";

/// Ids with the same highest bits: how many of them, and one of the ids.
type Prefix = (u32, u32);

impl Capture {
    /// Binds these users, and no others any more, to enrolled cgroups: outside of them (and of exempt ones) a process of
    /// such a user can make no IP socket, and the sockets that it has get nowhere that an agent's wouldn't. For agents
    /// that have users of their own, so that cron, `at` or a container engine's socket are no way out. User ids are
    /// those of the first user namespace; the users' subordinate ids, by `/etc/subuid`, are bound as well.
    pub fn bind_users(&self, users: &BTreeSet<u32>) -> Result<(), CaptureError> {
        match fs::read(SUBORDINATE) {
            Ok(text) => self.bind_users_with(users, &String::from_utf8_lossy(&text)),
            Err(error) => {
                // Whatever is wrong with the file, the users themselves are bound.
                self.bind_users_with(users, "")?;
                if error.kind() == io::ErrorKind::NotFound {
                    return Ok(());
                }
                Err(CaptureError::system(format!("reading {SUBORDINATE}"))(error))
            }
        }
    }

    /// As [`bind_users`](Self::bind_users), with that in the place of `/etc/subuid`: for tests.
    #[doc(hidden)]
    pub fn bind_users_with(&self, users: &BTreeSet<u32>, subordinate: &str) -> Result<(), CaptureError> {
        let id = |name: &str| name.parse().ok().or_else(|| Some(User::from_name(name).ok()??.uid.as_raw()));
        let mut wanted: BTreeSet<Prefix> = users.iter().map(|user| (u32::BITS, *user)).collect();
        for (first, count) in ranges(subordinate, users, id) {
            wanted.extend(prefixes(first, count));
        }
        let mut map = self.bound_ids.lock();
        for (bits, id) in &wanted {
            map.insert(&Key::new(*bits, id.to_be_bytes()), 1, 0).map_err(CaptureError::map(format!(
                "binding the users {users:?} and their ids in {SUBORDINATE} (at most 16384 blocks of them can be)"
            )))?;
        }
        let bound: Vec<_> =
            map.keys().collect::<Result<_, _>>().map_err(CaptureError::map("listing the bound users"))?;
        for key in bound {
            let id = u32::from_be_bytes(key.data());
            if !wanted.contains(&(key.prefix_len(), id)) {
                map.remove(&key).map_err(CaptureError::map(format!("freeing the user {id}")))?;
            }
        }
        Ok(())
    }
}

/// The subordinate ids of these users, each range by its first id and how many there are. Lines that nobody can read, and
/// what names root, are passed over, as `newuidmap` does.
fn ranges(text: &str, users: &BTreeSet<u32>, id: impl Fn(&str) -> Option<u32>) -> Vec<(u32, u32)> {
    let mut known = BTreeMap::new();
    let fields = |line: &str| -> Option<(String, u32, u32)> {
        let mut fields = line.split(':');
        let (name, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u32, u32) = (first.trim().parse().ok()?, count.trim().parse().ok()?);
        (fields.next().is_none() && first != 0).then_some((name.trim().to_owned(), first, count))
    };
    text.lines()
        .filter_map(fields)
        .filter(|(name, ..)| {
            known.entry(name.clone()).or_insert_with(|| id(name)).is_some_and(|user| users.contains(&user))
        })
        .map(|(_, first, count)| (first, count.min(u32::MAX - first)))
        .collect()
}

/// A range as blocks of ids that have their highest bits in common: two a bit at most.
fn prefixes(first: u32, count: u32) -> Vec<Prefix> {
    let (mut at, mut left) = (first, count);
    let mut blocks = Vec::new();
    while left > 0 {
        // As large as where it begins and what is left of the range allow.
        let size = at.trailing_zeros().min(left.ilog2());
        blocks.push((u32::BITS - size, at));
        left -= 1 << size;
        at = at.saturating_add(1 << size);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_exactly_the_range() {
        for (first, count) in [(100_000, 65_536), (1, 1), (5, 10), (165_536, 1), (1 << 31, 1 << 30), (0, 0)] {
            let blocks = prefixes(first, count);
            let mut next = u64::from(first);
            for (bits, id) in &blocks {
                assert_eq!(u64::from(*id), next, "{first} {count}");
                assert!(id.trailing_zeros() >= 32 - bits, "its other bits are 0");
                next += 1 << (32 - bits);
            }
            assert_eq!(next, u64::from(first) + u64::from(count));
            assert!(blocks.len() <= 64);
        }
    }

    #[test]
    fn only_these_users_ranges_count_and_lines_that_cant_be_read_dont() {
        let text = "coder:100000:65536\nother:165536:65536\n 1001:300000:10\ncoder:0:5\ncoder:x:1\ncoder:1\n\ncoder:1:2:3\n\
                    ghost:400000:1\n1000:4294967290:65536";
        let id = |name: &str| match name {
            "coder" => Some(1000),
            "other" => Some(1002),
            number => number.parse().ok(),
        };
        let of = |users: &[u32]| ranges(text, &users.iter().copied().collect(), id);
        assert_eq!(of(&[1000]), [(100_000, 65_536), (4_294_967_290, 5)]);
        assert_eq!(of(&[1001]), [(300_000, 10)]);
        assert_eq!(of(&[1]), []);
    }
}
