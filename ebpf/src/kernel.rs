//! Reading the kernel's own structs. Where their fields lie, the daemon knows by BTF.

use chaperone_ebpf_abi::Offsets;

/// Set by the daemon when it loads the hooks.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    task_struct_pid: 0,
    task_struct_tgid: 0,
    task_struct_real_parent: 0,
    task_struct_exit_code: 0,
    task_struct_signal: 0,
    task_struct_mm: 0,
    task_struct_self_exec_id: 0,
    signal_struct_live: 0,
    mm_struct_arg_start: 0,
    mm_struct_arg_end: 0,
    linux_binprm_filename: 0,
    linux_binprm_file: 0,
    file_f_inode: 0,
    inode_i_ino: 0,
    inode_i_sb: 0,
    super_block_s_dev: 0,
    cgroup_kn: 0,
    cgroup_self: 0,
    cgroup_subsys_state_parent: 0,
    cgroup_root: 0,
    cgroup_root_hierarchy_id: 0,
    kernfs_node_id: 0,
    task_struct_nsproxy: 0,
    nsproxy_net_ns: 0,
    net_user_ns: 0,
    user_namespace_level: 0,
};

/// Reads a field of a kernel struct: `field!(pointer, task_struct_pid as u32)`; 0 where it can't be read.
macro_rules! field {
    ($of:expr, $offset:ident as $type:ty) => {{
        let of: u64 = $of;
        let mut value: $type = 0;
        // SAFETY: the helper reads from any address or fails, and writes the size of a local. The offset is read as it
        // is at run time, and not as it is compiled in.
        unsafe {
            let at = of + u64::from(core::ptr::read_volatile(&raw const $crate::kernel::OFFSETS.$offset));
            aya_ebpf::helpers::generated::bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<$type>() as u32,
                at as *const _,
            );
        }
        value
    }};
}

/// Where a field lies in its struct, in bytes: `offset!(cgroup_self)`.
macro_rules! offset {
    ($offset:ident) => {
        // SAFETY: a word of our own, read as it is at run time, and not as it is compiled in.
        u64::from(unsafe { core::ptr::read_volatile(&raw const $crate::kernel::OFFSETS.$offset) })
    };
}

pub(crate) use {field, offset};
