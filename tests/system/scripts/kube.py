"""A client of Kubernetes that goes by a kubeconfig alone, as kubectl does: `kube.py CONTEXT METHOD PATH [BODY]`.

It trusts that file's authority and nothing else, and gets its token by the command that the file names. `TOKEN=…` in the
environment takes that token, `SERVER=…` goes to that server.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import urllib.request

import yaml

context, method, path, *body = sys.argv[1:]
with open(os.environ["KUBECONFIG"]) as file:
    config = yaml.safe_load(file)


def named(kind, name):
    return next(one[kind] for one in config[f"{kind}s"] if one["name"] == name)


by_name = {one["name"].rpartition("/")[2]: one["context"] for one in config["contexts"]}[context]
cluster, user = named("cluster", by_name["cluster"]), named("user", by_name["user"])["exec"]
token = os.environ.get("TOKEN")
if token is None:
    command = [user["command"], *user["args"]]
    token = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["status"]["token"]
tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
request = urllib.request.Request(
    os.environ.get("SERVER", cluster["server"]) + path, body[0].encode() if body else None, method=method
)
if token:
    request.add_header("Authorization", f"Bearer {token}")
try:
    with urllib.request.urlopen(request, context=tls) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.status, error.read().decode())
