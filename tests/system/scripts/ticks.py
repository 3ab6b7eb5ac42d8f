"""Bytes that go on and on, so that it can be seen when they end: ticks.py serve FILE | send | websocket

`serve` notes in FILE when each piece comes, on 127.99.0.1:80, until its standard input ends. `send` and `websocket` send a piece
every few milliseconds, the one past the daemon, the other to an API's WebSocket; they say when that broke off.
"""

import socket
import sys
import threading
import time

PAUSE = 0.01


def serve(path):
    listener = socket.create_server(("127.99.0.1", 80))

    def listen():
        while True:
            stream, _ = listener.accept()
            with open(path, "a", buffering=1) as file:
                while stream.recv(4096):
                    file.write(f"{time.time()}\n")

    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def send():
    stream = socket.create_connection(("127.99.0.1", 80), 20)
    stream.sendall(b"POST / HTTP/1.1\r\nHost: 127.99.0.1\r\nContent-Length: 100000000\r\n\r\n")
    try:
        while True:
            stream.sendall(b"x")
            time.sleep(PAUSE)
    except OSError as error:
        print("ended", repr(error), flush=True)


def websocket():
    import botocore.session
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    host = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"
    request = AWSRequest("GET", f"https://{host}/timed", headers={"host": host})
    SigV4QueryAuth(botocore.session.get_session().get_credentials(), "execute-api", "eu-west-1", expires=300).add_auth(request)
    with connect(request.url.replace("https://", "wss://"), compression=None, subprotocols=["mqtt"]) as connection:
        try:
            while True:
                connection.send("tick")
                time.sleep(PAUSE)
        except (ConnectionClosed, OSError) as error:
            print("ended", repr(error), flush=True)


{"serve": serve, "send": send, "websocket": websocket}[sys.argv[1]](*sys.argv[2:])
