"""Makes presigned.json: URLs that boto3 presigned with the tests' placeholder on 2025-06-01 at 12:00:00 UTC, for an hour.

    python3 presigned.py > presigned.json   (boto3 and botocore 1.44.5)
"""

import datetime
import json
import time
from unittest import mock

import boto3
import botocore.auth
from botocore.config import Config

NOW = datetime.datetime(2025, 6, 1, 12, tzinfo=datetime.timezone.utc)
KEY = {
    "aws_access_key_id": "ASIAQWERTYUIOPASDFGH",
    "aws_secret_access_key": "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2",
    "aws_session_token": "chaperone/placeholder-token",
}

CASES = [
    ("v4-get", "s3", "s3v4", "GET", "get_object", {"Bucket": "bucket", "Key": "a b/c+d:e"}),
    ("v4-get-version", "s3", "s3v4", "GET", "get_object", {"Bucket": "bucket", "Key": "k", "VersionId": "v/1", "ResponseContentType": "text/plain; a=b"}),
    ("v4-put", "s3", "s3v4", "PUT", "put_object", {"Bucket": "bucket", "Key": "k", "ContentType": "text/x", "Metadata": {"a": "1 2"}}),
    ("v4-path", "s3", "s3v4", "GET", "get_object", {"Bucket": "Upper.dots", "Key": "k"}),
    ("v4-copy", "s3", "s3v4", "PUT", "copy_object", {"Bucket": "bucket", "Key": "k", "CopySource": "other/key"}),
    ("v4-sts", "sts", None, "GET", "get_caller_identity", {}),
    ("v2-get", "s3", "s3", "GET", "get_object", {"Bucket": "bucket", "Key": "a b/c+d:e"}),
    ("v2-get-version", "s3", "s3", "GET", "get_object", {"Bucket": "bucket", "Key": "k", "VersionId": "v/1", "ResponseContentType": "text/plain; a=b"}),
    ("v2-put", "s3", "s3", "PUT", "put_object", {"Bucket": "bucket", "Key": "k", "ContentType": "text/x", "Metadata": {"a": "1 2"}}),
    ("v2-path", "s3", "s3", "GET", "get_object", {"Bucket": "Upper.dots", "Key": "k"}),
]


def main():
    lines = []
    for name, service, version, method, operation, parameters in CASES:
        client = boto3.client(service, region_name="eu-west-1", config=Config(signature_version=version), **KEY)
        with (
            mock.patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)),
            mock.patch.object(time, "time", lambda: NOW.timestamp()),
        ):
            url = client.generate_presigned_url(operation, parameters, 3600, HttpMethod=method)
        headers = {}
        if "content-type" in url.lower() and method == "PUT":
            headers["content-type"] = "text/x"
        if name in ("v4-put", "v4-copy") and "x-amz-meta-a" in url and "x-amz-meta-a=" not in url:
            headers["x-amz-meta-a"] = "1 2"
        if name == "v4-copy" and "x-amz-copy-source=" not in url:
            headers["x-amz-copy-source"] = "other/key"
        lines.append({"name": name, "method": method, "url": url, "headers": headers})
    print(json.dumps(lines, indent=1))


main()
