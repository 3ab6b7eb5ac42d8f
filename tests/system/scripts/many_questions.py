"""Uploads that wait for approval, many at once: many_questions.py COUNT. Each says that 32 MB come, and sends the first of them.

Prints `asked` when all are sent, and then, for each line that it reads, how many were answered meanwhile. The very first answer
that isn't an interim one is printed, too.
"""

import hashlib
import resource
import selectors
import socket
import ssl
import sys
import threading

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

HOST, LENGTH = "big.s3.eu-west-1.amazonaws.com", 32 << 20
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))


class Declared(S3SigV4Auth):
    def payload(self, request):
        return hashlib.sha256(request.url.encode()).hexdigest()


given = botocore.session.get_session().get_credentials().get_frozen_credentials()
context = ssl.create_default_context()
context.set_alpn_protocols(["http/1.1"])
streams, answered, lock = selectors.DefaultSelector(), [], threading.Lock()


def ask(number):
    request = AWSRequest("PUT", f"https://{HOST}/object-{number}", headers={"host": HOST, "content-length": str(LENGTH)})
    Declared(given, "s3", "eu-west-1").add_auth(request)
    stream = context.wrap_socket(socket.create_connection((HOST, 443), 60), server_hostname=HOST)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    stream.sendall(f"PUT /object-{number} HTTP/1.1\r\n{head}\r\n".encode())
    stream.settimeout(1)
    try:
        stream.sendall(b"x" * 16384)
    except TimeoutError:
        pass
    stream.setblocking(False)
    with lock:
        streams.register(stream, selectors.EVENT_READ, number)


def whole(stream, text):
    """The answer to its end: an error of S3's."""
    stream.settimeout(20)
    while b"</Error>" not in text and (piece := stream.recv(65536)):
        text += piece
    return text.decode(errors="replace")


def look(patience):
    while ready := streams.select(patience):
        patience = 0
        for key, _ in ready:
            try:
                text = key.fileobj.recv(65536)
            except ssl.SSLWantReadError:
                continue
            except OSError as error:
                text = repr(error).encode()
            text = text.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
            if text:
                if not answered:
                    print("answer", " ".join(whole(key.fileobj, text).split()), flush=True)
                answered.append(key.data)
                streams.unregister(key.fileobj)


count = int(sys.argv[1])
for number in range(count):
    ask(number)
print("asked", flush=True)
for _ in sys.stdin:
    look(0)
    print(f"answered {len(answered)}", flush=True)
