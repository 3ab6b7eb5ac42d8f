"""An agent that uses a secret it is never shown. Prints what it saw as lines of JSON, and then waits to be looked at."""

import json
import os
import sys

import boto3

sent = {}


def client(service):
    made = boto3.client(service, region_name="eu-west-1")
    made.meta.events.register("before-send", lambda request, **_: sent.update({service: request.body}))
    return made


def tell(**what):
    print(json.dumps(what), flush=True)


secrets, rds, ssm, sqs = map(client, ["secretsmanager", "rds", "ssm", "sqs"])
secret = secrets.get_secret_value(SecretId="db")["SecretString"]
database = rds.create_db_instance(
    DBInstanceIdentifier=sys.argv[1],
    DBInstanceClass="db.t3.micro",
    Engine="mysql",
    AllocatedStorage=5,
    MasterUsername=secret,
    MasterUserPassword=secret,
)["DBInstance"]
body = sent["rds"]
tell(secret=secret, body=body.decode() if isinstance(body, bytes) else body, user=database["MasterUsername"])

# Ways to have it read out.
ssm.put_parameter(Name=f"/{sys.argv[1]}/plain", Value=secret, Type="String")
ssm.put_parameter(Name=f"/{sys.argv[1]}/safe", Value=secret, Type="SecureString")
plain = ssm.get_parameter(Name=f"/{sys.argv[1]}/plain")["Parameter"]["Value"]
safe = ssm.get_parameter(Name=f"/{sys.argv[1]}/safe", WithDecryption=True)["Parameter"]["Value"]
queue = sqs.create_queue(QueueName=sys.argv[1])["QueueUrl"]
sqs.send_message(QueueUrl=queue, MessageBody=secret)
message = sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"]
try:
    sqs.send_message(QueueUrl=secret, MessageBody=secret)
    error = ""
except Exception as failure:  # what it says is what is looked at
    error = str(failure)
tell(plain=plain, safe=safe, message=message, error=error, pid=os.getpid())
sys.stdin.readline()
