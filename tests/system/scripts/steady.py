"""Makes signed calls at a steady rate over one connection: RATE SECONDS. Prints, as JSON, how long their answers took.

A call that is due while another is under way is sent late, and counts from when it was due: a stall is told in full.
"""

import http.client
import json
import ssl
import sys
import time

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

HOST = "s3.eu-west-1.amazonaws.com"
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
credentials = botocore.session.Session().get_credentials().get_frozen_credentials()
# One signature for all: what is measured is the daemon and not this program.
request = AWSRequest("HEAD", f"https://{HOST}/load/nothing", headers={"Host": HOST})
S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
head = dict(request.headers.items())
connection = http.client.HTTPSConnection(HOST, timeout=20, context=ssl.create_default_context())


def call():
    connection.request("HEAD", "/load/nothing", headers=head)
    answer = connection.getresponse()
    answer.read()
    return answer.status


call()
took, failed = [], 0
began = time.monotonic()
for number in range(int(rate * seconds)):
    due = began + number / rate
    time.sleep(max(0.0, due - time.monotonic()))
    try:
        # There is no such object: that is an answer.
        failed += call() != 404
    except OSError:
        failed += 1
        connection.close()
    took.append(time.monotonic() - due)
took.sort()
at = lambda share: took[min(len(took) - 1, int(len(took) * share))] * 1e6
print(json.dumps({"calls": len(took), "failed": failed, "p50_us": at(0.5), "p99_us": at(0.99), "max_us": took[-1] * 1e6}))
