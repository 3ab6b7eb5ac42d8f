"""An agent that goes on dialling outside, by every transport, whatever it is told.

Appends what each round was told to the given file, a line a round. The second argument is the pause after one, in
seconds.
"""

import errno
import socket
import sys
import time

TARGETS = [(socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8:2::7")]


def attempt(act):
    try:
        act()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)


def connect(family, to):
    with socket.socket(family, socket.SOCK_STREAM) as tcp:
        tcp.settimeout(1)
        tcp.connect(to)


def send(family, to):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", to)


def main():
    with open(sys.argv[1], "a", buffering=1) as out:
        while True:
            said = []
            for family, address in TARGETS:
                for port in (443, 80, 8443):
                    said.append(attempt(lambda: connect(family, (address, port))))
                said.append(attempt(lambda: send(family, (address, 443))))
            out.write(" ".join(said) + "\n")
            time.sleep(float(sys.argv[2]))


main()
