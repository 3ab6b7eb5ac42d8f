"""Makes outposts.json: requests to S3 on Outposts that botocore's S3 client signed with the tests' placeholder on 2025-06-01 at
12:00:00 UTC, by keys that are encoded.

    python3 outposts.py > outposts.json   (botocore 1.44.5, without awscrt, by which it signs for all regions)
"""

import datetime
import json
from unittest import mock

import botocore.auth
import botocore.session
from botocore.awsrequest import AWSResponse

NOW = datetime.datetime(2025, 6, 1, 12, tzinfo=datetime.timezone.utc)
POINT = "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01ac5d28a6a232904/accesspoint/mine"
KEYS = ["plain", "a b", "a+b", "a:b", "folder//two", "folder/../up", "ünï/日本語", "~tilde-_.!*'()", "a%2Fb"]

session = botocore.session.get_session()
session.set_credentials("ASIAQWERTYUIOPASDFGH", "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2", "chaperone/placeholder-token")
client = session.create_client("s3", region_name="eu-west-1")
lines = []


def seen(request, **_):
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    headers = {name.lower(): text(value) for name, value in request.headers.items()}
    lines.append({"method": request.method, "url": request.url, "headers": headers})
    return AWSResponse(request.url, 200, {}, mock.Mock(stream=lambda: iter(()), read=lambda *_: b""))


client.meta.events.register("before-send.s3", seen)
with mock.patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)):
    for key in KEYS:
        client.head_object(Bucket=POINT, Key=key)
print(json.dumps(lines, indent=1))
