//! The maps. Most are pinned by the daemon, also those of connections, which may wait for the next one (hooks.rs has the
//! list); `HELD_EVENTS` and `PATH` live as long as the attached programs. Without a listener, everything is refused.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash, lpm_trie::Key},
    cty::c_void,
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_get},
    macros::btf_map,
    programs::{SockAddrContext, SockOpsContext},
};
use chaperone_ebpf_abi::{
    CgroupNamed, Command, Counter, Endpoint, Home, ListenerKey, MAX_ENROLLED, MAX_PROXIES, MAX_RULE_STATES, MAX_UNREAD_COMMANDS, OriginRecord, RuleState,
    Stamp, Told, Tuple,
};

use crate::connect;

/// Cgroup id → `ENROLLED`, that and `HELD`, or `EXEMPT`.
#[btf_map]
pub static ENROLLED: HashMap<u64, u32, MAX_ENROLLED> = HashMap::new();

/// At 0: the first cgroup that a rule names and that there was no room for in `ENROLLED`, nor an enrolled one above it; 0 if
/// there is none. Ids only grow, so that every cgroup from this one on may be an agent's.
#[btf_map]
pub static UNENROLLED: Array<u64, 1> = Array::new();

/// The automaton that tells by its path whether a cgroup that appears is to be enrolled. Kept while there is no daemon, so
/// that what appears meanwhile is refused.
#[btf_map]
pub static RULES: Array<RuleState, MAX_RULE_STATES> = Array::new();

/// At 0: the state that it starts in.
#[btf_map]
pub static RULES_START: Array<u32, 1> = Array::new();

/// The ids of cgroups that appeared and are held, for the daemon to find out whose they are. What doesn't fit stays held
/// until the daemon looks through `ENROLLED`.
#[btf_map]
pub static HELD_EVENTS: RingBuf<u64, 65536> = RingBuf::new();

/// At 0: the cgroup that is looked at, with its path, which the stack has no room for.
#[btf_map]
pub static PATH: PerCpuArray<CgroupNamed, 1> = PerCpuArray::new();

/// The users whose processes are agents' wherever they are: outside of enrolled cgroups they get nowhere. By the bits of
/// their ids, the highest first, since a user's subordinate ids are tens of thousands.
#[btf_map]
pub static BOUND_IDS: LpmTrie<[u8; 4], u32, 16384> = LpmTrie::new();

/// Proxies that agents dial: their connections there don't get by without the daemon, either.
#[btf_map]
pub static PROXIES: HashMap<Endpoint, u32, MAX_PROXIES> = HashMap::new();

/// At 0: not 0 if there is any, so that where there is none a packet costs no look-up.
#[btf_map]
pub static ANY_PROXY: Array<u32, 1> = Array::new();

/// The daemon's listening sockets. A socket map, because an entry goes by itself when its socket is closed: after the
/// daemon's death there is no listener, rather than a port that anybody may bind and be sent the agents' connections.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, 8192> = SockHash::new();

/// At 0: where the daemon lives.
#[btf_map]
pub static HOME: Array<Home, 1> = Array::new();

/// On an agent's socket: what is known of the connection. Goes with the socket.
#[btf_map]
pub static DIALLED: SkStorage<OriginRecord> = SkStorage::new();

/// From the SYN to the end of the handshake, the only time when two sockets have nothing but the tuple in common. An
/// entry goes when the handshake is over, or with the agent's socket; and before that, when it is the oldest one and there
/// is no room: handshakes that one agent doesn't let end keep nobody else out.
#[btf_map]
pub static PENDING: LruHashMap<Tuple, OriginRecord, 65536> = LruHashMap::new();

/// On a socket that the daemon accepts: its origin. Goes with the socket.
#[btf_map]
pub static ORIGINS: SkStorage<OriginRecord> = SkStorage::new();

/// On a socket of an agent's: whose it is. Goes with the socket.
#[btf_map]
pub static STAMPS: SkStorage<Stamp> = SkStorage::new();

/// Process id → the command that it is in the middle of, for processes that are agents'. An entry goes with its process.
#[btf_map]
pub static COMMANDS: HashMap<u32, Command, 65536> = HashMap::new();

/// Commands' beginnings and ends, and the paths of the cgroups that they are in, for the daemon to record. Kept while there
/// is none.
#[btf_map]
pub static COMMAND_EVENTS: RingBuf<u8, 4194304> = RingBuf::new();

/// Enrolled cgroup → how many bytes of `COMMAND_EVENTS` were written for it, ever. What is neither here nor in
/// `COMMANDS_READ` counts as 0. An entry goes with its cgroup.
#[btf_map]
pub static COMMANDS_WRITTEN: HashMap<u64, u64, MAX_ENROLLED> = HashMap::new();

/// Enrolled cgroup → how many of these bytes the daemon has read. It alone writes here, and the hooks alone there.
#[btf_map]
pub static COMMANDS_READ: HashMap<u64, u64, MAX_ENROLLED> = HashMap::new();

/// When the daemon was last told of a process that connects where it has no listener, in nanoseconds since boot: nobody
/// keeps commands out of `COMMAND_EVENTS` by connecting again and again.
#[btf_map]
pub static TOLD: LruHashMap<Told, u64, 4096> = LruHashMap::new();

/// At 0: how many of the commands that were lost are recorded as such. The daemon's own, for the next one.
#[btf_map]
pub static COMMANDS_LOST: Array<u64, 1> = Array::new();

/// How often what happened, by [`Counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, 16> = PerCpuArray::new();

/// Takes so many bytes of `COMMAND_EVENTS` from an enrolled cgroup's share; false if it has none left, so that no agent
/// keeps the commands of others out of the record. 0 is nobody's.
#[inline(always)]
pub fn take_share(enrolled: u64, bytes: u64) -> bool {
    if enrolled == 0 {
        return true;
    }
    // SAFETY: read at once.
    let read = unsafe { COMMANDS_READ.get(enrolled) }.copied().unwrap_or(0);
    match COMMANDS_WRITTEN.get_ptr_mut(enrolled) {
        // SAFETY: the map's value, which hooks on another processor may be adding to: then a record isn't counted, and the
        // share is larger by that.
        Some(written) => unsafe {
            if (*written).saturating_sub(read) + bytes > MAX_UNREAD_COMMANDS {
                return false;
            }
            *written += bytes;
        },
        None => {
            let _ = COMMANDS_WRITTEN.insert(enrolled, read + bytes, 0);
        }
    }
    true
}

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU slot; programs of these types run with preemption or migration disabled, so the worst that
        // a nested run (softirq) does to a plain add is to lose one count.
        unsafe { *value += 1 }
    }
}

/// `TCP_LISTEN`.
const LISTENING: u32 = 10;

/// The port (host order) of the daemon's listener; 0 if it has none there, or if whoever owns the namespace destroyed it: the
/// socket is in the map until the daemon closes it, and the port anybody's. A number, because of an `Option` the compiler
/// compares what isn't there, too, and the verifier objects to what it finds in that register.
#[inline(always)]
pub fn listener_port(key: &ListenerKey) -> u16 {
    // SAFETY: a lookup in a socket map gives null or a referenced socket, which is released below on the only path.
    unsafe {
        let socket: *mut bpf_sock =
            bpf_map_lookup_elem(core::ptr::from_ref(&LISTENERS).cast_mut().cast(), core::ptr::from_ref(key).cast())
                .cast();
        if socket.is_null() {
            return 0;
        }
        let port = core::ptr::read_volatile(&raw const (*socket).src_port);
        let state = core::ptr::read_volatile(&raw const (*socket).state);
        bpf_sk_release(socket.cast());
        if state == LISTENING { port as u16 } else { 0 }
    }
}

/// Whether this user's processes are agents' wherever they are.
#[inline(always)]
pub fn is_bound(user: u32) -> bool {
    BOUND_IDS.get(&Key::new(32, user.to_be_bytes())).is_some()
}

/// Whether a proxy is there that agents dial.
#[inline(always)]
pub fn is_proxy(target: &Endpoint) -> bool {
    // SAFETY: the value isn't read.
    ANY_PROXY.get(0).is_some_and(|any| *any != 0) && unsafe { PROXIES.get(*target) }.is_some()
}

/// Keeps the record with the agent's socket, over one of an earlier connection.
#[inline(always)]
pub fn keep(ctx: &SockAddrContext, record: &mut OriginRecord) -> Result<(), ()> {
    // SAFETY: the context's socket is never null in these hooks; the helper gives null or the socket's own slot.
    unsafe {
        let slot = DIALLED.get_or_insert_ptr_mut(ctx, Some(record));
        if slot.is_null() {
            return Err(());
        }
        // The helper leaves what is there: a socket that was disconnected and dials again.
        *slot = *record;
    }
    Ok(())
}

/// The record that is kept with the agent's socket.
#[inline(always)]
pub fn kept<'a>(ctx: &SockAddrContext) -> Option<&'a OriginRecord> {
    // SAFETY: null or the socket's slot, which outlives the program's run.
    unsafe { DIALLED.get_ptr_mut(ctx).cast_const().as_ref() }
}

/// Marks a socket as an agent's, unless it is one's already.
///
/// # Safety
///
/// `socket` must be a pointer that the verifier knows to be a socket, and not null.
#[inline(always)]
pub unsafe fn stamp(socket: *mut c_void, stamp: &mut Stamp) -> Result<(), ()> {
    let create = u64::from(aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as the caller says.
    if unsafe { of_socket(&STAMPS, socket, stamp, create) }.is_null() { Err(()) } else { Ok(()) }
}

/// Whose the socket is.
#[inline(always)]
pub fn stamp_of<'a>(ctx: &SockAddrContext) -> Option<&'a Stamp> {
    // SAFETY: null or the socket's slot, which outlives the program's run.
    unsafe { STAMPS.get_ptr_mut(ctx).cast_const().as_ref() }
}

/// Whose the socket is.
///
/// # Safety
///
/// As for [`stamp`].
#[inline(always)]
pub unsafe fn stamp_on(socket: *mut c_void) -> Option<&'static Stamp> {
    // SAFETY: as the caller says; null or the socket's slot.
    unsafe { of_socket(&STAMPS, socket, core::ptr::null_mut(), 0).cast_const().as_ref() }
}

/// Whether a socket's connection was pointed at the daemon, and still goes there.
#[inline(always)]
pub fn is_redirected(socket: *mut bpf_sock, remote: &Endpoint) -> bool {
    // SAFETY: the caller checked that it isn't null; null or the socket's slot.
    let record = unsafe { of_socket(&DIALLED, socket.cast(), core::ptr::null_mut(), 0).as_ref() };
    record.is_some_and(|record| connect::same(&record.listener, remote))
}

/// What is known of a socket's connection.
///
/// # Safety
///
/// As for [`stamp`].
#[inline(always)]
pub unsafe fn dialled_on(socket: *mut bpf_sock) -> Option<&'static OriginRecord> {
    // SAFETY: as the caller says; null or the socket's slot.
    unsafe { of_socket(&DIALLED, socket.cast(), core::ptr::null_mut(), 0).cast_const().as_ref() }
}

#[inline(always)]
unsafe fn of_socket<T>(map: &'static SkStorage<T>, socket: *mut c_void, value: *mut T, flags: u64) -> *mut T {
    // SAFETY: the caller passes a socket pointer that the verifier knows not to be null.
    unsafe { bpf_sk_storage_get(core::ptr::from_ref(map).cast_mut().cast(), socket, value.cast(), flags).cast() }
}

/// The record kept with the agent's socket, in `sock_ops`.
#[inline(always)]
pub fn dialled(ctx: &SockOpsContext) -> Option<&'static mut OriginRecord> {
    // SAFETY: null is checked before the helper sees it; the slot lives as long as the socket, which is locked.
    unsafe {
        let socket = (*ctx.ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        of_socket(&DIALLED, socket.cast(), core::ptr::null_mut(), 0).as_mut()
    }
}

/// Gives the accepted socket its origin.
#[inline(always)]
pub fn give_origin(ctx: &SockOpsContext, record: &mut OriginRecord) -> Result<(), ()> {
    // SAFETY: as in `dialled`.
    unsafe {
        let socket = (*ctx.ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return Err(());
        }
        let slot =
            of_socket(&ORIGINS, socket.cast(), record, u64::from(aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE));
        if slot.is_null() { Err(()) } else { Ok(()) }
    }
}

/// The cookie of the context's network namespace.
#[inline(always)]
pub fn netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this context.
    unsafe { aya_ebpf::helpers::generated::bpf_get_netns_cookie(ctx.as_ptr()) }
}
