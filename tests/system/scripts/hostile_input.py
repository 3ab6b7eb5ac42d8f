"""Sends requests, well signed unless they can't be, that are hostile past the signature.

Prints a JSON line each: the case, the answer's status (0: the connection was closed without one), its head and
the first of its body, and the SHA-256 of the request's body where that is sent whole.
"""

import hashlib
import json
import socket
import ssl

import botocore.session
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

REGION = "eu-west-1"
MIB = 1 << 20
CREDENTIALS = botocore.session.Session().get_credentials().get_frozen_credentials()
CONTEXT = ssl.create_default_context()


def signed(service, method, path, fields, body):
    """The bytes of a signed request's head, without its end, and its host."""
    host = f"{service}.{REGION}.amazonaws.com"
    request = AWSRequest(method, f"https://{host}{path}", headers=fields, data=body)
    (S3SigV4Auth if service == "s3" else SigV4Auth)(CREDENTIALS, service, REGION).add_auth(request)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n", host


def ask(case, host, pieces, close=False, sha256=None):
    """Sends the pieces until they are out or nobody reads on, and prints the answer."""
    answer = b""
    with CONTEXT.wrap_socket(socket.create_connection((host, 443), timeout=60), server_hostname=host) as stream:
        try:
            for piece in pieces:
                stream.sendall(piece)
            if close:
                stream.unwrap()
        except OSError:
            pass
        try:
            while b"\r\n\r\n" not in answer or not answer.split(b"\r\n\r\n", 1)[1]:
                piece = stream.recv(65536)
                if not piece:
                    break
                answer += piece
        except OSError:
            pass
    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    status = int(head.split(" ")[1]) if head else 0
    print(json.dumps({"case": case, "status": status, "head": head, "body": body[:400], "sha256": sha256}), flush=True)


def whole(case, service, method, path, fields, body):
    """A request whose signature covers this very body."""
    head, host = signed(service, method, path, fields, body)
    ask(case, host, [head + b"Content-Length: %d\r\n\r\n" % len(body), body],
        sha256=hashlib.sha256(body).hexdigest())


def dynamodb(target="GetItem"):
    return {"X-Amz-Target": f"DynamoDB_20120810.{target}", "Content-Type": "application/x-amz-json-1.0"}


get_item = json.dumps({"TableName": "t", "Key": {"k": {"S": "v"}}}).encode()

# A length that is a lie: too long, and the client goes; too short, and the rest would be the next request.
head, host = signed("dynamodb", "POST", "/", dynamodb(), get_item)
ask("length too long", host, [head + b"Content-Length: %d\r\n\r\n" % (len(get_item) + 100), get_item], close=True)
ask("length too short", host, [head + b"Content-Length: %d\r\n\r\n" % (len(get_item) - 5), get_item])
# Chunks that end in the middle.
ask("chunks cut off", host, [head + b"Transfer-Encoding: chunked\r\n\r\n", b"ff\r\n" + get_item], close=True)
ask("a chunk of 2^64", host, [head + b"Transfer-Encoding: chunked\r\n\r\n", b"10000000000000000\r\n" + get_item])

ask("100 MB of header fields", host, [head] + [b"X-Filler-%d: " % n + b"a" * 65000 + b"\r\n" for n in range(1600)])
ask("100 MB in one header field", host, [head, b"X-Filler: "] + [b"a" * 65000] * 1600)
ask("100 MB of trailers", host, [head + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % len(get_item) + get_item + b"\r\n0\r\n"]
    + [b"X-Filler-%d: " % n + b"a" * 65000 + b"\r\n" for n in range(1600)])
ask("100 MB of chunk extensions", host, [head + b"Transfer-Encoding: chunked\r\n\r\n1;"] + [b"a" * 65000] * 1600)

whole("deep JSON", "dynamodb", "POST", "/", dynamodb(), b'{"TableName":"t","Key":' + b'{"a":' * (2 * MIB))
whole("wide JSON", "dynamodb", "POST", "/", dynamodb(), b'{"TableName":"t","Key":{' + b'"a":{"S":"b"},' * MIB + b'"b":{"S":"c"}}}')
whole("a JSON member twice", "dynamodb", "POST", "/", dynamodb(), b'{"TableName":"mine","TableName":"theirs","Key":{}}')
whole("JSON that isn't", "dynamodb", "POST", "/", dynamodb(), b"{'TableName': 't'}")
whole("deep XML", "s3", "POST", "/bucket?delete=", {}, b"<Delete>" + b"<Object>" * MIB)
whole("large XML", "s3", "POST", "/bucket?delete=", {}, b"<Delete>" + b"<Object>" * (2 * MIB))
bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9)
)
whole("an entity bomb", "s3", "POST", "/bucket?delete=", {}, (bomb + "]><Delete><Object><Key>&j;</Key></Object></Delete>").encode())
cbor = {"Smithy-Protocol": "rpc-v2-cbor", "Content-Type": "application/cbor", "Accept": "application/cbor"}
path = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
whole("deep CBOR", "monitoring", "POST", path, cbor, b"\xa1\x69Namespace" + b"\x81" * (8 * MIB))
whole("CBOR that promises 2^63 members", "monitoring", "POST", path, cbor, b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff")

fields = dynamodb()
head, host = signed("dynamodb", "POST", "/", fields, get_item)
twice = head + b"X-Amz-Target: DynamoDB_20120810.DeleteTable\r\nContent-Length: %d\r\n\r\n" % len(get_item)
ask("the target twice", host, [twice, get_item])
whole("a target and a body of another protocol", "sqs", "POST", "/",
      {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-www-form-urlencoded"},
      b"Action=DeleteQueue&QueueUrl=https%3A%2F%2Fsqs.eu-west-1.amazonaws.com%2F123456789012%2Fq&Version=2012-11-05")
whole("a query and a body that disagree", "sqs", "POST", "/?Action=ListQueues&Version=2012-11-05",
      {"Content-Type": "application/x-www-form-urlencoded"}, b"Action=DeleteQueue&Version=2012-11-05")
whole("no such operation", "dynamodb", "POST", "/", dynamodb("DropEverything"), b"{}")
whole("a denied upload", "s3", "PUT", "/bucket/key", {}, b"secrets " * (MIB // 8))
