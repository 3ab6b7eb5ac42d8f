"""Uploads by POST forms that boto3 presigns, by both versions: BUCKET. Prints what became of each."""

import sys

import boto3
import requests
from botocore.config import Config

bucket = sys.argv[1]
# Version 2 in a header is none that is signed again.
plain = boto3.client("s3", region_name="eu-west-1")
for version in ["s3", "s3v4"]:
    s3 = boto3.client(
        "s3",
        region_name="eu-west-1",
        endpoint_url="https://s3.eu-west-1.amazonaws.com",
        config=Config(signature_version=version),
    )
    data = f"posted by {version}".encode()

    def post(name, data, **changed):
        form = s3.generate_presigned_post(bucket, name, Conditions=[["content-length-range", 1, 50]])
        fields = {**form["fields"], **changed}
        return requests.post(form["url"], data=fields, files={"file": ("f", data)}, timeout=20).status_code

    print(version, "posted", post("a b+c", data))
    print(version, "got", plain.get_object(Bucket=bucket, Key="a b+c")["Body"].read() == data)
    print(version, "too long", post("long", b"x" * 51))
    print(version, "other key", post("one", data, key="two"))
    print(version, "changed", post("one", data, policy="eyJjb25kaXRpb25zIjpbXX0="))
    print(version, "kept", plain.list_objects_v2(Bucket=bucket)["KeyCount"])
