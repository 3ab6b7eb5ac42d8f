"""The other side of the lab's only way out: a network namespace behind a veth pair, and a packet capture in it.

Prints "ready", and then appends a line to the given file for each packet that leaves the lab for a guarded port.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
PORTS = {80, 443, 8443}


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def parse(packet):
    """The transport, port and TCP flags of what an IPv4 or IPv6 packet is to."""
    kind = struct.unpack("!H", packet[12:14])[0]
    if kind == 0x0800:
        protocol, begin = packet[23], 14 + (packet[14] & 15) * 4
    elif kind == 0x86DD:
        protocol, begin = packet[20], 54
    else:
        return None
    name = {6: "tcp", 17: "udp"}.get(protocol)
    if name is None:
        return None
    port = struct.unpack("!H", packet[begin + 2 : begin + 4])[0]
    return f"{name}{'6' if kind == 0x86DD else '4'}/{port}" if port in PORTS else None


def capture(path, parent):
    ip("addr", "add", "192.0.2.2/24", "dev", "outside")
    ip("addr", "add", "2001:db8:1::2/64", "dev", "outside", "nodad")
    ip("link", "set", "outside", "up")
    ip("link", "set", "lo", "up")
    # Whatever is asked for out here is here, so that a connection is refused at once and not waited for.
    ip("route", "add", "local", "198.51.100.0/24", "dev", "lo")
    ip("-6", "route", "add", "local", "2001:db8:2::/64", "dev", "lo")
    seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    seen.bind(("outside", ETH_P_ALL))
    os.write(parent, b"x")
    with open(path, "a", buffering=1) as out:
        while True:
            packet, (_, _, direction, *_) = seen.recvfrom(65536)
            to = parse(packet) if direction != socket.PACKET_OUTGOING else None
            if to:
                out.write(f"{to}\n")


def main():
    path = sys.argv[1]
    open(path, "w").close()
    done, tell = os.pipe()
    go, start = os.pipe()
    child = os.fork()
    if child == 0:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        os.write(tell, b"x")
        os.read(go, 1)
        capture(path, tell)
    os.read(done, 1)
    ip("link", "add", "inside", "type", "veth", "peer", "name", "outside")
    ip("link", "set", "outside", "netns", str(child))
    ip("addr", "add", "192.0.2.1/24", "dev", "inside")
    ip("addr", "add", "2001:db8:1::1/64", "dev", "inside", "nodad")
    ip("link", "set", "inside", "up")
    os.write(start, b"x")
    os.read(done, 1)
    ip("route", "add", "default", "via", "192.0.2.2")
    ip("-6", "route", "add", "default", "via", "2001:db8:1::2")
    print("ready", flush=True)
    os.waitpid(child, 0)


main()
