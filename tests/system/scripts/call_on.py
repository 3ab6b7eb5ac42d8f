"""An agent that goes on calling AWS, each time over a new connection, and never twice. Its credentials it keeps.

Appends what each call was told to the given file, a line a call, until there is a file `enough`.
"""

import os
import sys

import boto3
from botocore.config import Config

ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=60, read_timeout=60)

session = boto3.Session()
with open(sys.argv[1], "a", buffering=1) as out:
    while not os.path.exists("enough"):
        try:
            client = session.client("s3", config=ONCE)
            client.list_buckets()
            said = "ok"
            client.close()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        out.write(said + "\n")
