"""An enterprise's HTTP proxy: `http_proxy.py ADDRESS:PORT LOG`, until stdin ends. It wants `me:secret`, and writes each
request's first line into LOG."""

import base64
import socket
import socketserver
import sys
import threading

HOST, PORT = sys.argv[1].split(":")
LOG = open(sys.argv[2], "a", buffering=1)
WANTED = "basic " + base64.b64encode(b"me:secret").decode()


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(1)
            if not data:
                return
            head += data
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if fields.get("proxy-authorization", "").lower() != WANTED.lower():
            LOG.write(f"407 {lines[0]}\n")
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        LOG.write(lines[0] + "\n")
        method, target, _ = lines[0].split(" ")
        if method == "CONNECT":
            host, port = target.rsplit(":", 1)
            other = socket.create_connection((host, int(port)))
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            host, _, path = target.removeprefix("http://").partition("/")
            other = socket.create_connection((host, 80))
            kept = [line for line in lines[1:] if not line.lower().startswith("proxy-")]
            other.sendall("\r\n".join([f"{method} /{path} HTTP/1.1", *kept]).encode("latin-1"))
        back = threading.Thread(target=pump, args=(other, self.request))
        back.start()
        pump(self.request, other)
        back.join()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Server((HOST, int(PORT)), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
