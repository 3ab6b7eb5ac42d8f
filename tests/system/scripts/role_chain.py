"""Takes one role after the other, each by the one before, and lists buckets by the last: prints the keys it was given.

From the second role on moto checks signatures, by botocore's own signer; so the keys that reach it must be the real ones.
"""

import json
import urllib.request

import boto3

region = {"region_name": "eu-west-1"}
iam = boto3.client("iam", **region)
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
allow = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
for role in ["one", "two"]:
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
    iam.put_role_policy(RoleName=role, PolicyName="all", PolicyDocument=allow)
boto3.client("s3", **region).create_bucket(
    Bucket="chained", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
)


def assume(role, **keys):
    answer = boto3.client("sts", **region, **keys).assume_role(
        RoleArn=f"arn:aws:iam::123456789012:role/{role}", RoleSessionName="chain"
    )
    given = answer["Credentials"]
    print("given", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], given["Expiration"].year)
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


one = assume("one")
request = urllib.request.Request("http://127.0.0.1:4566/moto-api/reset-auth", data=b"0", method="POST")
request.add_header("Content-Type", "text/plain")
urllib.request.urlopen(request).read()
two = assume("two", **one)
print("who", boto3.client("sts", **region, **two).get_caller_identity()["Arn"])
print("buckets", [it["Name"] for it in boto3.client("s3", **region, **two).list_buckets()["Buckets"]])
wrong = dict(two, aws_secret_access_key="guessed")
try:
    boto3.client("sts", **region, **wrong).get_caller_identity()
except Exception as error:  # noqa: BLE001, it is printed
    print("wrong secret:", error)
