//! Who asks: what the kernel says of the socket's other end, and never what the message says.

use nix::unistd::{Uid, User};
use tokio::net::unix::UCred;

/// Who asks the daemon for something, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub chaperone_model::Actor);

impl Actor {
    /// Whoever made a connection. Who logged in stays known behind `sudo`.
    pub(crate) fn of_peer(peer: &UCred) -> Self {
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        let login_uid = pid.and_then(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
            // `(uid_t) -1` where nobody has logged in.
            text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
        });
        Self(chaperone_model::Actor {
            by: "control".into(),
            uid: Some(peer.uid()),
            pid,
            login_uid,
            name: name(login_uid.unwrap_or(peer.uid())),
        })
    }

    /// Whether it is a user besides root, who may register sessions and nothing else.
    pub(crate) fn is_registrar(&self) -> bool {
        self.0.uid.is_some_and(|uid| uid != 0)
    }

    /// Whoever sent a signal, which only root and the service manager can.
    pub fn of_signal() -> Self {
        Self(chaperone_model::Actor { by: "signal".into(), uid: None, pid: None, login_uid: None, name: None })
    }
}

fn name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
