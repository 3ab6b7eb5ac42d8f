"""Makes calls one after the other, each with a name of its own: COUNT SECONDS. Ends at the first limit, or with an error."""

import sys
import time
import uuid

import boto3
from botocore.config import Config

count, seconds = int(sys.argv[1]), float(sys.argv[2])
config = Config(region_name="eu-west-1", retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
client = boto3.client("s3", config=config)
began = time.monotonic()
for _ in range(count):
    if time.monotonic() - began > seconds:
        break
    try:
        client.head_object(Bucket="load", Key=str(uuid.uuid4()))
    except client.exceptions.ClientError as error:
        # There is no such object: that is an answer.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
