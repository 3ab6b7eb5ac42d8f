"""Makes `wire.ndjson.zst`: requests as the real botocore client builds and signs them, with what they are.

    pip install botocore==1.44.5 && python wire.py [--all] > wire.ndjson

Every line: service, operation, method, URL, header fields, body in base64, and the input without its binary members.
The key is a made-up one; nothing is sent: the `before-send` event answers in the network's place. `--all` makes every
operation of every service (some 100 MB), for measuring.
"""

import base64
import datetime
import io
import json
import os
import sys
import threading
import warnings

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config

KEY = ("ASIAQWERTYUIOPASDFGH", "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2", "chaperone/placeholder-token")

# What is committed: at least one service of every protocol, and those that have rules of their own.
SERVICES = {
    "s3": None, "sts": None, "sqs": None, "secretsmanager": None,
    "dynamodb": ["GetItem", "PutItem", "Query", "BatchGetItem", "BatchWriteItem", "TransactWriteItems",
                 "TransactGetItems", "ListTables", "DescribeTable", "CreateTable", "UpdateItem", "DeleteItem", "Scan"],
    "ec2": ["RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances", "DescribeImages",
            "AuthorizeSecurityGroupIngress", "CreateVpc", "DescribeVpcs", "CreateSecurityGroup", "StopInstances"],
    "lambda": ["Invoke", "CreateFunction", "ListFunctions", "GetFunction", "DeleteFunction", "AddPermission",
               "UpdateFunctionCode", "UpdateFunctionConfiguration", "TagResource", "GetLayerVersionByArn",
               "ListProvisionedConcurrencyConfigs", "GetProvisionedConcurrencyConfig", "InvokeWithResponseStream"],
    "iam": ["CreateUser", "ListUsers", "GetUser", "CreateRole", "AttachRolePolicy", "PutUserPolicy", "PassRole",
            "CreateAccessKey", "DeleteUser", "GetRole", "TagRole", "SimulatePrincipalPolicy", "ListRoles"],
    "cloudwatch": None,
    "sns": ["Publish", "PublishBatch", "CreateTopic", "ListTopics", "Subscribe", "SetTopicAttributes"],
    "route53": ["ChangeResourceRecordSets", "ListHostedZones", "CreateHostedZone", "GetHostedZone",
                "ChangeTagsForResource"],
    "cloudfront": ["CreateDistributionWithTags", "CreateDistribution", "TagResource", "UntagResource",
                   "CreateInvalidation", "GetDistribution"],
    "s3control": ["GetPublicAccessBlock", "PutPublicAccessBlock", "CreateAccessPoint", "ListAccessPoints", "CreateJob"],
    "apigateway": ["GetRestApis", "CreateResource", "DeleteRestApi", "PutIntegration", "GetApiKeys", "CreateDeployment"],
    "apigatewayv2": ["GetApis", "CreateRoute", "DeleteApi"],
    "kms": ["Encrypt", "Decrypt", "GenerateDataKey", "CreateKey", "ScheduleKeyDeletion", "ReEncrypt", "CreateAlias"],
    "ssm": ["GetParameter", "PutParameter", "SendCommand", "GetParametersByPath", "StartSession"],
    "logs": ["CreateLogGroup", "PutLogEvents", "FilterLogEvents", "DescribeLogGroups"],
    "cloudformation": ["CreateStack", "DescribeStacks", "DeleteStack", "ListStacks"],
    "bedrock-runtime": ["InvokeModel", "Converse", "InvokeModelWithResponseStream"],
    "ecs": ["RunTask", "RegisterTaskDefinition", "ListClusters"], "ecr": ["GetAuthorizationToken", "BatchGetImage"],
    "eks": ["DescribeCluster", "ListClusters", "TagResource"], "rds": ["DescribeDBInstances", "CreateDBInstance"],
    "stepfunctions": ["StartExecution", "CreateStateMachine", "StartSyncExecution"],
    "events": ["PutEvents", "PutRule", "PutTargets"], "glue": ["GetTable", "CreateJob"],
    "cognito-idp": ["InitiateAuth", "AdminCreateUser"], "sso-oidc": None, "chime-sdk-messaging": None,
    "kinesis": ["PutRecord", "GetRecords", "DescribeStream"], "ses": ["SendEmail"], "sesv2": ["SendEmail"],
    "glacier": ["UploadArchive", "InitiateJob", "ListVaults", "AddTagsToVault"], "redshift": ["DescribeClusters"],
    "autoscaling": ["DescribeAutoScalingGroups", "CreateAutoScalingGroup"], "batch": ["SubmitJob"],
    "iot": ["CreateThing", "ListThings"], "iot-data": ["GetThingShadow"], "opensearch": ["DescribeDomain"],
    "elasticbeanstalk": ["DescribeEnvironments"], "mediastore-data": ["PutObject", "GetObject"], "qconnect": ["ListAssistants"],
    "timestream-query": ["Query"], "sagemaker": ["CreateTrainingJob", "ListEndpoints"], "athena": ["StartQueryExecution"],
    "organizations": ["ListAccounts"], "resourcegroupstaggingapi": ["TagResources"], "mpa": ["ListApprovalTeams"],
    "swf": ["ListDomains"], "dax": ["DescribeClusters"], "arc-region-switch": None,
}


def value(shape, name, full, depth, seen):
    kind = shape.type_name
    if kind == "string":
        if shape.enum:
            return shape.enum[0]
        text = {"Bucket": "my-bucket", "Key": "a folder/k+e:y~é", "CopySource": "other-bucket/k%C3%A9y"}.get(name)
        if text is None:
            text = {"AccountId": "123456789012", "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
                    "TableName": "Music", "graphIdentifier": "g-0123456789"}.get(name, f"{name}-1")
        if name.lower().endswith("rolearn") or name in ("Role", "roleArn"):
            text = "arn:aws:iam::123456789012:role/worker"
        return text.ljust(min(shape.metadata.get("min", 0), 200), "x")
    if kind in ("integer", "long"):
        return max(shape.metadata.get("min", 0), 3)
    if kind in ("float", "double"):
        return 1.5
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return datetime.datetime(2025, 6, 1, tzinfo=datetime.timezone.utc)
    if kind == "blob":
        return b"some bytes"
    if kind == "list":
        if shape.name in seen or depth > 4:
            return []
        one = value(shape.member, shape.member.name, full, depth + 1, seen | {shape.name})
        return [one] if one is not None else []
    if kind == "map":
        if depth > 4:
            return {}
        one = value(shape.value, "v", full, depth + 1, seen | {shape.name})
        return {"k1": one} if one is not None else {}
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return {"a": 1}
        if getattr(shape, "is_eventstream", False) or shape.name in seen and depth > 0:
            return None
        out = {}
        for member, inner in shape.members.items():
            wanted = full if depth < 3 else False
            if member in shape.required_members or wanted:
                if getattr(shape, "is_tagged_union", False) and out:
                    break
                one = value(inner, member, full, depth + 1, seen | {shape.name})
                if one is not None:
                    out[member] = one
        return out
    return None


def without_blobs(data):
    if isinstance(data, dict):
        return {k: without_blobs(v) for k, v in data.items() if not isinstance(v, bytes) and not hasattr(v, "read")}
    if isinstance(data, list):
        return [without_blobs(v) for v in data if not isinstance(v, bytes)]
    if isinstance(data, datetime.datetime):
        return "<time>"
    return data


class Raw(io.BytesIO):
    def stream(self, *_args, **_kwargs):
        yield b""


def requests(session, name, operations, region, fulls, **config):
    client = session.create_client(
        name, region_name=region, aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1], aws_session_token=KEY[2],
        config=Config(parameter_validation=False, retries={"max_attempts": 0}, endpoint_discovery_enabled=False,
                      disable_request_compression=True, **config))
    model = client.meta.service_model
    kept = []

    def capture(request, **_kwargs):
        kept.append(request)
        return AWSResponse(request.url, 400, {}, Raw())

    client.meta.events.register("before-send", capture)
    for operation in operations or model.operation_names:
        if operation not in model.operation_names:
            continue
        shape = model.operation_model(operation).input_shape
        for full in fulls:
            if shape is not None and full and not set(shape.members) - set(shape.required_members):
                continue
            arguments = value(shape, "", full, 0, frozenset()) if shape is not None else {}
            arguments = arguments or {}
            kept.clear()
            try:
                client._make_api_call(operation, arguments)
            except Exception as problem:
                error = problem
            if not kept:
                print(name, operation, full, "not built:", repr(error)[:200], file=sys.stderr)
                continue
            request = kept[0]
            body = request.body or b""
            if hasattr(body, "read"):
                body = body.read()
            if isinstance(body, str):
                body = body.encode()
            headers = [[k, v.decode() if isinstance(v, bytes) else str(v)] for k, v in request.headers.items()
                       if k.lower() not in ("user-agent", "amz-sdk-invocation-id", "amz-sdk-request")]
            yield {"s": name, "o": operation, "m": request.method, "u": request.url, "h": headers,
                   "b": base64.b64encode(body).decode(), "p": without_blobs(arguments)}


def main():
    warnings.simplefilter("ignore")
    for variable in list(os.environ):
        if variable.startswith("AWS_"):
            del os.environ[variable]
    session = botocore.session.Session()
    everything = "--all" in sys.argv
    names = session.get_available_services() if everything else SERVICES
    for name in names:
        operations = None if everything else SERVICES[name]
        runs = [dict(region="eu-west-1", fulls=(False, True) if everything or operations or name != "s3" else (False,))]
        if name == "s3":
            runs[0]["fulls"] = (False, True)
            runs.append(dict(region="us-east-1", fulls=(False,), s3={"addressing_style": "path"}))
        for run in runs:
            for line in requests(session, name, operations, **run):
                json.dump(line, sys.stdout, separators=(",", ":"), default=str)
                sys.stdout.write("\n")


if __name__ == "__main__":
    main()
