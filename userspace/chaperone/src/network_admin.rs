//! Agents' processes that may change their network: with rules of a firewall of their own, a connection to a port that isn't
//! captured goes to one that is, past the hooks.

use std::{fs, path::Path};

/// Bit of `CAP_NET_ADMIN` in a set of capabilities (linux/capability.h).
const NET_ADMIN: u32 = 12;

/// A process of those in this cgroup that has `CAP_NET_ADMIN`, in a network namespace that something can leave.
pub fn in_cgroup(folder: &Path) -> Option<u32> {
    let list = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
    list.lines().filter_map(|line| line.parse().ok()).find(|pid| is_admin(*pid))
}

/// Processes come and go: one that is gone is no admin.
fn is_admin(pid: u32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    has_net_admin(&read("status")) && (has_route(&read("net/route")) || has_route_v6(&read("net/ipv6_route")))
}

/// In force, or to be had by the process's own will.
fn has_net_admin(status: &str) -> bool {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(0)
    };
    (set("CapEff") | set("CapPrm")) >> NET_ADMIN & 1 == 1
}

/// A route by something else than the loopback (proc(5), `/proc/net/route`: a line of heads, then a device a line).
fn has_route(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty() && !line.starts_with("lo\t"))
}

/// The same for IPv6, where the device is last. A link-local network (fe80::/10) leads nowhere.
fn has_route_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let local = ["fe80", "ff00"].iter().any(|prefix| line.starts_with(prefix));
        !local && line.split_whitespace().last().is_some_and(|device| device != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_routes_are_read_as_the_kernel_writes_them() {
        let status = |effective: &str| {
            format!("Name:\tsh\nCapInh:\t0000000000000000\nCapPrm:\t{effective}\nCapEff:\t{effective}\n")
        };
        assert!(has_net_admin(&status("000001ffffffffff")));
        assert!(has_net_admin(&status("00000000a80435fb")));
        // Docker's own set, without it.
        assert!(!has_net_admin(&status("00000000a80425fb")));
        assert!(!has_net_admin(""));
        let heads = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        assert!(!has_route(heads));
        assert!(has_route(&format!("{heads}eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")));
        let v6 = |net: &str, device: &str| {
            let zero = "00000000000000000000000000000000";
            format!("{net} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 {device:>8}\n")
        };
        assert!(!has_route_v6(&v6("fe800000000000000000000000000000", "eth0")));
        assert!(!has_route_v6(&v6("00000000000000000000000000000001", "lo")));
        assert!(has_route_v6(&v6("00000000000000000000000000000000", "eth0")));
    }
}
