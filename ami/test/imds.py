"""The metadata address of an instance with a role and user data: IMDSv2 alone. imds.py FOLDER"""
import http.server, json, sys

FOLDER = sys.argv[1]


def read(name):
    with open(f"{FOLDER}/{name}") as file:
        return file.read()


def answer(path):
    if path == "/latest/user-data":
        return read("user-data")
    if path == "/latest/meta-data/public-keys/0/openssh-key":
        return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJRdPHmgZ5VrBEVEsKtAT1PnBXfGKUdYZLLSmzhNEVxj whoever\n"
    if path == "/latest/meta-data/placement/region":
        return "eu-west-1"
    if path == "/latest/meta-data/iam/security-credentials/":
        return "instance-role"
    if path == "/latest/meta-data/iam/security-credentials/instance-role":
        key, secret = read("key").split()
        times = {"LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}
        return json.dumps({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": secret, "Token": "token", **times})
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.say(200 if known else 400, "a-token" if known else "")

    def do_GET(self):
        if self.headers["X-aws-ec2-metadata-token"] != "a-token":
            return self.say(401, "")
        text = answer(self.path)
        self.say(404 if text is None else 200, text or "")

    def say(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("169.254.169.254", 80), Handler).serve_forever()
