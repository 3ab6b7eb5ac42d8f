"""Calls models whose ids have colons, and objects on Outposts, by the real botocore: prints the status of each."""

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PROFILE = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-3-5-sonnet-20240620-v1:0"
POINT = "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01ac5d28a6a232904/accesspoint/mine"
config = Config(retries={"total_max_attempts": 1})
bedrock = boto3.client("bedrock-runtime", region_name="eu-west-1", config=config)
s3 = boto3.client("s3", region_name="eu-west-1", config=config)


def status(name, call):
    try:
        answer = call()
    except ClientError as error:
        answer = error.response
    print(name, answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("Error", {}).get("Message", ""))


for model in ["amazon.titan-text-lite-v1", "anthropic.claude-3-5-sonnet-20240620-v1:0", PROFILE]:
    status("model", lambda: bedrock.invoke_model(modelId=model, body=b"{}"))
for key in ["plain", "a b", "a+b", "a:b", "folder/x", "ünï/日本語", "~tilde-_.!*'()", "a=b&c=d", "k" * 1000]:
    status("put", lambda: s3.put_object(Bucket=POINT, Key=key, Body=b"x"))
    status("get", lambda: s3.get_object(Bucket=POINT, Key=key))
status("list", lambda: s3.list_objects_v2(Bucket=POINT, Prefix="a b/", StartAfter=""))
