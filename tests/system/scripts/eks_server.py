"""EKS and the API servers of its clusters: `eks_server.py ADDRESS LAB`, HTTPS on port 443, until stdin ends.

EKS's own name has a certificate of the lab's CA, a cluster's one of its own authority, as there. A cluster takes only tokens
that are signed by the key in LAB/secrets/key and for its own name, and says whose they are. What each was asked is in
LAB/eks.jsonl. The cluster `broken` shows a certificate that its authority hasn't signed; `elsewhere` is of another account, so
that EKS knows nothing of it.
"""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import subprocess
import sys
import threading
from urllib.parse import parse_qsl, quote, urlsplit

ADDRESS, LAB = sys.argv[1:]
REGION, SUFFIX = "eu-west-1", "eks.amazonaws.com"
KEY, SECRET = open(f"{LAB}/secrets/key").read().split()
CLUSTERS = {"prod": "A" * 32, "other": "B" * 32, "broken": "C" * 32, "elsewhere": "D" * 32}
API = f"eks.{REGION}.amazonaws.com"


def host_of(cluster):
    return f"{CLUSTERS[cluster]}.gr7.{REGION}.{SUFFIX}"


def run(command):
    subprocess.run(command, shell=True, check=True, capture_output=True)


def authority(name):
    run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kubernetes"
        f" -keyout {LAB}/{name}-ca.key -out {LAB}/{name}-ca.crt"
    )
    return f"{LAB}/{name}-ca.crt", f"{LAB}/{name}-ca.key"


def leaf(name, host, issuer):
    run(f"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout {LAB}/{name}.key -out {LAB}/{name}.csr")
    with open(f"{LAB}/{name}.ext", "w") as file:
        file.write(f"subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n")
    run(
        f"openssl x509 -req -in {LAB}/{name}.csr -days 2 -CA {issuer[0]} -CAkey {issuer[1]} -set_serial 0x{hash(name) & 0xFFFFFF | 1:x}"
        f" -extfile {LAB}/{name}.ext -out {LAB}/{name}.crt"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{LAB}/{name}.crt", f"{LAB}/{name}.key")
    return context


def signed(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def whose(token, cluster):
    """The access key id, if the token is a URL that STS would take with this cluster's name."""
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    members = dict(parse_qsl(url.query, strict_parsing=True))
    signature = members.pop("X-Amz-Signature")
    assert url.hostname == f"sts.{REGION}.amazonaws.com" and url.path == "/", url
    assert (members["Action"], members["X-Amz-SignedHeaders"]) == ("GetCallerIdentity", "host;x-k8s-aws-id"), members
    id, day, region, service, _ = members["X-Amz-Credential"].split("/")
    assert (id, service) == (KEY, "sts"), id
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(members.items()))
    empty = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n/\n{query}\nhost:{url.hostname}\nx-k8s-aws-id:{cluster}\n\nhost;x-k8s-aws-id\n{empty}"
    text = f"AWS4-HMAC-SHA256\n{members['X-Amz-Date']}\n{day}/{region}/sts/aws4_request\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    by = f"AWS4{SECRET}".encode()
    for part in [day, region, "sts", "aws4_request"]:
        by = signed(by, part)
    assert signed(by, text).hex() == signature, "signature"
    return id


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        host, field = self.headers["Host"].lower(), self.headers.get("Authorization", "")
        with open(f"{LAB}/eks.jsonl", "a") as file:
            file.write(json.dumps({"host": host, "method": self.command, "path": self.path, "authorization": field}) + "\n")
        if host == API:
            return self.eks(field)
        cluster = next(name for name in CLUSTERS if host_of(name).lower() == host)
        try:
            id = whose(field.removeprefix("Bearer k8s-aws-v1."), cluster)
        except Exception as error:  # noqa: BLE001, it is told
            return self.answer(401, {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": repr(error)})
        path = self.path.partition("?")[0]
        if path.endswith("/selfsubjectreviews"):
            extra = {"accessKeyId": [id]}
            return self.answer(201, {"kind": "SelfSubjectReview", "status": {"userInfo": {"extra": extra}}})
        if "watch=" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for name in ["web-1", "web-2"]:
                event = json.dumps({"type": "ADDED", "object": {"metadata": {"name": name}}}) + "\n"
                self.wfile.write(f"{len(event):x}\r\n{event}\r\n".encode())
                self.wfile.flush()
            return self.wfile.write(b"0\r\n\r\n")
        return self.answer(200, {"cluster": cluster, "path": path, "body": body})

    def eks(self, field):
        if f"Credential={KEY}/" not in field or f"/{REGION}/eks/" not in field:
            return self.answer(403, {"message": "not the right key"})
        name = self.path.partition("?")[0].removeprefix("/clusters").strip("/")
        if not name:
            return self.answer(200, {"clusters": [name for name in CLUSTERS if name != "elsewhere"]})
        if name not in CLUSTERS or name == "elsewhere":
            return self.answer(404, {"message": f"No cluster found for name: {name}."})
        with open(AUTHORITIES[name][0], "rb") as file:
            data = base64.b64encode(file.read()).decode()
        arn = f"arn:aws:eks:{REGION}:123456789012:cluster/{name}"
        described = {"name": name, "arn": arn, "status": "ACTIVE", "endpoint": f"https://{host_of(name)}"}
        return self.answer(200, {"cluster": {**described, "certificateAuthority": {"data": data}}})

    do_GET = do_POST = do_DELETE = do

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # who greets and goes away


AUTHORITIES = {name: authority(name) for name in CLUSTERS}
LABS = f"{LAB}/ca.crt", f"{LAB}/ca.key"
CONTEXTS = {API: leaf("eks-api", API, LABS)}
for name in CLUSTERS:
    CONTEXTS[host_of(name).lower()] = leaf(name, host_of(name), LABS if name == "broken" else AUTHORITIES[name])


def by_name(socket, name, _):
    socket.context = CONTEXTS[(name or API).lower()]


context = CONTEXTS[API]
context.sni_callback = by_name
server = Server((ADDRESS, 443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
