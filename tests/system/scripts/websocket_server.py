"""A WebSocket server that takes only handshakes signed by the key in KEYFILE, which botocore's own signer says: echoes.

Of an event stream's signed messages it checks each signature, chained from the handshake's. When each message comes to /timed
it notes in a second file. Ends with its standard input.
"""

import hashlib
import hmac
import struct
import sys
import threading
import time
import zlib
from datetime import datetime, timezone
from unittest import mock
from urllib.parse import parse_qsl, quote

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from websockets.sync.server import serve

key, secret = open(sys.argv[1]).read().split()
SIGNED = {"x-amz-signature", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-security-token"}


def signed_by_botocore(path, headers):
    """The signature that botocore makes for this target at the time that it names."""
    target, _, query = path.partition("?")
    members = {name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)}
    rest = "&".join(pair for pair in query.split("&") if pair.split("=")[0].lower() not in SIGNED)
    field = headers.get("Authorization", "")
    if field:
        scope = field.split("Credential=")[1].split(",")[0]
        stamp, names = headers["X-Amz-Date"], field.split("SignedHeaders=")[1].split(",")[0]
    else:
        scope, stamp, names = members["x-amz-credential"], members["x-amz-date"], members["x-amz-signedheaders"]
    id, _, region, service, _ = scope.split("/")
    now = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
    url = f"https://{headers['Host']}{target}" + (f"?{rest}" if rest else "")
    request = AWSRequest("GET", url, headers={"Host": headers["Host"]})
    by = Credentials(id, secret)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: now):
        if field:
            for name in names.split(";"):
                if name not in ("host", "x-amz-date"):
                    request.headers[name] = headers[name]
            botocore.auth.SigV4Auth(by, service, region).add_auth(request)
            return field.endswith(request.headers["Authorization"].split("Signature=")[1]) and id == key
        if "x-amz-expires" in members:
            signer = botocore.auth.SigV4QueryAuth(by, service, region, expires=int(members["x-amz-expires"]))
            signer.add_auth(request)
            mine = dict(parse_qsl(request.url.partition("?")[2]))["X-Amz-Signature"]
        else:
            # As IoT's clients do: botocore's signer, without an end.
            signer = botocore.auth.SigV4QueryAuth(by, service, region)
            query = "&".join(
                f"{name}={quote(value, safe='')}"
                for name, value in [
                    ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                    ("X-Amz-Credential", scope),
                    ("X-Amz-Date", stamp),
                    ("X-Amz-SignedHeaders", "host"),
                ]
            )
            request = AWSRequest("GET", f"https://{headers['Host']}{target}?{query}", headers={"Host": headers["Host"]})
            request.context["timestamp"] = stamp
            canonical = signer.canonical_request(request)
            mine = signer.signature(signer.string_to_sign(request, canonical), request)
    return members["x-amz-signature"] == mine and id == key


def check(connection, request):
    connection.stage = request.path.partition("?")[0]
    try:
        good = signed_by_botocore(request.path, request.headers)
    except Exception as error:  # noqa: BLE001, it is told
        return connection.respond(400, f"unreadable: {error!r}\n")
    if not good:
        return connection.respond(403, "the signature is wrong\n")
    if connection.stage == "/refuses":
        return connection.respond(410, "gone\n")
    return None


def spoil(connection, request, response):
    if connection.stage == "/wrong-accept":
        del response.headers["Sec-WebSocket-Accept"]
        response.headers["Sec-WebSocket-Accept"] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def digest(by, text):
    return hmac.new(by, text.encode(), hashlib.sha256).digest()


def checked(message, previous, scope):
    """The signature of a signed message of an event stream, if it is right."""
    length, headers, crc = struct.unpack(">III", message[:12])
    assert length == len(message) and zlib.crc32(message[:8]) == crc, "framing"
    assert zlib.crc32(message[:-4]) == struct.unpack(">I", message[-4:])[0], "checksum"
    date, signature = message[12:27], message[-4 - (length - 16 - headers) - 32 : -4 - (length - 16 - headers)]
    payload = message[12 + headers : -4]
    at = datetime.fromtimestamp(struct.unpack(">q", date[7:])[0] / 1000, timezone.utc)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    _, _, region, service, _ = scope.split("/")
    by = f"AWS4{secret}".encode()
    for part in [day, region, service, "aws4_request"]:
        by = digest(by, part)
    lines = ["AWS4-HMAC-SHA256-PAYLOAD", stamp, f"{day}/{region}/{service}/aws4_request", previous]
    lines += [hashlib.sha256(date).hexdigest(), hashlib.sha256(payload).hexdigest()]
    assert digest(by, "\n".join(lines)) == signature, "signature"
    return signature.hex()


def talk(connection):
    query = dict(parse_qsl(connection.request.path.partition("?")[2]))
    previous = query.get("X-Amz-Signature")
    for message in connection:
        if connection.stage == "/timed":
            with open(sys.argv[2], "a") as file:
                file.write(f"{time.time()}\n")
        elif connection.stage.endswith("stream-transcription-websocket") and message[4:8] == struct.pack(">I", 67):
            try:
                previous = checked(message, previous, query["X-Amz-Credential"])
                connection.send(f"signed {len(message)}")
            except AssertionError as error:
                connection.send(f"wrong {error}")
        else:
            connection.send(message)


server = serve(talk, "127.0.0.1", 4567, process_request=check, process_response=spoil, subprotocols=["mqtt"], max_size=None)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
