"""Opens COUNT connections and sends nothing; says when CLOSED of them are, and keeps the others until the file GO is there."""

import os
import select
import socket
import sys
import time

count, wanted, go = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
streams = [socket.create_connection(("127.77.0.1", 443), timeout=30) for _ in range(count)]
closed = 0
while closed < wanted:
    readable, _, _ = select.select(streams, [], [])
    for stream in readable:
        streams.remove(stream)
        stream.close()
    closed += len(readable)
print("closed", closed, flush=True)
while not os.path.exists(go):
    time.sleep(0.05)
