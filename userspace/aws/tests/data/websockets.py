"""Makes websockets.json: handshakes' URLs that botocore's signer and the AWS CRT presigned with the tests' placeholder on
2025-06-01 at 12:00:00 UTC.

    python3 websockets.py > websockets.json   (botocore 1.44.5, awscrt 0.38.1)
"""

import datetime
import json
from unittest import mock

import botocore.auth
from awscrt import auth, http
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2025, 6, 1, 12, tzinfo=datetime.timezone.utc)
KEY = ("ASIAQWERTYUIOPASDFGH", "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2", "chaperone/placeholder-token")
RUNTIME = "arn%3Aaws%3Abedrock-agentcore%3Aeu-west-1%3A123456789012%3Aruntime%2Fmine-abc"
CHANNEL = "arn%3Aaws%3Akinesisvideo%3Aeu-west-1%3A123456789012%3Achannel%2Fdoor%2F1"

CASES = [
    ("transcribe", "transcribe", "transcribestreaming.eu-west-1.amazonaws.com:8443", "/stream-transcription-websocket?language-code=en-US&media-encoding=pcm&sample-rate=16000"),
    ("execute-api", "execute-api", "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com", "/prod"),
    ("agentcore", "bedrock-agentcore", "bedrock-agentcore.eu-west-1.amazonaws.com", f"/runtimes/{RUNTIME}/ws?qualifier=DEFAULT"),
    ("signaling", "kinesisvideo", "v-1a2b3c4d.kinesisvideo.eu-west-1.amazonaws.com", f"/?X-Amz-ChannelARN={CHANNEL}&X-Amz-ClientId=me"),
]


def by_botocore(service, host, target):
    request = AWSRequest("GET", f"wss://{host}{target}", headers={"host": host})
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)):
        botocore.auth.SigV4QueryAuth(Credentials(*KEY), service, "eu-west-1", expires=300).add_auth(request)
    return request.url


def by_crt(service, host, target):
    """As the IoT device SDKs do it: without an end, and the token appended."""
    request = http.HttpRequest("GET", target, http.HttpHeaders([("host", host)]))
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(*KEY),
        region="eu-west-1",
        service=service,
        date=NOW,
        omit_session_token=True,
    )
    return f"wss://{host}{auth.aws_sign_request(request, config).result(10).path}"


lines = [{"name": name, "url": by_botocore(*case)} for name, *case in CASES]
lines.append({"name": "iot", "url": by_crt("iotdevicegateway", "a3k7odshaiipe8-ats.iot.eu-west-1.amazonaws.com", "/mqtt")})
print(json.dumps(lines, indent=1))
