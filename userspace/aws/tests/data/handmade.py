"""Makes `handmade.ndjson.zst`: requests that name a resource in ways that AWS takes and that a reader may overlook, each
with a resource that a policy forbids and that the request touches.

    pip install 'botocore[crt]==1.44.5' && python handmade.py | zstd -19 > handmade.ndjson.zst

Every line: what it is, method, URL, header fields, body in base64, and the ARN. `free` instead of `forbidden`: what the
request doesn't touch, so that a policy that forbids it leaves the request alone. Nothing is sent.
"""

import base64
import io
import json
import os

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config

REGION = "eu-west-1"
ACCOUNT = "123456789012"
THEIRS = "999999999999"
CLIENTS = {}
TAKEN = []


class Raw(io.BytesIO):
    def stream(self, *_args, **_kwargs):
        yield self.read()


def capture(request, **_kwargs):
    body = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers = [[name, value.decode() if isinstance(value, bytes) else str(value)] for name, value in request.headers.items()]
    TAKEN.append({"m": request.method, "u": request.url, "h": headers, "b": base64.b64encode(body).decode()})
    return AWSResponse(request.url, 200, {}, Raw(b"{}"))


SESSION = botocore.session.Session()


def arn(service, name, region=REGION, account=ACCOUNT):
    return f"arn:aws:{service}:{region}:{account}:{name}"


def ask(service, operation, forbidden=(), /, free=(), region=REGION, **inputs):
    client = CLIENTS.get((service, region))
    if client is None:
        client = CLIENTS[service, region] = SESSION.create_client(
            service, region_name=region, aws_access_key_id="ASIAQWERTYUIOPASDFGH",
            aws_secret_access_key="uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2", aws_session_token="chaperone/placeholder-token",
            config=Config(parameter_validation=False, retries={"max_attempts": 0}))
        client.meta.events.register("before-send", capture)
    TAKEN.clear()
    # One call for several operations has members that some of them lack.
    shape = client.meta.service_model.operation_model(operation).input_shape
    inputs = {name: value for name, value in inputs.items() if name in shape.members}
    try:
        client._make_api_call(operation, inputs)
    except Exception as problem:  # what the answer lacks
        if not TAKEN:
            raise SystemExit(f"{service} {operation}: {problem!r}")
    as_list = lambda one: [one] if isinstance(one, str) else list(one)
    line = {"w": f"{service}:{operation} {json.dumps(inputs, default=str)}", **TAKEN[0],
            "forbidden": as_list(forbidden), "free": as_list(free)}
    print(json.dumps(line, separators=(",", ":")))


def lambda_():
    prod = arn("lambda", "function:prod")
    for name in ("prod", prod, prod + ":7", "prod:live", f"{ACCOUNT}:function:prod", f"{ACCOUNT}:prod", "function:prod",
                 f"{REGION}:{ACCOUNT}:function:prod:3"):
        for operation in ("DeleteFunction", "GetFunction", "UpdateFunctionConfiguration", "PutFunctionConcurrency"):
            ask("lambda", operation, prod, FunctionName=name, ReservedConcurrentExecutions=1)
        ask("lambda", "Invoke", prod, FunctionName=name)
        ask("lambda", "CreateEventSourceMapping", prod, FunctionName=name, EventSourceArn=arn("sqs", "jobs"))
        ask("lambda", "AddPermission", prod, FunctionName=name, StatementId="s", Action="lambda:*", Principal="*")
    ask("lambda", "CreateEventSourceMapping", arn("sqs", "prod"), FunctionName="f", EventSourceArn=arn("sqs", "prod"))
    ask("lambda", "CreateEventSourceMapping", arn("kinesis", "stream/prod"), FunctionName="f",
        EventSourceArn=arn("kinesis", "stream/prod"))
    ask("lambda", "Invoke", prod + ":live", FunctionName="prod", Qualifier="live")
    ask("lambda", "CreateAlias", prod, FunctionName="prod", Name="live", FunctionVersion="1")
    ask("lambda", "TagResource", prod, Resource=prod, Tags={"a": "b"})
    ask("lambda", "TagResource", prod, Resource=prod + ":live", Tags={"a": "b"})
    ask("lambda", "PutFunctionEventInvokeConfig", prod, FunctionName="prod", DestinationConfig={})
    ask("lambda", "PutFunctionEventInvokeConfig", arn("sns", "prod"), FunctionName="dev",
        DestinationConfig={"OnFailure": {"Destination": arn("sns", "prod")}})
    ask("lambda", "UpdateFunctionConfiguration", arn("kms", "key/1234"), FunctionName="dev", KMSKeyArn=arn("kms", "key/1234"))
    ask("lambda", "CreateFunction", "arn:aws:s3:::prod/code.zip", FunctionName="dev", Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Code={"S3Bucket": "prod", "S3Key": "code.zip"})
    ask("lambda", "CreateFunction", arn("ecr", "repository/prod"), FunctionName="dev", Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Code={"ImageUri": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/prod:latest"})
    ask("lambda", "Invoke", free=arn("lambda", "function:production"), FunctionName="prod")


def ec2():
    i, vol, sg = arn("ec2", "instance/i-0abc"), arn("ec2", "volume/vol-0abc"), arn("ec2", "security-group/sg-0abc")
    ask("ec2", "TerminateInstances", i, InstanceIds=["i-0def", "i-0abc"])
    ask("ec2", "ModifyInstanceAttribute", i, InstanceId="i-0abc", Attribute="userData", Value="x")
    ask("ec2", "AttachVolume", [i, vol], InstanceId="i-0abc", VolumeId="vol-0abc", Device="x")
    ask("ec2", "DetachVolume", [i, vol], VolumeId="vol-0abc")
    ask("ec2", "CreateSnapshot", [vol, "arn:aws:ec2:*:*:snapshot/*"], VolumeId="vol-0abc")
    ask("ec2", "CreateSnapshots", [i], InstanceSpecification={"InstanceId": "i-0abc"})
    ask("ec2", "CreateImage", i, InstanceId="i-0abc", Name="n")
    ask("ec2", "CopySnapshot", "arn:aws:ec2:us-east-1::snapshot/snap-0abc", SourceRegion="us-east-1", SourceSnapshotId="snap-0abc")
    ask("ec2", "CopyImage", "arn:aws:ec2:us-east-1::image/ami-0abc", SourceRegion="us-east-1", SourceImageId="ami-0abc", Name="n")
    ask("ec2", "CreateVolume", f"arn:aws:ec2:{REGION}::snapshot/snap-0abc", SnapshotId="snap-0abc", AvailabilityZone="a")
    ask("ec2", "AuthorizeSecurityGroupIngress", sg, GroupId="sg-0abc")
    ask("ec2", "AuthorizeSecurityGroupIngress", sg, GroupName="prod")
    ask("ec2", "AuthorizeSecurityGroupIngress", sg, GroupId="sg-1", IpPermissions=[{"UserIdGroupPairs": [{"GroupId": "sg-0abc"}]}])
    ask("ec2", "RunInstances", [sg, i.replace("i-0abc", "*")], ImageId="ami-1", MinCount=1, MaxCount=1,
        NetworkInterfaces=[{"DeviceIndex": 0, "Groups": ["sg-0abc"]}])
    ask("ec2", "RunInstances", sg, ImageId="ami-1", MinCount=1, MaxCount=1, SecurityGroups=["prod"])
    ask("ec2", "RunInstances", arn("ec2", "subnet/subnet-1"), ImageId="ami-1", MinCount=1, MaxCount=1)
    ask("ec2", "RunInstances", f"arn:aws:ec2:{REGION}::snapshot/snap-0abc", ImageId="ami-1", MinCount=1, MaxCount=1,
        BlockDeviceMappings=[{"DeviceName": "x", "Ebs": {"SnapshotId": "snap-0abc"}}])
    ask("ec2", "RunInstances", f"arn:aws:iam::{ACCOUNT}:instance-profile/prod", ImageId="ami-1", MinCount=1, MaxCount=1,
        IamInstanceProfile={"Name": "prod"})
    ask("ec2", "CreateLaunchTemplateVersion", arn("ec2", "launch-template/lt-1"), LaunchTemplateName="prod", LaunchTemplateData={})
    ask("ec2", "CreateLaunchTemplateVersion", arn("ec2", "launch-template/lt-1"), LaunchTemplateId="lt-1", LaunchTemplateData={})
    ask("ec2", "CreateTags", i, Resources=["vpc-1", "i-0abc"], Tags=[{"Key": "a", "Value": "b"}])
    ask("ec2", "CreateRoute", arn("ec2", "route-table/rtb-1"), RouteTableId="rtb-1", DestinationCidrBlock="0.0.0.0/0", GatewayId="igw-1")
    ask("ec2", "CreateRoute", arn("ec2", "internet-gateway/igw-1"), RouteTableId="rtb-1", GatewayId="igw-1")
    ask("ec2", "CreateRoute", arn("ec2", "network-interface/eni-1"), RouteTableId="rtb-1", NetworkInterfaceId="eni-1")
    ask("ec2", "AssociateAddress", [i, arn("ec2", "elastic-ip/eipalloc-1")], AllocationId="eipalloc-1", InstanceId="i-0abc")
    ask("ec2", "AssociateAddress", arn("ec2", "elastic-ip/eipalloc-1"), PublicIp="1.2.3.4", InstanceId="i-1")
    ask("ec2", "ModifySnapshotAttribute", f"arn:aws:ec2:{REGION}::snapshot/snap-0abc", SnapshotId="snap-0abc",
        Attribute="createVolumePermission", OperationType="add", UserIds=[THEIRS])
    ask("ec2", "ModifyImageAttribute", f"arn:aws:ec2:{REGION}::image/ami-0abc", ImageId="ami-0abc")
    ask("ec2", "GetPasswordData", i, InstanceId="i-0abc")
    ask("ec2", "GetConsoleOutput", i, InstanceId="i-0abc")
    ask("ec2", "ReplaceIamInstanceProfileAssociation", i, IamInstanceProfile={"Name": "x"}, AssociationId="iip-assoc-1")
    ask("ec2", "AssociateIamInstanceProfile", [i, f"arn:aws:iam::{ACCOUNT}:instance-profile/prod"],
        IamInstanceProfile={"Arn": f"arn:aws:iam::{ACCOUNT}:instance-profile/prod"}, InstanceId="i-0abc")
    ask("ec2", "DeleteVpcEndpoints", arn("ec2", "vpc-endpoint/vpce-1"), VpcEndpointIds=["vpce-2", "vpce-1"])
    ask("ec2", "CreateVpcEndpoint", [arn("ec2", "vpc-endpoint/*"), arn("ec2", "route-table/rtb-1"), sg], VpcId="vpc-1",
        ServiceName="s", RouteTableIds=["rtb-1"], SecurityGroupIds=["sg-0abc"])
    ask("ec2", "ExportImage", f"arn:aws:ec2:{REGION}::image/ami-0abc", DiskImageFormat="RAW", ImageId="ami-0abc",
        S3ExportLocation={"S3Bucket": "b"})
    ask("ec2", "CreateStoreImageTask", [f"arn:aws:ec2:{REGION}::image/ami-0abc", "arn:aws:s3:::prod"], ImageId="ami-0abc", Bucket="prod")
    ask("ec2", "TerminateInstances", free=i, InstanceIds=["i-0def"])
    ask("ec2", "CreateSnapshot", free=f"arn:aws:ec2:{REGION}::snapshot/snap-0abc", VolumeId="vol-1")


def rds():
    db, cluster = arn("rds", "db:prod"), arn("rds", "cluster:prod")
    for name in ("prod", "PROD", "Prod", db):
        for operation in ("DeleteDBInstance", "ModifyDBInstance", "RebootDBInstance", "StopDBInstance"):
            ask("rds", operation, db, DBInstanceIdentifier=name)
        ask("rds", "CreateDBSnapshot", [db, arn("rds", "snapshot:s")], DBInstanceIdentifier=name, DBSnapshotIdentifier="S")
        ask("rds", "RestoreDBInstanceToPointInTime", db, SourceDBInstanceIdentifier=name, TargetDBInstanceIdentifier="t")
        ask("rds", "CreateDBInstanceReadReplica", db, SourceDBInstanceIdentifier=name, DBInstanceIdentifier="r")
        ask("rds", "DownloadDBLogFilePortion", db, DBInstanceIdentifier=name, LogFileName="l")
    ask("rds", "RestoreDBInstanceToPointInTime", db, SourceDbiResourceId="db-ABC", TargetDBInstanceIdentifier="t")
    ask("rds", "RestoreDBInstanceToPointInTime", db, SourceDBInstanceIdentifier="x", TargetDBInstanceIdentifier="prod")
    for name in ("prod", "PROD", cluster):
        ask("rds", "DeleteDBCluster", cluster, DBClusterIdentifier=name)
        ask("rds", "RestoreDBClusterToPointInTime", cluster, SourceDBClusterIdentifier=name, DBClusterIdentifier="t")
        ask("rds", "CreateDBInstance", cluster, DBClusterIdentifier=name, DBInstanceIdentifier="i", DBInstanceClass="c", Engine="e")
        ask("rds", "AddRoleToDBCluster", cluster, DBClusterIdentifier=name, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    snapshot = arn("rds", "snapshot:prod")
    for name in ("prod", "PROD", snapshot):
        ask("rds", "CopyDBSnapshot", snapshot, SourceDBSnapshotIdentifier=name, TargetDBSnapshotIdentifier="t")
        ask("rds", "RestoreDBInstanceFromDBSnapshot", snapshot, DBSnapshotIdentifier=name, DBInstanceIdentifier="t")
        ask("rds", "ModifyDBSnapshotAttribute", snapshot, DBSnapshotIdentifier=name, AttributeName="restore", ValuesToAdd=["all"])
        ask("rds", "RestoreDBClusterFromSnapshot", snapshot, SnapshotIdentifier=name, DBClusterIdentifier="t", Engine="e")
    ask("rds", "StartExportTask", snapshot, ExportTaskIdentifier="e", SourceArn=snapshot, S3BucketName="b", KmsKeyId="k",
        IamRoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    ask("rds", "AddTagsToResource", db, ResourceName=db, Tags=[{"Key": "a", "Value": "b"}])
    ask("rds", "ModifyDBInstance", db, DBInstanceIdentifier="dev", NewDBInstanceIdentifier="PROD")
    ask("rds", "ModifyDBCluster", cluster, DBClusterIdentifier="dev", NewDBClusterIdentifier="Prod")
    ask("rds", "CreateBlueGreenDeployment", db, BlueGreenDeploymentName="n", Source=db)
    ask("rds", "DeleteDBInstance", free=db, DBInstanceIdentifier="product")
    ask("rds-data", "ExecuteStatement", [cluster, arn("secretsmanager", "secret:prod-AbCdEf")], resourceArn=cluster,
        secretArn=arn("secretsmanager", "secret:prod-AbCdEf"), sql="s")
    ask("redshift", "DeleteCluster", arn("redshift", "cluster:prod"), ClusterIdentifier="PROD")
    ask("redshift", "RestoreFromClusterSnapshot", arn("redshift", "snapshot:c/prod"), ClusterIdentifier="x", SnapshotIdentifier="Prod",
        SnapshotClusterIdentifier="c")
    ask("redshift-data", "ExecuteStatement", arn("redshift", "cluster:prod"), ClusterIdentifier="prod", Sql="s", Database="d")
    ask("elasticache", "DeleteReplicationGroup", arn("elasticache", "replicationgroup:prod"), ReplicationGroupId="Prod")
    ask("elasticache", "CopySnapshot", arn("elasticache", "snapshot:prod"), SourceSnapshotName="PROD", TargetSnapshotName="t")


def kms():
    key = arn("kms", "key/1234abcd-12ab-34cd-56ef-1234567890ab")
    for name in ("1234abcd-12ab-34cd-56ef-1234567890ab", key, "alias/prod", arn("kms", "alias/prod")):
        for operation in ("Decrypt", "Encrypt", "ScheduleKeyDeletion", "DisableKey", "GetPublicKey", "PutKeyPolicy", "CreateGrant"):
            ask("kms", operation, key, KeyId=name, Plaintext=b"x", CiphertextBlob=b"x", GranteePrincipal="p", Operations=["Decrypt"])
        ask("kms", "ReEncrypt", key, CiphertextBlob=b"x", DestinationKeyId=name, SourceKeyId="k")
        ask("kms", "ReEncrypt", key, CiphertextBlob=b"x", DestinationKeyId="k", SourceKeyId=name)
        ask("kms", "UpdateAlias", key, AliasName="alias/dev", TargetKeyId=name)
        ask("kms", "CreateAlias", key, AliasName="alias/dev", TargetKeyId=name)
    ask("kms", "Decrypt", key, CiphertextBlob=b"x")
    ask("kms", "ReEncrypt", key, CiphertextBlob=b"x", DestinationKeyId="k")
    ask("kms", "UpdateAlias", arn("kms", "alias/prod"), AliasName="alias/prod", TargetKeyId="k")
    ask("kms", "DeleteAlias", arn("kms", "alias/prod"), AliasName="alias/prod")
    ask("kms", "ReplicateKey", key, KeyId=key, ReplicaRegion="us-east-1")
    # Keys in other services' members.
    for service, operation, more in (
            ("secretsmanager", "CreateSecret", dict(Name="n", KmsKeyId=key)), ("sqs", "SetQueueAttributes", dict(
                QueueUrl=f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/q", Attributes={"KmsMasterKeyId": key})),
            ("logs", "AssociateKmsKey", dict(logGroupName="g", kmsKeyId=key)), ("ec2", "CreateVolume", dict(KmsKeyId=key, AvailabilityZone="a")),
            ("ec2", "CopySnapshot", dict(KmsKeyId=key, SourceRegion="r", SourceSnapshotId="s")),
            ("rds", "CreateDBInstance", dict(DBInstanceIdentifier="i", DBInstanceClass="c", Engine="e", KmsKeyId=key)),
            ("dynamodb", "UpdateTable", dict(TableName="t", SSESpecification={"KMSMasterKeyId": key})),
            ("s3", "PutObject", dict(Bucket="b", Key="k", Body=b"", SSEKMSKeyId=key, ServerSideEncryption="aws:kms")),
            ("efs", "CreateFileSystem", dict(CreationToken="t", KmsKeyId=key)), ("glue", "CreateMLTransform", dict(
                Name="n", InputRecordTables=[], Parameters={}, Role="r", TransformEncryption={"MlUserDataEncryption": {"KmsKeyId": key}}))):
        ask(service, operation, key, **more)


def secrets():
    secret = arn("secretsmanager", "secret:prod-AbCdEf")
    for name in ("prod", secret, secret[:-7], "prod-AbCdEf"):
        for operation in ("GetSecretValue", "DeleteSecret", "PutSecretValue", "UpdateSecret", "DescribeSecret", "PutResourcePolicy",
                          "RotateSecret"):
            ask("secretsmanager", operation, secret, SecretId=name)
        ask("secretsmanager", "BatchGetSecretValue", secret, SecretIdList=["dev", name])
    ask("secretsmanager", "BatchGetSecretValue", secret, Filters=[{"Key": "name", "Values": ["prod"]}])
    ask("secretsmanager", "RotateSecret", arn("lambda", "function:prod"), SecretId="dev", RotationLambdaARN=arn("lambda", "function:prod"))
    ask("secretsmanager", "GetSecretValue", free=secret, SecretId="dev")
    parameter = arn("ssm", "parameter/prod/db")
    for name in ("/prod/db", "prod/db", "/prod/db:3", "/prod/db:label", parameter, parameter + ":2"):
        for operation in ("GetParameter", "DeleteParameter", "PutParameter", "GetParameterHistory"):
            ask("ssm", operation, parameter, Name=name, Value="v")
        ask("ssm", "GetParameters", parameter, Names=["dev", name])
        ask("ssm", "DeleteParameters", parameter, Names=[name, "dev"])
    ask("ssm", "LabelParameterVersion", parameter, Name="/prod/db", Labels=["l"])
    ask("ssm", "GetParametersByPath", parameter, Path="/prod")
    ask("ssm", "GetParametersByPath", parameter, Path="/", Recursive=True)
    ask("ssm", "GetParameter", secret, Name="/aws/reference/secretsmanager/prod")
    ask("ssm", "GetParameters", secret, Names=["/aws/reference/secretsmanager/prod"])
    i = arn("ec2", "instance/i-0abc")
    ask("ssm", "SendCommand", i, DocumentName="AWS-RunShellScript", InstanceIds=["i-0abc"])
    ask("ssm", "SendCommand", i, DocumentName="AWS-RunShellScript", Targets=[{"Key": "InstanceIds", "Values": ["i-0abc"]}])
    ask("ssm", "SendCommand", arn("ssm", "document/prod"), DocumentName=arn("ssm", "document/prod"), InstanceIds=["i-1"])
    ask("ssm", "StartSession", i, Target="i-0abc")
    ask("ssm", "StartSession", arn("ssm", "document/prod"), Target="i-1", DocumentName="prod")
    ask("ssm", "StartAutomationExecution", i, DocumentName="AWS-StopEC2Instance", Parameters={"InstanceId": ["i-0abc"]})
    ask("ssm", "CreateAssociation", i, Name="d", Targets=[{"Key": "InstanceIds", "Values": ["i-0abc"]}])
    ask("ssm", "UpdateDocument", arn("ssm", "document/prod"), Name="prod", Content="c")
    ask("ssm", "ModifyDocumentPermission", arn("ssm", "document/prod"), Name="prod", PermissionType="Share")


def messages():
    queue = arn("sqs", "prod")
    url = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/prod"
    for one in (url, "prod", f"https://{REGION}.queue.amazonaws.com/{ACCOUNT}/prod", f"https://queue.amazonaws.com/{ACCOUNT}/prod", url + "/"):
        for operation in ("SendMessage", "ReceiveMessage", "PurgeQueue", "DeleteQueue", "SetQueueAttributes", "AddPermission"):
            ask("sqs", operation, queue, QueueUrl=one, MessageBody="m", Attributes={}, Label="l", AWSAccountIds=[], Actions=[])
    ask("sqs", "GetQueueUrl", queue, QueueName="prod")
    ask("sqs", "GetQueueUrl", arn("sqs", "prod", account=THEIRS), QueueName="prod", QueueOwnerAWSAccountId=THEIRS)
    ask("sqs", "StartMessageMoveTask", queue, SourceArn=arn("sqs", "dlq"), DestinationArn=queue)
    ask("sqs", "SetQueueAttributes", queue, QueueUrl=url.replace("prod", "dev"),
        Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": queue, "maxReceiveCount": 1})})
    topic = arn("sns", "prod")
    for operation in ("Publish", "DeleteTopic", "SetTopicAttributes", "AddPermission", "GetTopicAttributes", "ListSubscriptionsByTopic"):
        ask("sns", operation, topic, TopicArn=topic, Message="m", AttributeName="Policy", Label="l", AWSAccountId=["a"], ActionName=["b"])
    ask("sns", "Publish", topic, TargetArn=topic, Message="m")
    ask("sns", "PublishBatch", topic, TopicArn=topic, PublishBatchRequestEntries=[])
    ask("sns", "CreateTopic", topic, Name="prod")
    ask("sns", "Subscribe", [arn("sns", "dev"), queue], TopicArn=arn("sns", "dev"), Protocol="sqs", Endpoint=queue)
    ask("sns", "Subscribe", arn("lambda", "function:prod"), TopicArn=arn("sns", "dev"), Protocol="lambda", Endpoint=arn("lambda", "function:prod"))
    ask("sns", "Unsubscribe", topic, SubscriptionArn=topic + ":1234")
    ask("sns", "SetSubscriptionAttributes", topic, SubscriptionArn=topic + ":1234", AttributeName="a")
    ask("sns", "SetSubscriptionAttributes", queue, SubscriptionArn=arn("sns", "dev:1"), AttributeName="RedrivePolicy",
        AttributeValue=json.dumps({"deadLetterTargetArn": queue}))
    bus = arn("events", "event-bus/prod")
    ask("events", "PutEvents", bus, Entries=[{"EventBusName": "prod"}, {"EventBusName": "dev"}])
    ask("events", "PutEvents", bus, Entries=[{"EventBusName": "dev"}, {"EventBusName": bus}])
    ask("events", "PutEvents", arn("events", "event-bus/default"), Entries=[{"Source": "s"}])
    ask("events", "PutPermission", bus, EventBusName="prod", Action="a", Principal="*", StatementId="s")
    ask("events", "PutPermission", arn("events", "event-bus/default"), Action="a", Principal="*", StatementId="s")
    for target in (arn("lambda", "function:prod"), queue, topic, bus, arn("ecs", "cluster/prod"), arn("states", "stateMachine:prod"),
                   arn("ssm", "automation-definition/prod")):
        ask("events", "PutTargets", target, Rule="r", Targets=[{"Id": "1", "Arn": target}])
    ask("events", "PutTargets", queue, Rule="r", Targets=[{"Id": "1", "Arn": "a", "DeadLetterConfig": {"Arn": queue}}])
    ask("events", "PutTargets", arn("ecs", "task-definition/prod:1"), Rule="r",
        Targets=[{"Id": "1", "Arn": "a", "EcsParameters": {"TaskDefinitionArn": arn("ecs", "task-definition/prod:1")}}])
    rule = arn("events", "rule/prod")
    for operation in ("DisableRule", "DeleteRule", "DescribeRule", "PutRule"):
        ask("events", operation, rule, Name="prod")
        ask("events", operation, rule, Name="prod", EventBusName="default")
        ask("events", operation, rule, Name="prod", EventBusName=arn("events", "event-bus/default"))
        ask("events", operation, arn("events", "rule/bus/prod"), Name="prod", EventBusName="bus")
    ask("events", "StartReplay", [bus, arn("events", "archive/a")], ReplayName="r", EventSourceArn=arn("events", "archive/a"),
        Destination={"Arn": bus})
    ask("pipes", "CreatePipe", [queue, arn("lambda", "function:prod")], Name="p", Source=queue, Target=arn("lambda", "function:prod"),
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    ask("scheduler", "CreateSchedule", arn("lambda", "function:prod"), Name="s", ScheduleExpression="e", FlexibleTimeWindow={},
        Target={"Arn": arn("lambda", "function:prod"), "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"})


def s3():
    secret = "arn:aws:s3:::prod/secret"
    ask("s3", "GetObject", secret, Bucket="prod", Key="secret")
    ask("s3", "GetObject", secret, Bucket="prod", Key="secret", VersionId="1")
    for source in ("prod/secret", "/prod/secret", "prod/secret?versionId=1", {"Bucket": "prod", "Key": "secret"}):
        ask("s3", "CopyObject", secret, Bucket="dev", Key="k", CopySource=source)
        ask("s3", "UploadPartCopy", secret, Bucket="dev", Key="k", CopySource=source, UploadId="u", PartNumber=1)
    ask("s3", "DeleteObjects", secret, Bucket="prod", Delete={"Objects": [{"Key": "a"}, {"Key": "secret"}]})
    ask("s3", "CompleteMultipartUpload", secret, Bucket="prod", Key="secret", UploadId="u", MultipartUpload={"Parts": []})
    ask("s3", "SelectObjectContent", secret, Bucket="prod", Key="secret", Expression="e", ExpressionType="SQL", InputSerialization={},
        OutputSerialization={})
    ask("s3", "GetObjectAttributes", secret, Bucket="prod", Key="secret", ObjectAttributes=["ETag"])
    ask("s3", "GetObjectTorrent", secret, Bucket="prod", Key="secret")
    ask("s3", "HeadObject", secret, Bucket="prod", Key="secret")
    ask("s3", "RestoreObject", secret, Bucket="prod", Key="secret", RestoreRequest={"Days": 1})
    ask("s3", "PutBucketNotificationConfiguration", arn("sqs", "prod"), Bucket="dev", NotificationConfiguration={
        "QueueConfigurations": [{"QueueArn": arn("sqs", "prod"), "Events": ["s3:*"]}]})
    ask("s3", "PutBucketReplication", "arn:aws:s3:::prod", Bucket="dev", ReplicationConfiguration={
        "Role": f"arn:aws:iam::{ACCOUNT}:role/r", "Rules": [{"Status": "Enabled", "Destination": {"Bucket": "arn:aws:s3:::prod"}}]})
    ask("s3", "PutBucketLogging", "arn:aws:s3:::prod", Bucket="dev", BucketLoggingStatus={
        "LoggingEnabled": {"TargetBucket": "prod", "TargetPrefix": "p"}})
    ask("s3", "PutBucketInventoryConfiguration", "arn:aws:s3:::prod", Bucket="dev", Id="i", InventoryConfiguration={
        "Destination": {"S3BucketDestination": {"Bucket": "arn:aws:s3:::prod", "Format": "CSV"}}, "IsEnabled": True, "Id": "i",
        "IncludedObjectVersions": "All", "Schedule": {"Frequency": "Daily"}})
    ask("s3", "GetObject", secret, Bucket=arn("s3", "accesspoint/ap"), Key="secret")
    ask("s3", "GetObject", free=secret, Bucket="prod", Key="secrets")
    ask("s3control", "CreateAccessPoint", "arn:aws:s3:::prod", AccountId=ACCOUNT, Name="ap", Bucket="prod")
    ask("s3control", "CreateJob", "arn:aws:s3:::prod/manifest", AccountId=ACCOUNT, Operation={}, Report={"Enabled": False},
        Priority=1, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r", ClientRequestToken="t",
        Manifest={"Spec": {"Format": "F"}, "Location": {"ObjectArn": "arn:aws:s3:::prod/manifest", "ETag": "e"}})


def dynamodb():
    table = arn("dynamodb", "table/prod")
    for name in ("prod", table):
        for operation in ("GetItem", "PutItem", "DeleteItem", "UpdateItem", "Query", "Scan", "DeleteTable", "DescribeTable", "CreateBackup",
                          "UpdateTimeToLive", "UpdateContinuousBackups", "EnableKinesisStreamingDestination"):
            ask("dynamodb", operation, table, TableName=name, Key={}, Item={}, BackupName="b", StreamArn=arn("kinesis", "stream/s"))
        ask("dynamodb", "BatchGetItem", table, RequestItems={"dev": {"Keys": []}, name: {"Keys": []}})
        ask("dynamodb", "BatchWriteItem", table, RequestItems={name: [{"DeleteRequest": {"Key": {}}}]})
        ask("dynamodb", "TransactWriteItems", table, TransactItems=[{"Put": {"TableName": "dev", "Item": {}}}, {"Delete": {
            "TableName": name, "Key": {}}}])
        ask("dynamodb", "TransactGetItems", table, TransactItems=[{"Get": {"TableName": name, "Key": {}}}])
        ask("dynamodb", "ExecuteStatement", table, Statement=f"SELECT * FROM \"{name}\" WHERE a='b'")
        ask("dynamodb", "RestoreTableToPointInTime", table, SourceTableName=name, TargetTableName="t")
        ask("dynamodb", "RestoreTableToPointInTime", table, SourceTableName="s", TargetTableName="prod")
    ask("dynamodb", "RestoreTableToPointInTime", table, SourceTableArn=table, TargetTableName="t")
    ask("dynamodb", "ExportTableToPointInTime", table, TableArn=table, S3Bucket="b")
    ask("dynamodb", "ExportTableToPointInTime", "arn:aws:s3:::prod", TableArn=arn("dynamodb", "table/t"), S3Bucket="prod")
    ask("dynamodb", "RestoreTableFromBackup", arn("dynamodb", "table/prod/backup/1"), TargetTableName="t",
        BackupArn=arn("dynamodb", "table/prod/backup/1"))
    ask("dynamodb", "ImportTable", table, S3BucketSource={"S3Bucket": "b"}, InputFormat="CSV", TableCreationParameters={"TableName": "prod"})
    ask("dynamodb", "EnableKinesisStreamingDestination", arn("kinesis", "stream/prod"), TableName="t", StreamArn=arn("kinesis", "stream/prod"))
    ask("dynamodb", "PutResourcePolicy", table, ResourceArn=table, Policy="{}")
    ask("dynamodb", "BatchExecuteStatement", table, Statements=[{"Statement": "SELECT * FROM dev WHERE a='b'"}, {
        "Statement": "select * from prod where a='b'"}])


def containers():
    cluster, service = arn("ecs", "cluster/prod"), arn("ecs", "service/prod/web")
    for name in ("prod", cluster):
        ask("ecs", "DeleteCluster", cluster, cluster=name)
        ask("ecs", "RunTask", cluster, cluster=name, taskDefinition="t")
        for one in ("web", service):
            ask("ecs", "UpdateService", service, cluster=name, service=one)
            ask("ecs", "DeleteService", service, cluster=name, service=one)
        ask("ecs", "ExecuteCommand", arn("ecs", "task/prod/abc"), cluster=name, task="abc", command="c", interactive=True)
        ask("ecs", "ExecuteCommand", arn("ecs", "task/prod/abc"), cluster=name, task=arn("ecs", "task/prod/abc"), command="c", interactive=True)
        ask("ecs", "CreateService", service, cluster=name, serviceName="web", taskDefinition="t")
    ask("ecs", "RunTask", arn("ecs", "cluster/default"), taskDefinition="t")
    for name in ("prod:3", "prod", arn("ecs", "task-definition/prod:3")):
        ask("ecs", "RunTask", arn("ecs", "task-definition/prod:3"), cluster="c", taskDefinition=name)
        ask("ecs", "UpdateService", arn("ecs", "task-definition/prod:3"), cluster="c", service="s", taskDefinition=name)
    ask("ecs", "DeregisterTaskDefinition", arn("ecs", "task-definition/prod:3"), taskDefinition="prod:3")
    ask("eks", "DeleteCluster", arn("eks", "cluster/prod"), name="prod")
    ask("eks", "CreateAccessEntry", arn("eks", "cluster/prod"), clusterName="prod", principalArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    ask("eks", "AssociateAccessPolicy", arn("eks", "cluster/prod"), clusterName="prod", principalArn=f"arn:aws:iam::{ACCOUNT}:role/r",
        policyArn="p", accessScope={"type": "cluster"})
    ask("eks", "UpdateNodegroupConfig", arn("eks", "nodegroup/prod/ng/*"), clusterName="prod", nodegroupName="ng")
    repository = arn("ecr", "repository/prod")
    for operation in ("BatchGetImage", "PutImage", "DeleteRepository", "SetRepositoryPolicy", "GetDownloadUrlForLayer", "BatchDeleteImage"):
        ask("ecr", operation, repository, repositoryName="prod", imageIds=[], imageManifest="m", policyText="p", layerDigest="d")
        ask("ecr", operation, arn("ecr", "repository/prod", account=THEIRS), registryId=THEIRS, repositoryName="prod", imageIds=[],
            imageManifest="m", policyText="p", layerDigest="d")


def stacks():
    stack = arn("cloudformation", "stack/prod/*")
    for name in ("prod", arn("cloudformation", "stack/prod/11111111-1111-1111-1111-111111111111")):
        for operation in ("DeleteStack", "UpdateStack", "GetTemplate", "SetStackPolicy", "DescribeStacks", "CancelUpdateStack",
                          "UpdateTerminationProtection", "ContinueUpdateRollback", "SignalResource", "DetectStackDrift"):
            ask("cloudformation", operation, stack, StackName=name, EnableTerminationProtection=False, LogicalResourceId="l", UniqueId="u",
                Status="SUCCESS")
        ask("cloudformation", "ExecuteChangeSet", stack, StackName=name, ChangeSetName="c")
        ask("cloudformation", "CreateChangeSet", stack, StackName=name, ChangeSetName="c")
    ask("cloudformation", "ExecuteChangeSet", stack, ChangeSetName=arn("cloudformation", "changeSet/c/1"))
    ask("cloudformation", "CreateStack", stack, StackName="prod", TemplateURL="u")
    ask("cloudformation", "UpdateStackInstances", arn("cloudformation", "stackset/prod:*"), StackSetName="prod", Regions=["r"])
    ask("cloudformation", "UpdateStackInstances", arn("cloudformation", "stackset/prod:*"), StackSetName="prod:11111111-1111", Regions=["r"])
    machine = arn("states", "stateMachine:prod")
    ask("stepfunctions", "StartExecution", machine, stateMachineArn=machine)
    ask("stepfunctions", "StartExecution", machine, stateMachineArn=machine + ":live")
    ask("stepfunctions", "StartSyncExecution", machine, stateMachineArn=machine + ":7")
    ask("stepfunctions", "UpdateStateMachine", machine, stateMachineArn=machine)
    ask("stepfunctions", "StopExecution", arn("states", "execution:prod:1"), executionArn=arn("states", "execution:prod:1"))
    ask("stepfunctions", "DescribeStateMachineForExecution", arn("states", "execution:prod:1"), executionArn=arn("states", "execution:prod:1"))
    ask("stepfunctions", "UpdateStateMachineAlias", machine, stateMachineAliasArn=machine + ":live")


def logs():
    group = arn("logs", "log-group:prod")
    for name in ("prod",):
        for operation in ("DeleteLogGroup", "PutRetentionPolicy", "PutSubscriptionFilter", "PutLogEvents", "GetLogEvents",
                          "FilterLogEvents", "CreateLogStream", "DescribeLogStreams", "CreateExportTask", "AssociateKmsKey"):
            ask("logs", operation, group + "*", logGroupName=name, retentionInDays=1, filterName="f", filterPattern="p", destinationArn="d",
                logEvents=[], logStreamName="s", fromTime=1, to=2, destination="b", kmsKeyId="k")
    for name in (group, group + ":*"):
        for operation in ("FilterLogEvents", "GetLogEvents", "DescribeLogStreams"):
            ask("logs", operation, group + "*", logGroupIdentifier=name, logStreamName="s")
        ask("logs", "StartQuery", group, logGroupIdentifiers=["dev", name], startTime=1, endTime=2, queryString="q")
        ask("logs", "StartLiveTail", group, logGroupIdentifiers=[name])
    ask("logs", "StartQuery", group, logGroupNames=["dev", "prod"], startTime=1, endTime=2, queryString="q")
    ask("logs", "StartQuery", group, startTime=1, endTime=2, queryString="SOURCE logGroups(namePrefix: ['prod'])")
    ask("logs", "PutSubscriptionFilter", arn("lambda", "function:prod"), logGroupName="dev", filterName="f", filterPattern="",
        destinationArn=arn("lambda", "function:prod"))
    ask("logs", "CreateExportTask", "arn:aws:s3:::prod", logGroupName="dev", fromTime=1, to=2, destination="prod")
    ask("cloudwatch", "DeleteAlarms", arn("cloudwatch", "alarm:prod"), AlarmNames=["dev", "prod"])
    ask("cloudwatch", "SetAlarmState", arn("cloudwatch", "alarm:prod"), AlarmName="prod", StateValue="OK", StateReason="r")
    ask("cloudwatch", "PutMetricAlarm", arn("sns", "prod"), AlarmName="a", EvaluationPeriods=1, ComparisonOperator="c",
        AlarmActions=[arn("sns", "prod")])
    ask("cloudwatch", "DeleteDashboards", f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/prod", DashboardNames=["prod"])
    ask("cloudtrail", "StopLogging", arn("cloudtrail", "trail/prod"), Name="prod")
    ask("cloudtrail", "StopLogging", arn("cloudtrail", "trail/prod"), Name=arn("cloudtrail", "trail/prod"))
    ask("cloudtrail", "PutEventSelectors", arn("cloudtrail", "trail/prod"), TrailName="prod")
    ask("cloudtrail", "UpdateTrail", "arn:aws:s3:::prod", Name="dev", S3BucketName="prod")


def analytics():
    table, database = arn("glue", "table/prod/t"), arn("glue", "database/prod")
    for operation in ("GetTable", "DeleteTable", "UpdateTable", "GetPartitions", "CreatePartition", "BatchCreatePartition", "GetTableVersions"):
        ask("glue", operation, [table, database], DatabaseName="prod", Name="t", TableName="t", TableInput={"Name": "t"}, PartitionInput={},
            PartitionInputList=[])
        ask("glue", operation, arn("glue", "table/prod/t", account=THEIRS), CatalogId=THEIRS, DatabaseName="prod", Name="t", TableName="t",
            TableInput={"Name": "t"}, PartitionInput={}, PartitionInputList=[])
    ask("glue", "GetTables", table, DatabaseName="prod")
    ask("glue", "DeleteDatabase", table, Name="prod")
    ask("glue", "BatchDeleteTable", table, DatabaseName="prod", TablesToDelete=["u", "t"])
    ask("glue", "StartJobRun", arn("glue", "job/prod"), JobName="prod")
    ask("glue", "CreateTrigger", arn("glue", "job/prod"), Name="t", Type="ON_DEMAND", Actions=[{"JobName": "prod"}])
    ask("glue", "CreateTrigger", arn("glue", "crawler/prod"), Name="t", Type="ON_DEMAND", Actions=[{"CrawlerName": "prod"}])
    ask("glue", "BatchStopJobRun", arn("glue", "job/prod"), JobName="prod", JobRunIds=[])
    ask("glue", "GetConnection", arn("glue", "connection/prod"), Name="prod")
    ask("athena", "StartQueryExecution", arn("athena", "workgroup/prod"), QueryString="q", WorkGroup="prod")
    ask("athena", "StartQueryExecution", arn("athena", "workgroup/primary"), QueryString="q")
    ask("athena", "GetQueryResults", arn("athena", "workgroup/prod"), QueryExecutionId="x")
    ask("athena", "StartQueryExecution", arn("athena", "datacatalog/prod"), QueryString="q", QueryExecutionContext={"Catalog": "prod"})
    stream = arn("kinesis", "stream/prod")
    for operation in ("PutRecord", "DeleteStream", "GetShardIterator", "PutRecords", "DescribeStream"):
        ask("kinesis", operation, stream, StreamName="prod", Data=b"d", PartitionKey="p", Records=[], ShardId="s", ShardIteratorType="LATEST")
        ask("kinesis", operation, stream, StreamARN=stream, Data=b"d", PartitionKey="p", Records=[], ShardId="s", ShardIteratorType="LATEST")
    ask("firehose", "CreateDeliveryStream", stream, DeliveryStreamName="d", KinesisStreamSourceConfiguration={
        "KinesisStreamARN": stream, "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r"})
    ask("firehose", "CreateDeliveryStream", "arn:aws:s3:::prod", DeliveryStreamName="d", ExtendedS3DestinationConfiguration={
        "BucketARN": "arn:aws:s3:::prod", "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r"})
    ask("sagemaker", "DeleteEndpoint", arn("sagemaker", "endpoint/prod"), EndpointName="PROD")
    ask("sagemaker-runtime", "InvokeEndpoint", arn("sagemaker", "endpoint/prod"), EndpointName="Prod", Body=b"b")
    ask("sagemaker", "CreateEndpoint", arn("sagemaker", "endpoint-config/prod"), EndpointName="e", EndpointConfigName="Prod")
    ask("bedrock-runtime", "InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/anthropic.claude-v2", modelId="anthropic.claude-v2", body=b"{}")
    ask("bedrock-agent-runtime", "InvokeAgent", arn("bedrock", "agent-alias/A/B"), agentId="A", agentAliasId="B", sessionId="s", inputText="t")
    ask("bedrock-agent-runtime", "Retrieve", arn("bedrock", "knowledge-base/KB"), knowledgeBaseId="KB", retrievalQuery={"text": "t"})
    ask("bedrock-agent-runtime", "RetrieveAndGenerate", arn("bedrock", "knowledge-base/KB"), input={"text": "t"}, retrieveAndGenerateConfiguration={
        "type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": {"knowledgeBaseId": "KB", "modelArn": "m"}})


def iam():
    role, user = f"arn:aws:iam::{ACCOUNT}:role/prod", f"arn:aws:iam::{ACCOUNT}:user/prod"
    policy = f"arn:aws:iam::{ACCOUNT}:policy/prod"
    for name in ("prod",):
        for operation in ("DeleteRole", "UpdateAssumeRolePolicy", "PutRolePolicy", "AttachRolePolicy", "GetRole", "UpdateRole"):
            ask("iam", operation, role, RoleName=name, PolicyDocument="{}", PolicyName="p", PolicyArn="a")
            ask("iam", operation, f"arn:aws:iam::{ACCOUNT}:role/team/prod", RoleName=name, PolicyDocument="{}", PolicyName="p", PolicyArn="a")
        for operation in ("DeleteUser", "CreateAccessKey", "CreateLoginProfile", "AttachUserPolicy", "AddUserToGroup"):
            ask("iam", operation, user, UserName=name, Password="p", PolicyArn="a", GroupName="g")
    ask("iam", "CreateAccessKey", user)
    ask("iam", "AddUserToGroup", f"arn:aws:iam::{ACCOUNT}:group/prod", UserName="u", GroupName="prod")
    ask("iam", "AttachRolePolicy", policy, RoleName="r", PolicyArn=policy)
    ask("iam", "AttachUserPolicy", policy, UserName="r", PolicyArn=policy)
    ask("iam", "CreatePolicyVersion", policy, PolicyArn=policy, PolicyDocument="{}")
    ask("iam", "AddRoleToInstanceProfile", role, InstanceProfileName="i", RoleName="prod")
    ask("iam", "AddRoleToInstanceProfile", f"arn:aws:iam::{ACCOUNT}:instance-profile/prod", InstanceProfileName="prod", RoleName="r")
    ask("iam", "UpdateUser", user, UserName="dev", NewUserName="prod")
    ask("iam", "UpdateGroup", f"arn:aws:iam::{ACCOUNT}:group/prod", GroupName="g", NewGroupName="prod")
    ask("iam", "CreateRole", policy, RoleName="r", AssumeRolePolicyDocument="{}", PermissionsBoundary=policy)
    ask("iam", "CreateInstanceProfile", f"arn:aws:iam::{ACCOUNT}:instance-profile/prod", InstanceProfileName="prod")
    for one in (role, f"arn:aws:iam::{THEIRS}:role/prod"):
        ask("sts", "AssumeRole", one, RoleArn=one, RoleSessionName="s")
    ask("sts", "AssumeRoleWithWebIdentity", role, RoleArn=role, RoleSessionName="s", WebIdentityToken="token")
    account = f"arn:aws:organizations::{ACCOUNT}:account/o-abcdefghij/{THEIRS}"
    for operation in ("CloseAccount", "DescribeAccount", "RemoveAccountFromOrganization", "MoveAccount"):
        ask("organizations", operation, account, AccountId=THEIRS, SourceParentId="r-ab12", DestinationParentId="ou-ab12-cdefghij", region="us-east-1")
    ask("organizations", "AttachPolicy", account, PolicyId="p-12345678", TargetId=THEIRS, region="us-east-1")
    ask("organizations", "MoveAccount", f"arn:aws:organizations::{ACCOUNT}:ou/o-abcdefghij/ou-ab12-cdefghij", AccountId=THEIRS,
        SourceParentId="r-ab12", DestinationParentId="ou-ab12-cdefghij", region="us-east-1")
    ask("organizations", "RegisterDelegatedAdministrator", account, AccountId=THEIRS, ServicePrincipal="s", region="us-east-1")


def networks():
    zone = "arn:aws:route53:::hostedzone/Z1"
    for name in ("Z1", "/hostedzone/Z1", "hostedzone/Z1"):
        for operation in ("ChangeResourceRecordSets", "DeleteHostedZone", "GetHostedZone", "ListResourceRecordSets", "AssociateVPCWithHostedZone"):
            ask("route53", operation, zone, HostedZoneId=name, Id=name, ChangeBatch={"Changes": []}, VPC={"VPCId": "vpc-1"}, region="us-east-1")
    ask("route53", "AssociateVPCWithHostedZone", arn("ec2", "vpc/vpc-1"), HostedZoneId="Z2", VPC={"VPCId": "vpc-1", "VPCRegion": REGION}, region="us-east-1")
    for operation in ("DeleteRestApi", "GetRestApi", "GetStages", "CreateDeployment"):
        ask("apigateway", operation, f"arn:aws:apigateway:{REGION}::/restapis/prod*", restApiId="prod")
    ask("apigateway", "DeleteStage", f"arn:aws:apigateway:{REGION}::/restapis/abc/stages/prod", restApiId="abc", stageName="prod")
    ask("apigateway", "UpdateStage", f"arn:aws:apigateway:{REGION}::/restapis/abc/stages/prod", restApiId="abc", stageName="prod", patchOperations=[])
    ask("apigateway", "CreateBasePathMapping", f"arn:aws:apigateway:{REGION}::/domainnames/prod.example/basepathmappings", domainName="prod.example", restApiId="r")
    ask("apigateway", "CreateBasePathMapping", f"arn:aws:apigateway:{REGION}::/domainnames/prod.example/basepathmappings", domainName="PROD.example.", restApiId="r")
    ask("apigatewayv2", "DeleteApi", f"arn:aws:apigateway:{REGION}::/apis/prod", ApiId="prod")
    ask("apigatewayv2", "CreateApi", arn("lambda", "function:prod"), Name="n", ProtocolType="HTTP", Target=arn("lambda", "function:prod"))
    ask("apigateway", "PutIntegration", arn("lambda", "function:prod"), restApiId="r", resourceId="i", httpMethod="GET", type="AWS_PROXY",
        uri=f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn('lambda', 'function:prod')}/invocations")
    balancer = arn("elasticloadbalancing", "loadbalancer/app/prod/50dc6c495c0c9188")
    ask("elbv2", "DeleteLoadBalancer", balancer, LoadBalancerArn=balancer)
    ask("elbv2", "CreateListener", balancer, LoadBalancerArn=balancer, DefaultActions=[])
    ask("elbv2", "RegisterTargets", arn("elasticloadbalancing", "targetgroup/prod/73e2d6bc24d8a067"),
        TargetGroupArn=arn("elasticloadbalancing", "targetgroup/prod/73e2d6bc24d8a067"), Targets=[{"Id": "i-0abc"}])
    ask("elb", "DeleteLoadBalancer", arn("elasticloadbalancing", "loadbalancer/prod"), LoadBalancerName="prod")
    ask("cloudfront", "UpdateDistribution", f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1", Id="E1", DistributionConfig={}, region="us-east-1")
    ask("cloudfront", "CreateInvalidation", f"arn:aws:cloudfront::{ACCOUNT}:distribution/E1", DistributionId="E1", InvalidationBatch={
        "Paths": {"Quantity": 0}, "CallerReference": "c"}, region="us-east-1")
    ask("wafv2", "AssociateWebACL", [balancer, arn("wafv2", "regional/webacl/prod/1")], WebACLArn=arn("wafv2", "regional/webacl/prod/1"), ResourceArn=balancer)
    ask("wafv2", "DeleteWebACL", arn("wafv2", "regional/webacl/prod/1"), Name="prod", Id="1", Scope="REGIONAL", LockToken="t")
    ask("acm", "DeleteCertificate", arn("acm", "certificate/1"), CertificateArn=arn("acm", "certificate/1"))
    ask("autoscaling", "UpdateAutoScalingGroup", arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/prod"), AutoScalingGroupName="prod")
    ask("autoscaling", "TerminateInstanceInAutoScalingGroup", arn("autoscaling", "autoScalingGroup:*:autoScalingGroupName/prod"),
        InstanceId="i-1", ShouldDecrementDesiredCapacity=True)
    ask("efs", "DeleteFileSystem", arn("elasticfilesystem", "file-system/fs-12345678"), FileSystemId="fs-12345678")
    ask("efs", "DeleteFileSystem", arn("elasticfilesystem", "file-system/fs-12345678"), FileSystemId=arn("elasticfilesystem", "file-system/fs-12345678"))
    ask("efs", "CreateMountTarget", arn("elasticfilesystem", "file-system/fs-12345678"), FileSystemId="fs-12345678", SubnetId="s")
    ask("backup", "StartRestoreJob", arn("backup", "recovery-point:1"), RecoveryPointArn=arn("backup", "recovery-point:1"), Metadata={})
    ask("backup", "StartBackupJob", [arn("dynamodb", "table/prod"), arn("backup", "backup-vault:prod")], BackupVaultName="prod",
        ResourceArn=arn("dynamodb", "table/prod"), IamRoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    ask("backup", "StartCopyJob", arn("backup", "backup-vault:prod"), RecoveryPointArn=arn("backup", "recovery-point:1"), SourceBackupVaultName="v",
        DestinationBackupVaultArn=arn("backup", "backup-vault:prod"), IamRoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    ask("codebuild", "StartBuild", arn("codebuild", "project/prod"), projectName="prod")
    ask("codebuild", "RetryBuild", arn("codebuild", "project/prod"), id="prod:1")
    ask("codebuild", "BatchDeleteBuilds", arn("codebuild", "project/prod"), ids=["dev:1", "prod:2"])
    ask("codepipeline", "StartPipelineExecution", arn("codepipeline", "prod"), name="prod")
    ask("cognito-idp", "AdminCreateUser", arn("cognito-idp", f"userpool/{REGION}_prod"), UserPoolId=f"{REGION}_prod", Username="u")
    ask("opensearch", "DeleteDomain", arn("es", "domain/prod"), DomainName="prod")
    ask("resourcegroupstaggingapi", "TagResources", arn("sqs", "prod"), ResourceARNList=[arn("sns", "x"), arn("sqs", "prod")], Tags={"a": "b"})
    ask("cloudcontrol", "DeleteResource", "arn:aws:s3:::prod", TypeName="AWS::S3::Bucket", Identifier="prod")
    ask("application-autoscaling", "RegisterScalableTarget", arn("dynamodb", "table/prod"), ServiceNamespace="dynamodb",
        ResourceId="table/prod", ScalableDimension="d")


def untouched():
    """What a policy on another resource leaves alone: data that holds an ARN, and others' targets."""
    prod = arn("lambda", "function:prod")
    ask("dynamodb", "PutItem", free=prod, TableName="t", Item={"id": {"S": prod}})
    ask("dynamodb", "UpdateItem", free=prod, TableName="t", Key={"id": {"S": prod}}, ExpressionAttributeValues={":v": {"S": prod}})
    ask("sqs", "SendMessage", free=prod, QueueUrl=f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/q", MessageBody=prod)
    ask("sns", "Publish", free=prod, TopicArn=arn("sns", "t"), Message=prod)
    ask("logs", "PutLogEvents", free=prod, logGroupName="g", logStreamName="s", logEvents=[{"timestamp": 1, "message": prod}])
    ask("ssm", "PutParameter", free=prod, Name="p", Value=prod)
    ask("ec2", "CreateTags", free=prod, Resources=["i-0abc"], Tags=[{"Key": "owner", "Value": prod}])
    ask("events", "PutTargets", free=prod, Rule="r", Targets=[{"Id": "1", "Arn": arn("lambda", "function:dev")}])
    ask("events", "PutRule", free=[arn("events", "rule/prod"), arn("events", "event-bus/prod")], Name="dev")
    ask("s3", "PutObject", free=["arn:aws:s3:::prod/k", arn("kms", "key/1")], Bucket="dev", Key="k", Body=b"")
    ask("lambda", "CreateFunction", free="arn:aws:s3:::builds/other.zip", FunctionName="dev", Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Code={"S3Bucket": "builds", "S3Key": "code.zip"})
    ask("ecs", "RunTask", free=[arn("ecs", "task-definition/prod:3"), arn("ecs", "cluster/prod")], cluster="dev", taskDefinition="prod:2")
    ask("ecs", "RunTask", free=arn("ecs", "task-definition/prod:3"), cluster="dev", taskDefinition="web")
    ask("ec2", "RunInstances", free=arn("ec2", "security-group/sg-0def"), ImageId="ami-0abc", MinCount=1, MaxCount=1, SubnetId="subnet-1",
        SecurityGroupIds=["sg-0abc"])


def main():
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    for make in (lambda_, ec2, rds, kms, secrets, messages, s3, dynamodb, containers, stacks, logs, analytics, iam, networks, untouched):
        make()


if __name__ == "__main__":
    main()
