"""Makes `wire.ndjson.zst`: requests as the real botocore client builds and signs them, with what they are.

    pip install 'botocore[crt]==1.44.5' && python wire.py > wire.ndjson

Every line: service, operation, method, URL, header fields, body in base64, and the input without its binary members.
The key is a made-up one; nothing is sent: the `before-send` event answers in the network's place.

`--all` (or `--all SERVICE…`) makes every operation of every service, by every protocol that the service lists, at dual-stack and FIPS
endpoints and in other partitions (some 260,000 lines, 300 MB, five minutes); what botocore won't build is a line too,
with its reason. `cargo xtask catalog --prove` runs it and holds the decoder against it.
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

BUCKET = "my-bucket"
REGION = "eu-west-1"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/s"
STORE = "arn:aws:cloudfront::123456789012:key-value-store/0f0f0f0f"

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
        text = {"Bucket": BUCKET, "Key": "a folder/k+e:y~é", "CopySource": "other-bucket/k%C3%A9y"}.get(name)
        if text is None:
            text = {"AccountId": "123456789012", "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
                    "TableName": "Music", "graphIdentifier": "g-0123456789", "StreamARN": STREAM, "KvsARN": STORE,
                    "ResourceARN": STREAM, "ConsumerARN": STREAM + "/consumer/c:1", "EndpointId": "abcde.veo",
                    "PredictEndpoint": f"https://realtime.machinelearning.{REGION}.amazonaws.com",
                    }.get(name, f"{name}-1")
            if name in ("Statement", "PartiQLStatement"):
                text = "SELECT * FROM Music WHERE Artist='x'"
        if name.lower().endswith("rolearn") or name in ("Role", "roleArn"):
            text = "arn:aws:iam::123456789012:role/worker"
        return text.ljust(min(shape.metadata.get("min", 0), 200), "x")
    if kind in ("integer", "long"):
        return 10 if name == "ContentLength" else max(shape.metadata.get("min", 0), 3)
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
        if shape.serialization.get("eventstream"):
            return None
        if shape.name in seen and depth > 0:
            return None
        out = {}
        for member, inner in shape.members.items():
            if inner.serialization.get("jsonvalue"):  # becomes base64 in a field: said again by no policy
                continue
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
        yield self.read()


def requests(session, name, operations, region, fulls, variant="", protocol=None, endpoint_url=None, **config):
    PROTOCOL.update(force=protocol)
    try:
        client = session.create_client(
            name, region_name=region, aws_access_key_id=KEY[0], aws_secret_access_key=KEY[1], endpoint_url=endpoint_url,
            aws_session_token=KEY[2], config=Config(
                parameter_validation=False, retries={"max_attempts": 0}, disable_request_compression=True,
                endpoint_discovery_enabled=False, **config))
    except Exception as problem:
        yield {"s": name, "o": "*", "v": variant, "not_built": repr(problem)[:120]}
        return
    model = client.meta.service_model
    kept = []

    def capture(request, **_kwargs):
        kept.append(request)
        if request.url.endswith("?session"):  # what a directory bucket's operations need before
            return AWSResponse(request.url, 200, {}, Raw(SESSION))
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
                yield {"s": name, "o": operation, "v": variant, "not_built": repr(error)[:120]}
                continue
            # (After errors S3's client looks for the bucket's region by calls of its own.)
            own = [request for request in kept if not request.url.endswith("?session")]
            request = (own or kept)[0]
            body = request.body or b""
            if hasattr(body, "read"):
                body = body.read()
            if isinstance(body, str):
                body = body.encode()
            headers = [[k, v.decode() if isinstance(v, bytes) else str(v)] for k, v in request.headers.items()
                       if k.lower() not in ("user-agent", "amz-sdk-invocation-id", "amz-sdk-request")]
            names = {k.lower() for k, _ in headers}
            if body and not names & {"content-length", "transfer-encoding"}:
                headers.append(["Content-Length", str(len(body))])  # as urllib3 does, after `before-send`
            line = {"s": name, "o": operation, "m": request.method, "u": request.url, "h": headers,
                    "b": base64.b64encode(body).decode(), "p": without_blobs(arguments)}
            # Where these go, botocore has put into the host, or into another call's signature.
            line["p"] = {k: v for k, v in line["p"].items()
                         if not (k == "Bucket" and BUCKET.startswith("arn:")) and k not in UNSENT.get(name, ())}
            if variant:
                line["v"] = variant
            yield line


UNSENT = {"rds": ("SourceRegion",), "docdb": ("SourceRegion",), "neptune": ("SourceRegion",),
          "machinelearning": ("PredictEndpoint",)}
SESSION = f"""<CreateSessionResult><Credentials><SessionToken>{KEY[2]}</SessionToken><SecretAccessKey>{KEY[1]}
</SecretAccessKey><AccessKeyId>{KEY[0]}</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</CreateSessionResult>""".replace("\n", "").encode()
PROTOCOL = {"force": None}


def force_protocols():
    """Lets a run choose among the protocols that a service lists; botocore itself takes the one it likes best."""
    from botocore import model
    usual = model.ServiceModel.resolved_protocol.fget if isinstance(
        model.ServiceModel.resolved_protocol, property) else model.ServiceModel.resolved_protocol._fget
    model.ServiceModel.resolved_protocol = property(lambda self: PROTOCOL["force"] or usual(self))


# Endpoints that only discovery, or the customer, knows.
ENDPOINTS = {"timestream-write": "https://ingest-cell1.timestream.eu-west-1.amazonaws.com",
             "timestream-query": "https://query-cell1.timestream.eu-west-1.amazonaws.com"}

# Every operation, as other clients and other places have it: each with its least input.
VARIANTS = {
    "dual stack": dict(region="eu-west-1", use_dualstack_endpoint=True),
    "FIPS": dict(region="us-east-1", use_fips_endpoint=True),
    "FIPS, dual stack": dict(region="us-east-1", use_fips_endpoint=True, use_dualstack_endpoint=True),
    "us-east-1": dict(region="us-east-1"),
    "China": dict(region="cn-north-1"),
    "China, dual stack": dict(region="cn-north-1", use_dualstack_endpoint=True),
    "GovCloud": dict(region="us-gov-west-1"),
    "GovCloud, FIPS": dict(region="us-gov-west-1", use_fips_endpoint=True),
    "us-iso-east-1": dict(region="us-iso-east-1"),
    "us-isob-east-1": dict(region="us-isob-east-1"),
    "eusc-de-east-1": dict(region="eusc-de-east-1"),
}
# S3's other forms of hosts.
S3 = {
    "S3, path": dict(region="us-east-1", s3={"addressing_style": "path"}),
    "S3, accelerate": dict(region="eu-west-1", s3={"use_accelerate_endpoint": True}),
    "S3, accelerate, dual stack": dict(region="eu-west-1", use_dualstack_endpoint=True,
                                       s3={"use_accelerate_endpoint": True}),
    "S3, access point": dict(region="eu-west-1", bucket="arn:aws:s3:eu-west-1:123456789012:accesspoint/ap"),
    "S3, access point, dual stack": dict(region="eu-west-1", use_dualstack_endpoint=True,
                                         bucket="arn:aws:s3:eu-west-1:123456789012:accesspoint/ap"),
    "S3, Object Lambda": dict(region="eu-west-1", bucket="arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/ol"),
    "S3, Outposts": dict(region="eu-west-1",
                         bucket="arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01234567890123456/accesspoint/ap"),
    "S3, directory bucket": dict(region="us-east-1", bucket="b--use1-az4--x-s3"),
    "S3, multi-region access point": dict(region="us-east-1", bucket="arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"),
    "S3, VPC endpoint": dict(region="us-east-1", without=("ListDirectoryBuckets", "WriteGetObjectResponse"), endpoint_url="https://bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com"),
}


def runs_of(session, name, everything):
    """What is built of a service: keyword arguments of `requests`."""
    if not everything:
        yield dict(region="eu-west-1", fulls=(False, True))
        if name == "s3":
            yield dict(region="us-east-1", fulls=(False,), s3={"addressing_style": "path"})
        return
    metadata = session.get_service_model(name).metadata
    protocols = list(metadata.get("protocols") or [metadata["protocol"]])
    if "awsQueryCompatible" in metadata and "query" not in protocols:
        protocols.append("query")
    PROTOCOL.update(force=None)
    own = session.get_service_model(name).resolved_protocol
    endpoint = ENDPOINTS.get(name)
    yield dict(region="eu-west-1", fulls=(False, True), endpoint_url=endpoint)
    for protocol in protocols:
        if protocol != own:
            yield dict(region="eu-west-1", fulls=(False, True), variant=protocol, protocol=protocol, endpoint_url=endpoint)
    for variant, config in VARIANTS.items():
        yield dict(config, variant=variant, fulls=(False,))
    if name == "s3":
        for variant, config in S3.items():
            yield dict(config, variant=variant, fulls=(False, True))


def main():
    global BUCKET, REGION
    warnings.simplefilter("ignore")
    for variable in list(os.environ):
        if variable.startswith("AWS_"):
            del os.environ[variable]
    for service in ("CODECATALYST", "ACCOUNT_ACCESS_RUNTIME"):
        os.environ[f"AWS_BEARER_TOKEN_{service}"] = "a-token"
    session = botocore.session.Session()
    everything = "--all" in sys.argv
    force_protocols()
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    names = wanted or (session.get_available_services() if everything else SERVICES)
    for name in names:
        operations = None if everything else SERVICES[name]
        for run in runs_of(session, name, everything):
            BUCKET = run.pop("bucket", "my-bucket")
            REGION = run["region"]
            without = run.pop("without", ())  # these have hosts of their own
            for line in requests(session, name, operations, **run):
                if line["o"] in without:
                    continue
                if not everything and "not_built" in line:
                    print(line, file=sys.stderr)
                    continue
                json.dump(line, sys.stdout, separators=(",", ":"), default=str)
                sys.stdout.write("\n")


if __name__ == "__main__":
    main()
