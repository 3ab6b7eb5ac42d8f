"""Puts and gets objects by keys that are easily signed wrongly, and asks queries that are: prints what became of each."""

import http.client
import sys
import urllib.parse

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config

bucket = sys.argv[1]
keys = [
    "plain",
    "a b  c",
    "a+b",
    "a:b",
    "a%2Fb",
    "a%20b",
    "a%b",
    "a=b&c=d?e#f",
    "folder//two",
    "folder/./dot",
    "folder/../up",
    "..",
    "/leading",
    "trailing/",
    "~tilde-_.!*'()",
    "ünï/ço∂é/日本語/🙂",
    "quote\"back\\slash",
    "k" * 255 + "/" + "l" * 255 + "/" + "m" * 255 + "/" + "n" * 256,
]
for style in ["virtual", "path"]:
    s3 = boto3.client("s3", region_name="eu-west-1", config=Config(s3={"addressing_style": style}))
    if style == "virtual":
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for key in keys:
        said = []
        for call in [
            lambda: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()),
            lambda: s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(),
        ]:
            try:
                said.append("same" if call() is not False else "other")
            except Exception as error:  # noqa: BLE001, it is printed
                said.append(str(getattr(error, "response", {}).get("Error", {}).get("Code", error)))
        print("key", style, ascii(key[:40]), *said)

for query in [
    "",
    "list-type=2&prefix=&delimiter=",
    "list-type=2&prefix=a%20b",
    "list-type=2&prefix=a+b",
    "list-type=2&prefix=a%2Bb&start-after=%7E",
    "list-type=2&a=1&a=2&a=&A=1",
    "list-type=2&&x",
    "list-type=2&%61=1&b=%e6%97%a5",
    "list-type=2&b=1&a=2&b=0",
]:
    host = f"{bucket}.s3.eu-west-1.amazonaws.com"
    request = AWSRequest("GET", f"https://{host}/?{query}")
    S3SigV4Auth(botocore.session.get_session().get_credentials(), "s3", "eu-west-1").add_auth(request)
    connection = http.client.HTTPSConnection(host, timeout=20)
    connection.request("GET", f"/?{query}", headers=dict(request.headers))
    answer = connection.getresponse()
    body = answer.read().decode()
    code = urllib.parse.quote(body.split("<Code>")[1].split("<")[0]) if "<Code>" in body else ""
    print("query", repr(query), answer.status, code)
