"""Puts and gets objects by keys that are easily signed wrongly, and asks queries that are: prints what became of each.

BUCKET BACKEND. Where that is `moto`, all is signed by an assumed role's key, and from then on moto checks signatures, by
botocore's own signer. s3s-fs checks them by itself, and ends when it meets some of the keys.
"""

import http.client
import json
import sys
import urllib.parse
import urllib.request

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

bucket, backend = sys.argv[1:]
region = {"region_name": "eu-west-1"}
credentials = botocore.session.get_session().get_credentials()
given = {}
if backend == "moto":
    iam = boto3.client("iam", **region)
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_role(RoleName="keys", AssumeRolePolicyDocument=document)
    iam.put_role_policy(RoleName="keys", PolicyName="all", PolicyDocument=document)
    arn = "arn:aws:iam::123456789012:role/keys"
    answer = boto3.client("sts", **region).assume_role(RoleArn=arn, RoleSessionName="keys")["Credentials"]
    given["aws_access_key_id"] = answer["AccessKeyId"]
    given["aws_secret_access_key"] = answer["SecretAccessKey"]
    given["aws_session_token"] = answer["SessionToken"]
    credentials = Credentials(*given.values())
    request = urllib.request.Request("http://127.0.0.1:4566/moto-api/reset-auth", data=b"0", method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request).read()
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
    "~tilde-_.!*'()",
    "ünï/ço∂é/日本語/🙂",
    "quote\"back\\slash",
    "k" * 200,
]
if backend == "moto":
    keys += ["k" * 1024, "..", "/leading", "trailing/", "//", "."]
for style in ["virtual", "path"]:
    s3 = boto3.client("s3", **region, **given, config=Config(s3={"addressing_style": style}))
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
    "list-type=2&prefix=&start-after=",
    "list-type=2&prefix=a%20b",
    "list-type=2&prefix=a%2Bb&start-after=~",
    "list-type=2&max-keys=10&fetch-owner=true",
    "prefix=&list-type=2",
    "list-type=2&prefix=%E6%97%A5",
    "list-type=2&b=1&a=2&b=0",
]:
    host = f"{bucket}.s3.eu-west-1.amazonaws.com"
    request = AWSRequest("GET", f"https://{host}/?{query}")
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    connection = http.client.HTTPSConnection(host, timeout=20)
    connection.request("GET", f"/?{query}", headers=dict(request.headers))
    answer = connection.getresponse()
    body = answer.read().decode()
    code = urllib.parse.quote(body.split("<Code>")[1].split("<")[0]) if "<Code>" in body else ""
    print("query", repr(query), answer.status, code)
