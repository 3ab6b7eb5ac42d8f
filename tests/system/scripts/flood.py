"""Tries to keep everybody else from the daemon: KIND SECONDS. Says `ready` when it has begun.

KIND is one of: busy (no flood: processes that compute for some milliseconds at a time and never
speak to the daemon, one for each processor), attributes (XML with very many), bodies (announced whole, sent byte by byte), heads (large ones over
HTTP/2, whose bodies never come), refusals (large bodies of requests by nobody's right), connections (as fast and as many
as there may be).
"""

import os
import socket
import ssl
import sys
import threading
import time

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

REGION = "eu-west-1"
HOST = f"dynamodb.{REGION}.amazonaws.com"
S3 = f"s3.{REGION}.amazonaws.com"
kind, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
context = ssl.create_default_context()


def connect(host, protocols=("http/1.1",)):
    own = ssl.create_default_context()
    own.set_alpn_protocols(list(protocols))
    return own.wrap_socket(socket.create_connection((host, 443), timeout=10), server_hostname=host)


def again(flood):
    """Until the end, whatever the daemon does about it."""
    while time.monotonic() < end:
        try:
            flood()
        except OSError:
            time.sleep(0.01)


def attributes():
    body = b"<Delete " + b" ".join(b'a%d="b"' % n for n in range(40_000)) + b"/>"
    head = f"POST /bucket?delete HTTP/1.1\r\nHost: {S3}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    with connect(S3) as stream:
        stream.sendall(head.encode() + body)
        stream.recv(4096)


def bodies():
    request = AWSRequest(
        "POST", f"https://{HOST}/", data=b"",
        headers={"X-Amz-Target": "DynamoDB_20120810.GetItem", "Content-Type": "application/x-amz-json-1.0"},
    )
    credentials = botocore.session.Session().get_credentials().get_frozen_credentials()
    SigV4Auth(credentials, "dynamodb", REGION).add_auth(request)
    fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items() if name != "Content-Length")
    head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{fields}Content-Length: 16777216\r\n\r\n"
    with connect(HOST) as stream:
        stream.sendall(head.encode())
        while time.monotonic() < end:
            stream.sendall(b" ")
            time.sleep(0.2)


def literal(text):
    """A string as in RFC 7541, 5.2, not compressed."""
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    rest, octets = length - 127, [127]
    while rest >= 128:
        octets.append(rest % 128 + 128)
        rest //= 128
    return bytes(octets + [rest]) + text


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def heads():
    block = b"\x83\x87\x84\x01" + literal(HOST.encode()) + b"\x00" + literal(b"x-filler") + literal(b"a" * 60_000)
    parts = [block[at:at + 16384] for at in range(0, len(block), 16384)]
    with connect(HOST, ["h2"]) as stream:
        threading.Thread(target=drain, args=[stream], daemon=True).start()
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        for number in range(1, 257, 2):
            frames = [frame(9 if at else 1, 4 if at == len(parts) - 1 else 0, number, part) for at, part in enumerate(parts)]
            stream.sendall(b"".join(frames))
        while time.monotonic() < end:
            time.sleep(0.1)


def drain(stream):
    try:
        while stream.recv(65536):
            pass
    except (OSError, ValueError):
        pass


def refusals():
    head = (
        f"POST / HTTP/1.1\r\nHost: {HOST}\r\nX-Amz-Target: DynamoDB_20120810.PutItem\r\n"
        "Content-Type: application/x-amz-json-1.0\r\n"
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/{REGION}/dynamodb/aws4_request, "
        f"SignedHeaders=host, Signature={'0' * 64}\r\nContent-Length: 8388608\r\n\r\n"
    )
    with connect(HOST) as stream:
        stream.sendall(head.encode() + b"a" * 8388608)
        stream.recv(4096)


kept = []


def connections():
    stream = socket.create_connection((HOST, 443), timeout=10)
    if len(kept) < 900:
        kept.append(stream)
        return
    with context.wrap_socket(stream, server_hostname=HOST):
        pass


def busy():
    loops = [os.fork() for _ in range(os.cpu_count())]
    if 0 in loops:
        while time.monotonic() < end:
            until = time.monotonic() + 0.004
            while time.monotonic() < until:
                pass
            time.sleep(0.0005)
        os._exit(0)
    for loop in loops:
        os.waitpid(loop, 0)


threads = {"busy": 1, "attributes": 4, "bodies": 40, "heads": 24, "refusals": 4, "connections": 4}[kind]
running = [threading.Thread(target=again, args=[globals()[kind]], daemon=True) for _ in range(threads)]
for thread in running:
    thread.start()
print("ready", flush=True)
while time.monotonic() < end:
    time.sleep(0.1)
# The threads are in the middle of something, which the interpreter's own end doesn't wait for.
os._exit(0)
