"""Uploads a body whose chunks are signed, by botocore's own signer, and tells the status: BUCKET KEY HOW.

HOW is `plain`, `trailer`, or one of them and what is wrong, such as `plain-tampered`, `trailer-secret` or `plain-large`.
"""

import base64
import hashlib
import http.client
import sys
import zlib

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

bucket, key, how = sys.argv[1:]
kind, _, wrong = how.partition("-")
size = (3 << 20) if wrong == "large" else (64 << 10)
data = bytes(range(256)) * 1024 * (17 if wrong == "large" else 1)
host = f"{bucket}.s3.eu-west-1.amazonaws.com"
sentinel = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if kind == "trailer" else "")


class Chunked(S3SigV4Auth):
    def payload(self, request):
        return sentinel

    def chunk(self, request, kind, previous, *hashed):
        parts = [f"AWS4-HMAC-SHA256-{kind}", request.context["timestamp"], self.credential_scope(request), previous]
        parts += [hashlib.sha256(it).hexdigest() for it in hashed]
        return self.signature("\n".join(parts), request)


frozen = botocore.session.get_session().get_credentials().get_frozen_credentials()
auth = Chunked(Credentials(frozen.access_key, frozen.secret_key, frozen.token), "s3", "eu-west-1")
request = AWSRequest("PUT", f"https://{host}/{key}")
request.headers["Content-Encoding"] = "aws-chunked"
request.headers["X-Amz-Decoded-Content-Length"] = str(len(data))
if kind == "trailer":
    request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
auth.add_auth(request)
previous = request.headers["Authorization"].rpartition("Signature=")[2]
if wrong == "secret":
    auth.credentials.secret_key = "guessed"

body = b""
for chunk in [data[at : at + size] for at in range(0, len(data), size)] + [b""]:
    previous = auth.chunk(request, "PAYLOAD", previous, b"", chunk)
    if wrong == "tampered" and len(body) > 2 * size:
        chunk = bytes(len(chunk))
    body += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk
    body += b"\r\n" if chunk or kind == "plain" else b""
if kind == "trailer":
    checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    previous = auth.chunk(request, "TRAILER", previous, f"x-amz-checksum-crc32:{checksum}\n".encode())
    body += f"x-amz-checksum-crc32:{checksum}\r\nx-amz-trailer-signature:{previous}\r\n\r\n".encode()
connection = http.client.HTTPSConnection(host, timeout=20)
connection.request("PUT", f"/{key}", body=body, headers=dict(request.headers))
answer = connection.getresponse()
print("status", answer.status, answer.read().decode(), "wire", hashlib.sha256(body).hexdigest(), end=" ")
print("sha256", hashlib.sha256(data).hexdigest())
