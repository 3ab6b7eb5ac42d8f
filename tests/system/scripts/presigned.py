"""Presigns by both versions, and uses what it presigned: BUCKET FILE. The URLs go into FILE for others to try."""

import sys
import urllib.error
import urllib.request

import boto3
from botocore.config import Config

bucket, file = sys.argv[1:]
key = {"Bucket": bucket, "Key": "a b+c"}


def status(url, method="GET", body=None):
    request = urllib.request.Request(url, data=body, method=method)
    # urllib would add one of its own, which the signature doesn't know.
    request.add_unredirected_header("Content-Type", "")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return str(error.code)


with open(file, "w") as urls:
    for version in ["s3", "s3v4"]:
        s3 = boto3.client(
            "s3",
            region_name="eu-west-1",
            endpoint_url="https://s3.eu-west-1.amazonaws.com",
            config=Config(signature_version=version),
        )
        put = s3.generate_presigned_url("put_object", key)
        get = s3.generate_presigned_url("get_object", key)
        late = s3.generate_presigned_url("get_object", key, ExpiresIn=-60)
        print(version, "put", status(put, "PUT", f"text of {version}".encode()))
        print(version, "get", status(get))
        print(version, "late", status(late))
        print(version, "other key", status(get.replace("a%20b", "a%20c")))
        print(get, file=urls)
