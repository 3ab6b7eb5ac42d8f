"""Reads an object, stops in the middle until it is told to go on, and compares it with the file of the same name."""

import hashlib
import os
import sys
import time

import boto3

bucket, key = sys.argv[1:]
body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
digest = hashlib.sha256()
read = 0
while chunk := body.read(1 << 16):
    digest.update(chunk)
    read += len(chunk)
    if read == 1 << 16:
        open("begun", "w").close()
        while not os.path.exists("go-on"):
            time.sleep(0.01)
with open(key, "rb") as file:
    same = hashlib.file_digest(file, "sha256").digest() == digest.digest()
print(f"{read} bytes, {'the same' if same else 'NOT the same'}")
