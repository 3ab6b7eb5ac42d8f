"""boto3, from PyPI: nothing is configured but the region."""

import boto3
from botocore.exceptions import ClientError

session = boto3.Session(region_name="eu-west-1")
print("I am", session.client("sts").get_caller_identity()["Arn"])

ec2 = session.client("ec2")
print("made", ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"])

bucket = session.resource("s3").Bucket("demo-reports")
print("found", [(item.key, item.size) for item in bucket.objects.all()])

secrets = session.client("secretsmanager")
secrets.create_secret(Name="database", SecretString="correct horse battery staple")
print("listed", [secret["Name"] for secret in secrets.list_secrets()["SecretList"]])
try:
    print("read", secrets.get_secret_value(SecretId="database")["SecretString"])
except ClientError as error:
    print("denied:", error)
