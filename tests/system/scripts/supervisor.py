"""A service manager for the daemon that keeps its descriptors, as systemd does (sd_notify(3), sd_listen_fds(3)).

Takes a word a line, and answers each with a line:
  start      starts the daemon, with what is kept: "ready PID", or "failed" if it ends before it is ready
  term, kill ends it by that signal, and keeps what is kept: "ending"
  ended      waits for its end: "ended"
  discard    closes what is kept, as systemd does with a unit that is stopped: "discarded"
  kept       the names of what is kept, sorted
"""

import json
import os
import signal
import socket
import sys
import threading

LAB = os.environ["CHAPERONE_LAB"]
CGROUP = json.load(open(f"{LAB}/lab.json"))["cgroup"]
FIRST = 3


class Supervisor:
    def __init__(self):
        self.kept = []
        self.daemon = None
        path = f"{LAB}/supervisor.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.path = path
        self.changed = threading.Condition()
        self.ready = False
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            text, fds, _, _ = socket.recv_fds(self.socket, 4096, 253)
            words = text.decode().splitlines()
            fields = dict(word.split("=", 1) for word in words)
            with self.changed:
                if fields.get("FDSTOREREMOVE") == "1":
                    for name, fd in self.kept:
                        if name == fields["FDNAME"]:
                            os.close(fd)
                    self.kept = [(name, fd) for name, fd in self.kept if name != fields["FDNAME"]]
                if fields.get("FDSTORE") == "1":
                    self.kept += [(fields.get("FDNAME", "stored"), fd) for fd in fds]
                self.ready |= fields.get("READY") == "1"
                self.changed.notify_all()

    def begin(self):
        fds = [fd for _, fd in self.kept]
        names = ":".join(name for name, _ in self.kept)

        def child():
            with open(f"{CGROUP}/daemon/cgroup.procs", "w") as procs:
                procs.write("0")
            # Out of the way first: a number may be both.
            high = [os.dup2(fd, 200 + index) for index, fd in enumerate(fds)]
            for index, fd in enumerate(high):
                os.dup2(fd, FIRST + index)
            if fds:
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
            program = os.environ["CHAPERONE_PROGRAM"]
            os.execv(program, [program, "daemon", "--config", f"{LAB}/config.toml"])

        log = open(f"{LAB}/daemon.log", "a")
        pid = os.fork()
        if pid == 0:
            try:
                os.environ.update(
                    NOTIFY_SOCKET=self.path, AWS_SHARED_CREDENTIALS_FILE=f"{LAB}/secrets/credentials"
                )
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                child()
            finally:
                os._exit(127)
        log.close()
        self.daemon = pid
        with open(f"{LAB}/daemon.pid", "w") as file:
            file.write(str(pid))
        threading.Thread(target=self.reap, args=(pid,), daemon=True).start()

    def reap(self, pid):
        os.waitpid(pid, 0)
        with self.changed:
            self.daemon = None
            self.changed.notify_all()

    def start(self):
        with self.changed:
            self.ready = False
            self.begin()
            self.changed.wait_for(lambda: self.ready or self.daemon is None, 90)
            return f"ready {self.daemon}" if self.ready and self.daemon else "failed"

    def ended(self):
        with self.changed:
            self.changed.wait_for(lambda: self.daemon is None, 90)
            return "ended" if self.daemon is None else "still there"

    def discard(self):
        with self.changed:
            for _, fd in self.kept:
                os.close(fd)
            self.kept = []
            return "discarded"

    def answer(self, word):
        match word:
            case "start":
                return self.start()
            case "term" | "kill":
                os.kill(self.daemon, signal.SIGTERM if word == "term" else signal.SIGKILL)
                return "ending"
            case "ended":
                return self.ended()
            case "discard":
                return self.discard()
            case "kept":
                with self.changed:
                    return " ".join(sorted(name for name, _ in self.kept))


def main():
    supervisor = Supervisor()
    for line in sys.stdin:
        print(supervisor.answer(line.strip()), flush=True)


main()
