"""In a network namespace that has nothing but its loopback: what becomes of connections that aren't to AWS's names."""

import ctypes
import http.server
import socket
import subprocess
import threading

NEW_NETWORK = 0x40000000
assert ctypes.CDLL(None).unshare(NEW_NETWORK) == 0
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def ask(address):
    try:
        with socket.create_connection((address, 80), timeout=30) as stream:
            stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := stream.recv(4096):
                answer += piece
    except ConnectionResetError:
        answer = b""
    return answer.decode().rpartition("\r\n\r\n")[2] or "refused"


class Own(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"its own")

    def log_message(self, *_):
        pass


print("no route:", ask("192.0.2.1"))
print("nobody there:", ask("127.0.0.1"))
server = http.server.HTTPServer(("127.0.0.1", 80), Own)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("somebody there:", ask("127.0.0.1"))
