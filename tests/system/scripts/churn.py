"""Makes cgroups as fast as it can, each with one process that makes one call, and removes them: FROM TO, below AGENTS.

The call names the cgroup (HeadBucket of `c-NUMBER`), with keys from the metadata service like every agent's."""

import http.client
import json
import os
import ssl
import sys
import time

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FROM, TO, AGENTS = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
AT_ONCE = 8
TLS = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt")


def metadata(method, path, headers):
    connection = http.client.HTTPConnection("169.254.169.254", timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status == 200, (path, answer.status, body)
    return body


def call(number):
    token = metadata("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    path, headers = "/latest/meta-data/iam/security-credentials/", {"X-aws-ec2-metadata-token": token}
    keys = json.loads(metadata("GET", path + metadata("GET", path, headers), headers))
    host = f"c-{number}.s3.eu-west-1.amazonaws.com"
    request = AWSRequest("HEAD", f"https://{host}/")
    S3SigV4Auth(Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"]), "s3", "eu-west-1").add_auth(request)
    connection = http.client.HTTPSConnection(host, context=TLS, timeout=60)
    connection.request("HEAD", "/", headers=dict(request.headers.items()))
    answer = connection.getresponse()
    assert answer.status == 404, answer.status


def start(number):
    cgroup = f"{AGENTS}/c-{number}"
    os.mkdir(cgroup)
    child = os.fork()
    if child == 0:
        try:
            with open(f"{cgroup}/cgroup.procs", "w") as procs:
                procs.write("0")
            call(number)
            os._exit(0)
        except BaseException as error:
            print(f"c-{number}: {error!r}", flush=True)
            os._exit(1)
    return child, cgroup


def end(running):
    child, status = os.wait()
    cgroup = running.pop(child)
    while True:
        try:
            os.rmdir(cgroup)
            break
        except OSError:  # the process is on its way out
            time.sleep(0.001)
    return status


began, running, failed = time.monotonic(), {}, 0
for number in range(FROM, TO):
    if len(running) == AT_ONCE:
        failed += end(running) != 0
    child, cgroup = start(number)
    running[child] = cgroup
while running:
    failed += end(running) != 0
print(f"{TO - FROM} cgroups in {time.monotonic() - began:.1f} s, {failed} failed")
sys.exit(failed != 0)
