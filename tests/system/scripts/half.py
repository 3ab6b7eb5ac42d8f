"""Sends half of a signed call, waits for the file that the first argument names, and sends the rest."""

import os
import socket
import ssl
import sys
import time

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import get_session

HOST = "sts.eu-west-1.amazonaws.com"
BODY = b"Action=GetCallerIdentity&Version=2011-06-15"

request = AWSRequest("POST", f"https://{HOST}/", {"Content-Type": "application/x-www-form-urlencoded", "Host": HOST}, BODY)
SigV4Auth(get_session().get_credentials(), "sts", "eu-west-1").add_auth(request)
head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
head += f"Content-Length: {len(BODY)}\r\nConnection: close\r\n"
stream = ssl.create_default_context().wrap_socket(socket.create_connection((HOST, 443)), server_hostname=HOST)
stream.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + BODY[:10])
deadline = time.monotonic() + 60
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.05)
stream.sendall(BODY[10:])
answer = b""
while part := stream.recv(65536):
    answer += part
print(answer.decode(errors="replace"))
