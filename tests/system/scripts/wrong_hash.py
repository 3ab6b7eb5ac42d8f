"""Signs a PUT for one body and sends another, by botocore's own signer: of the same length, and none at all."""

import hashlib
import http.client

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

signed = b"what was signed"


class Declared(S3SigV4Auth):
    def payload(self, request):
        return declared


for key, sent, declared in [
    ("lied", b"what was sent!!", hashlib.sha256(signed).hexdigest()),
    ("nothing", b"", hashlib.sha256(signed).hexdigest()),
    ("word", b"anything", "NO-HASH-AT-ALL"),
]:
    request = AWSRequest("PUT", f"https://hash.s3.eu-west-1.amazonaws.com/{key}", data=signed)
    Declared(botocore.session.get_session().get_credentials(), "s3", "eu-west-1").add_auth(request)
    connection = http.client.HTTPSConnection("hash.s3.eu-west-1.amazonaws.com", timeout=20)
    connection.request("PUT", f"/{key}", body=sent, headers=dict(request.headers))
    print(key, "status", connection.getresponse().status)
