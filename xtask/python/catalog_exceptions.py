"""What the models and the IAM data don't say, or say wrongly. Each entry has its reason beside it."""

# IAM prefixes that differ from the signing name.
PREFIXES = {
    "cloudwatch": ["cloudwatch"],  # signs as `monitoring`
    "ses": ["ses"], "sesv2": ["ses"],  # sign as `ses` or `email`
    "pinpoint": ["mobiletargeting"],
    "apigatewayv2": ["apigateway"],
}

# Endings of operations whose permission is another operation's.
ENDINGS = [
    ("Batch", ""),  # sqs:SendMessageBatch, sns:PublishBatch: checked entry by entry as the single operation
    ("WithResponseStream", ""),
]


def _s3():
    """S3's API names and IAM names differ by history; from the user guide's table of S3 API permissions."""
    table = {
        "AbortMultipartUpload": "AbortMultipartUpload", "CompleteMultipartUpload": "PutObject",
        "CopyObject": "PutObject", "CreateMultipartUpload": "PutObject", "UploadPart": "PutObject",
        "UploadPartCopy": "PutObject", "HeadObject": "GetObject", "SelectObjectContent": "GetObject",
        "HeadBucket": "ListBucket", "ListObjects": "ListBucket", "ListObjectsV2": "ListBucket",
        "ListObjectVersions": "ListBucketVersions", "ListParts": "ListMultipartUploadParts",
        "ListMultipartUploads": "ListBucketMultipartUploads", "ListBuckets": "ListAllMyBuckets",
        "DeleteObjects": "DeleteObject", "RenameObject": "PutObject",
        "GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
        "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
        "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
        "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
        "GetBucketCors": "GetBucketCORS", "PutBucketCors": "PutBucketCORS", "DeleteBucketCors": "PutBucketCORS",
        "GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration",
        "DeleteBucketEncryption": "PutEncryptionConfiguration",
        "GetBucketReplication": "GetReplicationConfiguration", "PutBucketReplication": "PutReplicationConfiguration",
        "DeleteBucketReplication": "PutReplicationConfiguration",
        "GetBucketLifecycle": "GetLifecycleConfiguration", "PutBucketLifecycle": "PutLifecycleConfiguration",
        "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
        "DeleteBucketLifecycle": "PutLifecycleConfiguration",
        "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
        "PutBucketAccelerateConfiguration": "PutAccelerateConfiguration",
        "GetBucketNotificationConfiguration": "GetBucketNotification",
        "PutBucketNotificationConfiguration": "PutBucketNotification",
        "DeleteBucketTagging": "PutBucketTagging", "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    }
    for kind in ("Analytics", "IntelligentTiering", "Inventory", "Metrics"):
        for verb, right in (("Get", "Get"), ("Put", "Put"), ("Delete", "Put")):
            table[f"{verb}Bucket{kind}Configuration"] = f"{right}{kind}Configuration"
        table[f"ListBucket{kind}Configurations"] = f"Get{kind}Configuration"
    for verb in ("Create", "Get", "Delete"):
        table[f"{verb}BucketMetadataConfiguration"] = f"{verb}BucketMetadataTableConfiguration"
    actions = {("s3", operation): [f"s3:{action}"] for operation, action in table.items()}
    # Directory buckets have a prefix of their own.
    actions["s3", "CreateSession"] = ["s3express:CreateSession"]
    actions["s3", "ListDirectoryBuckets"] = ["s3express:ListAllMyDirectoryBuckets"]
    actions["s3", "WriteGetObjectResponse"] = ["s3-object-lambda:WriteGetObjectResponse"]
    return actions


ACTIONS = {
    **_s3(),
    # The service authorization reference: all forms of invoking a function are one action.
    ("lambda", "Invoke"): ["lambda:InvokeFunction"],
    ("lambda", "InvokeAsync"): ["lambda:InvokeFunction", "lambda:InvokeAsync"],
    ("lambda", "InvokeWithResponseStream"): ["lambda:InvokeFunction"],
    # DynamoDB checks transactions by what is in them; which of these apply is told at run time.
    ("dynamodb", "TransactGetItems"): ["dynamodb:GetItem"],
    ("dynamodb", "TransactWriteItems"): ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
                                         "dynamodb:ConditionCheckItem"],
    **{("dynamodb", operation): ["dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate",
                                 "dynamodb:PartiQLDelete"]
       for operation in ("ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction")},
    # Reading secrets in bulk needs the single permission as well.
    ("secretsmanager", "BatchGetSecretValue"): ["secretsmanager:BatchGetSecretValue", "secretsmanager:GetSecretValue"],
    ("kms", "ReEncrypt"): ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
    # Bedrock: the Converse family is permitted as invocation.
    ("bedrock-runtime", "Converse"): ["bedrock:InvokeModel"],
    ("bedrock-runtime", "ConverseStream"): ["bedrock:InvokeModelWithResponseStream"],
    ("bedrock-runtime", "InvokeModelWithBidirectionalStream"): ["bedrock:InvokeModelWithResponseStream",
                                                               "bedrock:InvokeModelWithBidirectionalStream"],
    ("bedrock-runtime", "InvokeModelWithResponseStream"): ["bedrock:InvokeModelWithResponseStream"],
    ("iot-data", "Publish"): ["iot:Publish"],
}

# Access levels that the IAM data understate for an agent: these hand out secrets.
LEVELS = {}

# Operations that pass a role though the IAM data don't list iam:PassRole as a dependent action.
PASS_ROLE = {
    ("ec2", "RunInstances"), ("ec2", "AssociateIamInstanceProfile"), ("ec2", "ReplaceIamInstanceProfileAssociation"),
    ("lambda", "CreateFunction"), ("lambda", "UpdateFunctionConfiguration"), ("cloudformation", "CreateStack"),
    ("cloudformation", "UpdateStack"), ("cloudformation", "CreateChangeSet"), ("cloudformation", "DeleteStack"),
    ("ecs", "RegisterTaskDefinition"), ("ecs", "RunTask"), ("ecs", "StartTask"), ("ecs", "CreateService"),
    ("ecs", "UpdateService"), ("stepfunctions", "CreateStateMachine"), ("stepfunctions", "UpdateStateMachine"),
    ("events", "PutRule"), ("events", "PutTargets"), ("scheduler", "CreateSchedule"), ("scheduler", "UpdateSchedule"),
    ("glue", "CreateJob"), ("glue", "UpdateJob"), ("glue", "CreateCrawler"), ("glue", "UpdateCrawler"),
    ("glue", "CreateDevEndpoint"), ("sagemaker", "CreateNotebookInstance"), ("sagemaker", "CreateTrainingJob"),
    ("sagemaker", "CreateProcessingJob"), ("codebuild", "CreateProject"), ("codebuild", "UpdateProject"),
    ("datapipeline", "PutPipelineDefinition"), ("autoscaling", "CreateLaunchConfiguration"),
    ("ssm", "SendCommand"), ("ssm", "StartAutomationExecution"), ("ec2", "CreateLaunchTemplate"),
    ("apprunner", "CreateService"), ("batch", "RegisterJobDefinition"), ("batch", "SubmitJob"),
    ("bedrock-agent", "CreateAgent"), ("iot", "CreateTopicRule"), ("iot", "ReplaceTopicRule"),
}

# Legacy names that neither rule sets nor endpoints.json list.
HOSTS = {
    "queue": "sqs", "{r}.queue": "sqs",
    "autoscaling": "autoscaling", "monitoring": "cloudwatch",
    "elasticmapreduce": "emr", "{r}.elasticmapreduce": "emr",
    # Buckets on outposts are made through S3 Control's API at this host.
    "s3-outposts.{r}": "s3control", "s3-outposts-fips.{r}": "s3control",
    "sts": "sts", "ec2": "ec2", "email": "ses",
}
