"""A WebSocket, signed by botocore's own signer and spoken by a real client: HOW is how, or what is wrong with it.

`query`, `header`, `iot` (the token appended), `events` and `events-…` (an event stream's messages, signed or not), and hostile
ones, written by hand. Prints what came back.
"""

import asyncio
import hashlib
import hmac
import socket
import ssl
import struct
import sys
import zlib
from datetime import datetime, timezone
from urllib.parse import quote

import botocore.auth
import botocore.session
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

how = sys.argv[1]
API = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"
HOSTS = {
    "iot": ("a3k7odshaiipe8-ats.iot.eu-west-1.amazonaws.com", "/mqtt", "iotdevicegateway"),
    "events": ("transcribestreaming.eu-west-1.amazonaws.com", "/stream-transcription-websocket?language-code=en-US&media-encoding=pcm&sample-rate=16000", "transcribe"),
}
host, target, service = HOSTS.get(how.partition("-")[0], (API, "/prod", "execute-api"))
if how in ("wrong-accept", "refuses"):
    target = f"/{how}"
given = botocore.session.get_session().get_credentials().get_frozen_credentials()
given = Credentials(given.access_key, "guessed" if how == "secret" else given.secret_key, given.token)
token = given.token
request = AWSRequest("GET", f"https://{host}{target}", headers={"host": host})
if how == "header":
    botocore.auth.SigV4Auth(given, service, "eu-west-1").add_auth(request)
elif how == "iot":
    given = Credentials(given.access_key, given.secret_key)
    botocore.auth.SigV4QueryAuth(given, service, "eu-west-1", expires=300).add_auth(request)
    request.url += f"&X-Amz-Security-Token={quote(token, safe='')}"
else:
    botocore.auth.SigV4QueryAuth(given, service, "eu-west-1", expires=300).add_auth(request)
url = request.url.replace("https://", "wss://")
if how == "changed":
    url = url.replace("/prod?", "/other?")


def by_hand(*heads, then=b""):
    raw = ssl.create_default_context().wrap_socket(socket.create_connection((host, 443), 20), server_hostname=host)
    path = url.partition(host)[2]
    text = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n"
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    for field in [*fields, *heads]:
        name = field.partition(":")[0]
        text = "".join(line for line in text.splitlines(True) if not line.startswith(f"{name}:")) + f"{field}\r\n"
    raw.sendall(text.encode() + b"\r\n" + then)
    answer = b""
    try:
        while piece := raw.recv(4096):
            answer += piece
            if b"\r\n\r\n" in answer:
                break
    except OSError as error:
        answer += repr(error).encode()
    print(answer.split(b"\r\n")[0].decode() or "closed")


FRAME = bytes([0x82, 0x85, 1, 2, 3, 4]) + bytes(a ^ b for a, b in zip(b"early", b"\1\2\3\4\1"))
HAND = {
    "early": lambda: by_hand(then=FRAME),
    "body": lambda: by_hand("Content-Length: 5", then=b"hello"),
    "h2c": lambda: by_hand("Upgrade: h2c"),
    "version": lambda: by_hand("Sec-WebSocket-Version: 8"),
    "key": lambda: by_hand("Sec-WebSocket-Key: short"),
}
if how in HAND:
    HAND[how]()
    sys.exit()


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def framed(headers, payload):
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = head + struct.pack(">I", zlib.crc32(head)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def signed(payload, previous):
    now = datetime.now(timezone.utc).replace(microsecond=0)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    date = b"\x05:date\x08" + struct.pack(">q", int(now.timestamp()) * 1000)
    key = f"AWS4{given.secret_key}".encode()
    for part in [day, "eu-west-1", "transcribe", "aws4_request"]:
        key = digest(key, part)
    lines = ["AWS4-HMAC-SHA256-PAYLOAD", stamp, f"{day}/eu-west-1/transcribe/aws4_request", previous]
    lines += [hashlib.sha256(date).hexdigest(), hashlib.sha256(payload).hexdigest()]
    signature = digest(key, "\n".join(lines))
    return framed(date + b"\x10:chunk-signature\x06\x00\x20" + signature, payload), signature.hex()


EVENT = b"\x0b:event-type\x07\x00\x0aAudioEvent"
messages = ["héllo", b"\0" * 70000, "", "x" * 300]
if how.startswith("events"):
    previous = url.rpartition("X-Amz-Signature=")[2]
    messages = []
    for size in [10, 20000, 0]:
        inner = framed(EVENT, b"a" * size) if size else b""
        if how == "events-unsigned":
            messages.append(framed(EVENT, b"a" * size))
        else:
            message, previous = signed(inner, previous)
            messages.append(message)
    if how == "events-tampered":
        message = messages[1][:200] + b"\xff" + messages[1][201:-4]
        messages[1] = message + struct.pack(">I", zlib.crc32(message))

if len(sys.argv) > 2 and sys.argv[2] == "websocket-client":
    import websocket

    connection = websocket.create_connection(url, subprotocols=["mqtt"], timeout=30)
    for message in messages:
        connection.send(message, websocket.ABNF.OPCODE_TEXT if isinstance(message, str) else websocket.ABNF.OPCODE_BINARY)
        print("same" if connection.recv() == message else "other")
    connection.close()
else:
    # Not by the library's threads: one that reads while another writes breaks CPython 3.11's TLS, of every fiftieth connection.
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException

    fragments = len(sys.argv) > 2 and sys.argv[2] == "fragments"
    fields = {name: value for name, value in request.headers.items() if name.lower() != "host"}

    async def speak():
        async with connect(url, additional_headers=fields, max_size=None, subprotocols=["mqtt"], proxy=None) as connection:
            if not fragments:
                print("subprotocol", connection.subprotocol, "extensions", len(connection.protocol.extensions))
            for message in messages:
                if fragments:
                    await connection.ping()
                    await connection.send([message[:5], message[5:9], message[9:]])
                    print(await connection.recv())
                    continue
                await connection.send(message)
                back = await connection.recv()
                print("same" if back == message else back)

    try:
        asyncio.run(speak())
    except InvalidStatus as error:
        print("status", error.response.status_code, error.response.body.decode()[:300])
    except WebSocketException as error:
        print("error", type(error).__name__)
