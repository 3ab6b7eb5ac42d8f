//! Where fields lie in the structs of the kernel that runs, by its BTF (Documentation/bpf/btf.rst). The hooks are Rust,
//! whose compiler makes no relocations for that.

use std::{collections::HashMap, fs};

use chaperone_ebpf_abi::Offsets;

use crate::CaptureError;

/// For the hooks.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct KernelOffsets(#[allow(dead_code)] Offsets); // read by the hooks

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for KernelOffsets {}

impl KernelOffsets {
    /// Of the kernel that runs.
    pub(crate) fn read() -> Result<Self, CaptureError> {
        const BTF: &str = "/sys/kernel/btf/vmlinux";
        let bytes = fs::read(BTF).map_err(CaptureError::system(format!("reading {BTF}")))?;
        let of = |of: &str, field: &str| CaptureError::Load {
            reason: format!("{BTF} has no field `{field}` of a `struct {of}`: this kernel is newer than this version"),
        };
        let structs = Structs::parse(&bytes).ok_or_else(|| CaptureError::Load {
            reason: format!("{BTF} can't be read: this kernel is newer than this version"),
        })?;
        let get = |name, field| structs.offset(name, field).ok_or_else(|| of(name, field));
        Ok(Self(Offsets {
            task_struct_pid: get("task_struct", "pid")?,
            task_struct_tgid: get("task_struct", "tgid")?,
            task_struct_real_parent: get("task_struct", "real_parent")?,
            task_struct_exit_code: get("task_struct", "exit_code")?,
            task_struct_signal: get("task_struct", "signal")?,
            task_struct_mm: get("task_struct", "mm")?,
            task_struct_self_exec_id: get("task_struct", "self_exec_id")?,
            signal_struct_live: get("signal_struct", "live")?,
            mm_struct_arg_start: get("mm_struct", "arg_start")?,
            mm_struct_arg_end: get("mm_struct", "arg_end")?,
            linux_binprm_filename: get("linux_binprm", "filename")?,
            linux_binprm_file: get("linux_binprm", "file")?,
            file_f_inode: get("file", "f_inode")?,
            inode_i_ino: get("inode", "i_ino")?,
            inode_i_sb: get("inode", "i_sb")?,
            super_block_s_dev: get("super_block", "s_dev")?,
            cgroup_kn: get("cgroup", "kn")?,
            cgroup_self: get("cgroup", "self")?,
            cgroup_subsys_state_parent: get("cgroup_subsys_state", "parent")?,
            cgroup_root: get("cgroup", "root")?,
            cgroup_root_hierarchy_id: get("cgroup_root", "hierarchy_id")?,
            kernfs_node_id: get("kernfs_node", "id")?,
            task_struct_nsproxy: get("task_struct", "nsproxy")?,
            nsproxy_net_ns: get("nsproxy", "net_ns")?,
            net_user_ns: get("net", "user_ns")?,
            user_namespace_level: get("user_namespace", "level")?,
        }))
    }
}

const STRUCTS: [&str; 14] = [
    "task_struct",
    "signal_struct",
    "mm_struct",
    "linux_binprm",
    "file",
    "inode",
    "super_block",
    "cgroup",
    "cgroup_root",
    "cgroup_subsys_state",
    "kernfs_node",
    "nsproxy",
    "net",
    "user_namespace",
];

#[derive(Clone, Copy)]
struct Member<'a> {
    name: &'a [u8],
    kind: u32,
    /// In bits.
    offset: u32,
}

struct Structs<'a> {
    /// By the number of the type.
    composites: HashMap<u32, Vec<Member<'a>>>,
    named: Vec<(&'a [u8], u32)>,
}

impl<'a> Structs<'a> {
    fn parse(btf: &'a [u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let head = word(btf, 4)? as usize;
        let part = |offset: usize| {
            let (from, length) = (word(btf, offset)? as usize, word(btf, offset + 4)? as usize);
            btf.get(head.checked_add(from)?..)?.get(..length)
        };
        let (types, strings) = (part(8)?, part(16)?);
        let text = |offset: u32| {
            let rest = strings.get(offset as usize..)?;
            rest.split(|byte| *byte == 0).next()
        };
        let mut found = Self { composites: HashMap::new(), named: Vec::new() };
        let (mut at, mut number) = (0, 1);
        while at < types.len() {
            let (name, info) = (word(types, at)?, word(types, at + 4)?);
            let (count, kind) = (info & 0xffff, info >> 24 & 0x1f);
            let has_bitfields = info >> 31 == 1;
            at += 12;
            if matches!(kind, STRUCT | UNION) {
                let name = text(name)?;
                if name.is_empty() || STRUCTS.iter().any(|wanted| wanted.as_bytes() == name) {
                    let member = |index: u32| {
                        let at = at + index as usize * 12;
                        let offset = word(types, at + 8)?;
                        Some(Member {
                            name: text(word(types, at)?)?,
                            kind: word(types, at + 4)?,
                            offset: if has_bitfields { offset & 0x00ff_ffff } else { offset },
                        })
                    };
                    found.composites.insert(number, (0..count).map(member).collect::<Option<_>>()?);
                    if kind == STRUCT && !name.is_empty() {
                        found.named.push((name, number));
                    }
                }
            }
            at += extra(kind, count)?;
            number += 1;
        }
        Some(found)
    }

    /// In bytes.
    fn offset(&self, of: &str, field: &str) -> Option<u32> {
        let mut structs = self.named.iter().filter(|(name, _)| *name == of.as_bytes());
        structs.find_map(|(_, number)| self.within(*number, field, 8)).filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
    }

    /// In bits; the members of nameless members are those of the struct itself.
    fn within(&self, number: u32, field: &str, depth: u32) -> Option<u32> {
        self.composites.get(&number)?.iter().find_map(|member| {
            if member.name == field.as_bytes() {
                return Some(member.offset);
            }
            if !member.name.is_empty() || depth == 0 {
                return None;
            }
            Some(member.offset + self.within(member.kind, field, depth - 1)?)
        })
    }
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// How many bytes follow a type of that kind; `None` for kinds that came later.
fn extra(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        STRUCT | UNION | 15 | 19 => count * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct file { union { struct { int a; long f_inode; }; int b; }; };`
    fn sample() -> Vec<u8> {
        let strings = b"\0file\0f_inode\0a\0";
        let composite = |name: u32, kind: u32, members: &[[u32; 3]]| {
            let head = [name, kind << 24 | u32::try_from(members.len()).unwrap(), 16];
            [head.as_slice(), &members.concat()].concat()
        };
        let types = [
            vec![0, 1 << 24, 4, 32],
            composite(0, STRUCT, &[[14, 1, 0], [6, 1, 64]]),
            composite(0, UNION, &[[0, 2, 0], [14, 1, 0]]),
            composite(1, STRUCT, &[[0, 3, 128]]),
        ]
        .concat();
        let length = u32::try_from(types.len() * 4).unwrap();
        let head = [24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        btf.extend(head.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
        btf.extend(strings);
        btf
    }

    #[test]
    fn fields_of_nameless_members_are_found() {
        let btf = sample();
        let structs = Structs::parse(&btf).unwrap();
        assert_eq!(structs.offset("file", "f_inode"), Some(24));
        assert_eq!(structs.offset("file", "a"), Some(16));
        assert_eq!(structs.offset("file", "b"), None);
        assert_eq!(structs.offset("inode", "a"), None);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_refused() {
        let btf = sample();
        for length in 0..btf.len() {
            let _ = Structs::parse(&btf[..length]);
        }
        assert!(Structs::parse(&btf[..60]).is_none());
        let mut newer = btf;
        newer[24 + 7] = 31;
        assert!(Structs::parse(&newer).is_none());
    }

    #[test]
    fn this_kernels_fields_are_there() {
        KernelOffsets::read().unwrap();
    }
}
