"""Masked answers of every protocol, read by boto3. Prints what it read as JSON, and what stands for a value."""

import base64
import hashlib
import json

import boto3


def client(service):
    return boto3.client(service, region_name="eu-west-1")


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


secret = client("secretsmanager").get_secret_value(SecretId="masked")["SecretString"]
sqs = client("sqs")
queue = sqs.get_queue_url(QueueName="masked")["QueueUrl"]
[message] = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"], VisibilityTimeout=0)["Messages"]
sent = sqs.send_message(QueueUrl=queue, MessageBody=secret)
s3 = client("s3")
whole = s3.get_object(Bucket="masked", Key="k", ChecksumMode="ENABLED")
data = client("ec2").describe_launch_template_versions(LaunchTemplateName="masked")
[version] = data["LaunchTemplateVersions"]
print(
    json.dumps(
        {
            "secret": secret,
            "parameter": client("ssm").get_parameter(Name="/masked", WithDecryption=True)["Parameter"]["Value"],
            "account": client("sts").get_caller_identity()["Account"],
            "item": client("dynamodb").scan(TableName="masked")["Items"][0],
            "environment": client("lambda").get_function_configuration(FunctionName="masked")["Environment"]["Variables"],
            "data": version["LaunchTemplateData"]["UserData"],
            "object": whole["Body"].read().decode(),
            "note": whole["Metadata"]["note"],
            "body": message["Body"],
            "told": [message["MD5OfBody"] == md5(message["Body"]), "MD5OfMessageAttributes" in message],
            "sent": [sent["MD5OfMessageBody"] == md5(secret), "MD5OfMessageAttributes" in sent],
        }
    )
)
