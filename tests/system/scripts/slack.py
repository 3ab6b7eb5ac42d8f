"""Plays a workspace of Slack's: slack.py HTTP_PORT SOCKET_PORT

Its methods are at http://127.0.0.1:HTTP_PORT/api/METHOD, its Socket Mode at ws://127.0.0.1:SOCKET_PORT/link. It is told what to
do line by line, each a JSON array: a name and its arguments; it answers with one JSON line each.
"""

import hashlib
import hmac
import http.server
import json
import queue
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from websockets.sync.server import serve

http_port, socket_port = int(sys.argv[1]), int(sys.argv[2])
calls, lock, revoked = [], threading.Lock(), threading.Event()
connections, heard = queue.Queue(), queue.Queue()


class Methods(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method = self.path.removeprefix("/api/")
        wanted = "Bearer xapp-1" if method == "apps.connections.open" else "Bearer xoxb-1"
        if revoked.is_set() or self.headers["authorization"] != wanted:
            answer = {"ok": False, "error": "token_revoked"}
        else:
            with lock:
                calls.append([method, body])
                number = len(calls)
            answer = {"ok": True, "channel": "C1", "ts": f"{number}.0", "url": f"ws://127.0.0.1:{socket_port}/link?ticket=1"}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def link(connection):
    connection.send(json.dumps({"type": "hello"}))
    connections.put(connection)
    for message in connection:
        heard.put(json.loads(message))


last = None


def post(url, ca, payload, secret, age):
    """Posts what somebody pressed, signed so many seconds ago."""
    global last
    moment = str(int(time.time()) - age)
    body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
    digest = hmac.new(secret.encode(), f"v0:{moment}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": moment,
        "x-slack-signature": f"v0={digest}",
    }
    last = (url, ca, body, headers)
    return again()


def again():
    """Posts the very same once more."""
    url, ca, body, headers = last
    context = ssl.create_default_context(cafile=ca)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        answer = opener.open(urllib.request.Request(url, body, headers, method="POST"))
    except urllib.error.HTTPError as error:
        answer = error
    return [answer.status, answer.read().decode()]


def press(payload, envelope):
    """Sends it over the socket, and gives what is heard."""
    connection = connections.get(timeout=60)
    connections.put(connection)
    connection.send(json.dumps({"type": "interactive", "envelope_id": envelope, "payload": payload}))
    return heard.get(timeout=60)


def drop():
    """Takes the token back, and ends the connection."""
    revoked.set()
    connections.get(timeout=60).close()


def called():
    with lock:
        return list(calls)


acts = {"again": again, "calls": called, "drop": drop, "post": post, "press": press}
methods = http.server.ThreadingHTTPServer(("127.0.0.1", http_port), Methods)
methods.daemon_threads = True
threading.Thread(target=methods.serve_forever, daemon=True).start()
sockets = serve(link, "127.0.0.1", socket_port)
threading.Thread(target=sockets.serve_forever, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    name, *rest = json.loads(line)
    print(json.dumps(acts[name](*rest)), flush=True)
