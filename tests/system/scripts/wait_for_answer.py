"""An agent that connects to the metadata address, says so by a file, and says what comes of it.

Prints the answer's status, or the error.
"""

import errno
import socket
import sys

with socket.create_connection(("169.254.169.254", 80)) as tcp:
    tcp.sendall(
        b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    open(sys.argv[1], "w").close()
    try:
        print(tcp.recv(65536).split(b"\r\n")[0].decode())
    except OSError as error:
        print(errno.errorcode[error.errno])
