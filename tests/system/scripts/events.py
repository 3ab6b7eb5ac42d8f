"""Sends an event stream over HTTP/2 (by curl), signed message by message: HOW is `good`, or what is wrong with it.

The framing is that of https://docs.aws.amazon.com/transcribe/latest/dg/streaming-http2.html, the call Bedrock's, with botocore's signer for the head.
"""

import datetime
import hashlib
import hmac
import os
import struct
import subprocess
import sys
import tempfile
import zlib

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

how = sys.argv[1]
url = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/amazon.nova-sonic-v1%3A0/invoke-with-bidirectional-stream"
fields = {
    "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-EVENTS",
    "content-type": "application/vnd.amazon.eventstream",
}
frozen = botocore.session.get_session().get_credentials().get_frozen_credentials()
secret = "guessed" if how == "secret" else frozen.secret_key


class Streaming(SigV4Auth):
    def payload(self, request):
        return fields["x-amz-content-sha256"]


request = AWSRequest("POST", url, headers=fields)
Streaming(Credentials(frozen.access_key, frozen.secret_key, frozen.token), "bedrock", "eu-west-1").add_auth(request)
previous = request.headers["Authorization"].rpartition("Signature=")[2]


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def framed(headers, payload):
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = head + struct.pack(">I", zlib.crc32(head)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def signed(payload):
    global previous
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    date = b"\x05:date\x08" + struct.pack(">q", int(now.timestamp()) * 1000)
    key = f"AWS4{secret}".encode()
    for part in [day, "eu-west-1", "bedrock", "aws4_request"]:
        key = digest(key, part)
    lines = ["AWS4-HMAC-SHA256-PAYLOAD", stamp, f"{day}/eu-west-1/bedrock/aws4_request", previous]
    lines += [hashlib.sha256(date).hexdigest(), hashlib.sha256(payload).hexdigest()]
    signature = digest(key, "\n".join(lines))
    previous = signature.hex()
    return framed(date + b"\x10:chunk-signature\x06\x00\x20" + signature, payload)


chunk = b"\x0b:event-type\x07\x00\x05chunk"
messages = [signed(framed(chunk, bytes([n]) * 8000 * n)) for n in range(1, 6)] + [signed(b"")]
if how == "left-out":
    del messages[2]
if how == "tampered":
    messages[3] = messages[3][:200] + b"\xff" + messages[3][201:]
with tempfile.NamedTemporaryFile() as file:
    file.write(b"".join(messages))
    file.flush()
    command = ["curl", "-sS", "--http2", "-m", "30", "--data-binary", f"@{file.name}", "-w", "\nstatus %{http_code} %{http_version}\n"]
    for name, value in request.headers.items():
        command += ["-H", f"{name}: {value}"]
    os.write(1, subprocess.run([*command, url], capture_output=True, check=False).stdout)
