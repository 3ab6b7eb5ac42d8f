"""Signs a PUT for one body and sends another of the same length, by botocore's own signer."""

import hashlib
import http.client

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

signed, sent = b"what was signed", b"what was sent!!"
assert len(signed) == len(sent)
url = "https://hash.s3.eu-west-1.amazonaws.com/lied"
request = AWSRequest("PUT", url, data=signed)
request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(signed).hexdigest()
S3SigV4Auth(botocore.session.get_session().get_credentials(), "s3", "eu-west-1").add_auth(request)
connection = http.client.HTTPSConnection("hash.s3.eu-west-1.amazonaws.com", timeout=20)
connection.request("PUT", "/lied", body=sent, headers=dict(request.headers))
print("status", connection.getresponse().status)
