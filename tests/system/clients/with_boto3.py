"""What programs do with boto3, by it: waiters, paginators, large objects in parts, presigned URLs. Argument: a bucket."""

import hashlib
import os
import sys
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig

bucket = sys.argv[1]
session = boto3.Session(region_name="eu-west-1")
print("account", session.client("sts").get_caller_identity()["Account"])

s3 = session.client("s3")
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
s3.get_waiter("bucket_exists").wait(Bucket=bucket)
data = os.urandom(20_000_000)
with open("up", "wb") as file:
    file.write(data)
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
s3.upload_file("up", bucket, "a large one", Config=parts)
s3.download_file(bucket, "a large one", "down", Config=parts)
with open("down", "rb") as file:
    print("large object", hashlib.sha256(file.read()).digest() == hashlib.sha256(data).digest())
for key in ["k/1", "k/2,b", "k/3 c", "k/é"]:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key=key)
pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="k/")
print("listed", sorted(item["Key"] for page in pages for item in page.get("Contents", [])))
print("read", s3.get_object(Bucket=bucket, Key="k/é")["Body"].read().decode())
print("range", s3.get_object(Bucket=bucket, Key="k/3 c", Range="bytes=2-4")["Body"].read())
put = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "presigned"})
request = urllib.request.Request(put, data=b"by a URL", method="PUT")
request.add_unredirected_header("Content-Type", "")
print("presigned put", urllib.request.urlopen(request).status)
get = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "presigned"})
print("presigned get", urllib.request.urlopen(get).read())
gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k/1"}, {"Key": "presigned"}]})
print("deleted", sorted(item["Key"] for item in gone["Deleted"]))

dynamodb = session.client("dynamodb")
dynamodb.create_table(
    TableName=bucket,
    KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    BillingMode="PAY_PER_REQUEST",
)
dynamodb.get_waiter("table_exists").wait(TableName=bucket)
with session.resource("dynamodb").Table(bucket).batch_writer() as batch:
    for number in range(40):
        batch.put_item(Item={"id": f"{number:02}", "text": "x" * 100})
pages = list(dynamodb.get_paginator("scan").paginate(TableName=bucket, PaginationConfig={"PageSize": 15}))
print("scanned", len(pages), sum(page["Count"] for page in pages))

sqs = session.client("sqs")
queue = sqs.create_queue(QueueName=bucket)["QueueUrl"]
sqs.send_message(QueueUrl=queue, MessageBody="hello & <goodbye>")
got = sqs.receive_message(QueueUrl=queue)["Messages"][0]
sqs.delete_message(QueueUrl=queue, ReceiptHandle=got["ReceiptHandle"])
print("received", got["Body"])

ec2 = session.client("ec2")
vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
ec2.get_waiter("vpc_available").wait(VpcIds=[vpc])
print("vpc", ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["CidrBlock"])
missing = False
try:
    session.client("secretsmanager").get_secret_value(SecretId="no-such")
except session.client("secretsmanager").exceptions.ResourceNotFoundException:
    missing = True
print("error by its type", missing)
