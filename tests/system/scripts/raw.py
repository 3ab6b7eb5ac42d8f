"""Sends bytes over TLS and prints the answer: NAME TEXT [all], in which \\r and \\n are escapes. With `all`, the answers
until the connection's end."""

import socket
import ssl
import sys

name, data = sys.argv[1], sys.argv[2].encode().decode("unicode_escape").encode("latin-1")
context = ssl.create_default_context()
with context.wrap_socket(socket.create_connection((name, 443), timeout=10), server_hostname=name) as stream:
    stream.sendall(data)
    answer = b""
    while b"\r\n\r\n" not in answer or sys.argv[3:] == ["all"]:
        piece = stream.recv(4096)
        if not piece:
            break
        answer += piece
sys.stdout.write(answer.decode("latin-1"))
