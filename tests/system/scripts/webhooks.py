"""Receives webhooks, and writes down what came: webhooks.py PORT SECRET FILE

/good takes everything, /flaky refuses each message once, /hung never answers, /gone wants no more.
"""

import base64
import hashlib
import hmac
import http.server
import json
import sys
import threading
import time

port, secret, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
key = base64.b64decode(secret.removeprefix("whsec_"))
seen, lock = set(), threading.Lock()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        message, moment = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        digest = hmac.new(key, f"{message}.{moment}.".encode() + body, hashlib.sha256).digest()
        valid = self.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        valid = valid and abs(time.time() - int(moment)) < 300
        said = json.loads(body)
        with lock:
            is_first = (self.path, message) not in seen
            seen.add((self.path, message))
            with open(path, "a") as file:
                line = {"path": self.path, "id": message, "valid": valid, "type": said["type"], "data": said["data"]}
                file.write(json.dumps(line) + "\n")
        if self.path == "/hung":
            threading.Event().wait()
        status = {"/gone": 410}.get(self.path, 500 if self.path == "/flaky" and is_first else 204)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
