//! Where an accepted connection came from.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use aya::maps::{MapData, MapError, SkStorage};
use chaperone_ebpf_abi::{Endpoint, NO_COMMAND, OriginRecord, V4_MAPPED};
use chaperone_model::{CgroupId, CommandId, NetnsCookie, Origin, OriginalDst, ProcessFacts, SocketCookie};

use crate::{
    ArgumentMask, OriginError,
    arguments::Arguments,
    process::{exe, folder, masked},
};

/// The hooks' record, as aya takes it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Record(pub(crate) OriginRecord);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for Record {}

/// Tells the origin of accepted connections. Cheap to clone.
#[derive(Clone)]
pub struct Origins {
    map: Arc<SkStorage<MapData, Record>>,
    mask: Arc<ArgumentMask>,
    arguments: Arc<Arguments>,
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origins").finish_non_exhaustive()
    }
}

impl Origins {
    pub(crate) fn new(map: SkStorage<MapData, Record>, mask: Arc<ArgumentMask>, arguments: Arc<Arguments>) -> Self {
        Self { map: Arc::new(map), mask, arguments }
    }

    /// The origin of a socket that was accepted from one of [`Listeners`](crate::Listeners). It stays with the socket:
    /// the hooks moved it there at the end of the handshake, by the full tuple and the network namespace's cookie, so
    /// no address that is used again can be taken for this connection's.
    ///
    /// One system call, and a few reads of `/proc` for the process, which waits for nothing. Its arguments are those that
    /// its command was executed with, if that was read of late.
    pub fn of(&self, socket: impl AsFd) -> Result<Origin, OriginError> {
        Ok(self.look_up(socket)?.0)
    }

    /// As [`of`](Self::of), with the arguments of other processes, too, as `/proc` tells them: unless the process lets the
    /// reader wait, which is waited for some milliseconds.
    pub async fn described(&self, socket: impl AsFd) -> Result<Origin, OriginError> {
        let (mut origin, unread) = self.look_up(socket)?;
        if let Some(folder) = unread {
            let argv = masked(&self.arguments.read(folder).await, &self.mask);
            if let Some(command) = origin.process.command.filter(|_| !argv.is_empty()) {
                self.arguments.keep(command, argv.clone());
            }
            origin.process.argv = argv;
        }
        Ok(origin)
    }

    /// … and the process's folder, if its arguments are to be read from there.
    fn look_up(&self, socket: impl AsFd) -> Result<(Origin, Option<OwnedFd>), OriginError> {
        match self.map.get(&socket.as_fd().as_raw_fd(), 0) {
            Ok(Record(record)) => Ok(self.origin(&record)),
            Err(MapError::KeyNotFound) => Err(OriginError::Unknown),
            Err(error) => Err(OriginError::Lookup(error)),
        }
    }

    fn origin(&self, record: &OriginRecord) -> (Origin, Option<OwnedFd>) {
        let command = (record.command != NO_COMMAND).then(|| CommandId::from_bytes(record.command));
        let folder = folder(record.pid, record.connected_ns);
        let exe = folder.as_ref().map(exe).unwrap_or_default();
        let kept = command.and_then(|command| self.arguments.of(command));
        let unread = if kept.is_none() { folder } else { None };
        let argv = kept.unwrap_or_default();
        let origin = Origin {
            destination: OriginalDst(address(&record.original)),
            peer: address(&record.source),
            cgroup: CgroupId(record.cgroup),
            enrolled: CgroupId(record.enrolled),
            netns: NetnsCookie(record.netns),
            socket: SocketCookie(record.socket),
            process: ProcessFacts { pid: record.pid, uid: record.uid, exe, argv, command },
        };
        (origin, unread)
    }
}

/// v4-mapped addresses become IPv4: which family the agent's socket was of makes no difference to where it wanted to go.
fn address(endpoint: &Endpoint) -> SocketAddr {
    let words = endpoint.address;
    if words[0] == 0 && words[1] == 0 && words[2] == V4_MAPPED {
        return SocketAddrV4::new(Ipv4Addr::from(words[3].to_ne_bytes()), endpoint.port).into();
    }
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddrV6::new(Ipv6Addr::from(bytes), endpoint.port, 0, 0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_addresses() {
        let v4 = Endpoint::v4(u32::from_ne_bytes([52, 94, 133, 131]), 443);
        assert_eq!(address(&v4).to_string(), "52.94.133.131:443");
        let bytes = "fd00:ec2::254".parse::<Ipv6Addr>().unwrap().octets();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let v6 = Endpoint::v6([word(0), word(4), word(8), word(12)], 80);
        assert_eq!(address(&v6).to_string(), "[fd00:ec2::254]:80");
    }
}
