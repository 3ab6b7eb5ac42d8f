"""A server of the agents' own network: `own_server.py ADDRESS DIR`, HTTP on port 80, HTTPS on 443 and 8443, until stdin ends.

Its certificate is for `own.internal`, whatever it is asked for. It answers every request by the host that it was for.
"""

import http.server
import ssl
import subprocess
import sys
import threading

ADDRESS, DIR = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"own network: {self.headers['Host']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # who greets and goes away


subprocess.run(
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=own.internal"
    f" -addext subjectAltName=DNS:own.internal -keyout {DIR}/own.key -out {DIR}/own.crt",
    shell=True,
    check=True,
    capture_output=True,
)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(f"{DIR}/own.crt", f"{DIR}/own.key")
for port in 80, 443, 8443:
    server = Server((ADDRESS, port), Handler)
    if port != 80:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
