"""What the models and the IAM data don't say, or say wrongly. Each entry has its reason beside it."""

# IAM prefixes that differ from the signing name.
PREFIXES = {
    "cloudwatch": ["cloudwatch"],  # signs as `monitoring`
    "ses": ["ses"], "sesv2": ["ses"],  # sign as `ses` or `email`
    "pinpoint": ["mobiletargeting"],
    "apigatewayv2": ["apigateway"],
    # The service authorization reference's own prefixes, where endpoint and signing name are called otherwise.
    "partnercentral-selling": ["partnercentral"], "partnercentral-account": ["partnercentral"],
    "partnercentral-benefits": ["partnercentral"], "partnercentral-channel": ["partnercentral"],
    "mturk": ["mechanicalturk"],  # signs as `mturk-requester`
    "iot-data": ["iot"],  # signs as `iotdata`
    "iot-jobs-data": ["iotjobsdata"],
    "iotsecuretunneling": ["iot"],  # signs as `IoTSecuredTunneling`
    "resourcegroupstaggingapi": ["tag"],  # signs as `tagging`
    "cloudcontrol": ["cloudformation"],  # Cloud Control's operations are permitted by CloudFormation's prefix
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


def _each(service, table):
    """`{"actions": "Operation Operation"}` of one service."""
    return {(service, operation): actions.split() for actions, operations in table.items()
            for operation in operations.split()}


ACTIONS = {
    **_s3(),
    # S3 Control repeats some of S3's operations, which have S3's names in IAM; buckets on outposts have a prefix of
    # their own, and so have access points of directory buckets. Which of the two it is, the request's host or ARN says:
    # both are needed where it can be either.
    **_each("s3control", {
        "s3:GetAccountPublicAccessBlock": "GetPublicAccessBlock",
        "s3:PutAccountPublicAccessBlock": "PutPublicAccessBlock DeletePublicAccessBlock",
        "s3-outposts:GetBucket": "GetBucket", "s3-outposts:ListRegionalBuckets": "ListRegionalBuckets",
        "s3-outposts:GetLifecycleConfiguration": "GetBucketLifecycleConfiguration",
        "s3-outposts:PutLifecycleConfiguration": "PutBucketLifecycleConfiguration DeleteBucketLifecycleConfiguration",
        "s3-outposts:GetReplicationConfiguration": "GetBucketReplication",
        "s3-outposts:PutReplicationConfiguration": "PutBucketReplication DeleteBucketReplication",
        "s3-outposts:PutBucketTagging": "DeleteBucketTagging",
        "s3express:GetAccessPointScope": "GetAccessPointScope", "s3express:PutAccessPointScope": "PutAccessPointScope",
        "s3express:DeleteAccessPointScope": "DeleteAccessPointScope",
        "s3express:ListAccessPointsForDirectoryBuckets": "ListAccessPointsForDirectoryBuckets"}),
    # Budgets: viewing and changing are one action each.
    **_each("budgets", {
        "budgets:ViewBudget": "DescribeBudget DescribeBudgets DescribeBudgetNotificationsForAccount "
        "DescribeBudgetPerformanceHistory DescribeNotificationsForBudget DescribeSubscribersForNotification",
        "budgets:ModifyBudget": "CreateBudget UpdateBudget DeleteBudget CreateNotification UpdateNotification "
        "DeleteNotification CreateSubscriber UpdateSubscriber DeleteSubscriber"}),
    # Keyspaces is permitted by what the operation would be in CQL.
    **_each("keyspaces", {
        "cassandra:Create": "CreateKeyspace CreateTable CreateType",
        "cassandra:Select": "GetKeyspace GetTable GetTableAutoScalingSettings GetType ListKeyspaces ListTables "
        "ListTagsForResource ListTypes",
        "cassandra:Alter": "UpdateKeyspace UpdateTable", "cassandra:Drop": "DeleteKeyspace DeleteTable DeleteType",
        "cassandra:Restore cassandra:Create": "RestoreTable"}),
    # Neptune's data actions are by what a query does; a query can read, write and delete, which its text alone says.
    **_each("neptunedata", {
        "neptune-db:CancelQuery": "CancelGremlinQuery CancelOpenCypherQuery",
        "neptune-db:ReadDataViaQuery neptune-db:WriteDataViaQuery neptune-db:DeleteDataViaQuery":
        "ExecuteGremlinQuery ExecuteGremlinProfileQuery ExecuteOpenCypherQuery",
        "neptune-db:ReadDataViaQuery": "ExecuteGremlinExplainQuery ExecuteOpenCypherExplainQuery",
        "neptune-db:GetQueryStatus": "GetGremlinQueryStatus GetOpenCypherQueryStatus ListGremlinQueries "
        "ListOpenCypherQueries",
        "neptune-db:DeleteStatistics": "DeletePropertygraphStatistics DeleteSparqlStatistics",
        "neptune-db:GetStatisticsStatus": "GetPropertygraphStatistics GetSparqlStatistics",
        "neptune-db:ManageStatistics": "ManagePropertygraphStatistics ManageSparqlStatistics",
        "neptune-db:GetGraphSummary": "GetPropertygraphSummary GetRDFGraphSummary",
        "neptune-db:GetStreamRecords": "GetPropertygraphStream GetSparqlStream",
        "neptune-db:ResetDatabase": "ExecuteFastReset", "neptune-db:CancelMLDataProcessingJob": "CancelMLDataProcessingJob",
        "neptune-db:GetEngineStatus": "GetEngineStatus", "neptune-db:StartLoaderJob": "StartLoaderJob"}),
    # Connections of WebSocket APIs.
    **_each("apigatewaymanagementapi", {
        "execute-api:ManageConnections": "DeleteConnection GetConnection PostToConnection"}),
    ("lambda", "GetLayerVersionByArn"): ["lambda:GetLayerVersion"],  # the same, by ARN
    ("bedrock-runtime", "StartAsyncInvoke"): ["bedrock:InvokeModel"],  # Bedrock's guide: "requires bedrock:InvokeModel"
    ("bedrock-agent-runtime", "RetrieveAndGenerateStream"): ["bedrock:RetrieveAndGenerate"],  # the same, streamed
    # Tags on creation need the permission to tag, and the operation is CreateDistribution's.
    ("cloudfront", "CreateDistributionWithTags"): ["cloudfront:CreateDistribution", "cloudfront:TagResource"],
    ("timestream-query", "Query"): ["timestream:Select"],  # SQL, permitted as what it does
    ("cloudsearchdomain", "UploadDocuments"): ["cloudsearch:document"],
    ("verifiedpermissions", "BatchIsAuthorized"): ["verifiedpermissions:IsAuthorized"],  # checked one by one
    ("verifiedpermissions", "BatchIsAuthorizedWithToken"): ["verifiedpermissions:IsAuthorizedWithToken"],
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
    # Bedrock's guide to Nova Sonic asks for bedrock:InvokeModel; the stronger of the two is needed as well.
    ("bedrock-runtime", "InvokeModelWithBidirectionalStream"): ["bedrock:InvokeModel",
                                                               "bedrock:InvokeModelWithResponseStream"],
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
    # Of services whose other members called roles are no IAM roles, or of levels that no role is looked for in.
    ("grafana", "CreateWorkspace"), ("grafana", "UpdateWorkspace"), ("kinesis", "CreateChannel"),
    ("cloudcontrol", "GetResource"), ("cloudcontrol", "ListResources"),
    *(("cognito-idp", operation) for operation in (
        "CreateGroup", "UpdateGroup", "CreateUserImportJob", "CreateUserPool", "UpdateUserPool", "CreateUserPoolClient",
        "UpdateUserPoolClient", "SetUserPoolMfaConfig")),
}

# Legacy names that neither rule sets nor endpoints.json list.
HOSTS = {
    "queue": "sqs", "{r}.queue": "sqs",
    "autoscaling": "autoscaling", "monitoring": "cloudwatch",
    "elasticmapreduce": "emr", "{r}.elasticmapreduce": "emr",
    # Buckets on outposts are made through S3 Control's API at this host.
    "s3-outposts.{r}": "s3control", "s3-outposts-fips.{r}": "s3control",
    "realtime.machinelearning.{r}": "machinelearning",  # told by GetMLModel, for Predict
    "sts": "sts", "ec2": "ec2", "email": "ses",
}

# What operations call a type of resource, where IAM's data call it otherwise: (prefix, type) → nouns.
KINDS = {
    ("rds", "db"): ("dbinstance",), ("rds", "pg"): ("dbparametergroup",), ("rds", "cluster"): ("dbcluster",),
    ("rds", "cluster-pg"): ("dbclusterparametergroup",), ("rds", "og"): ("optiongroup",),
    ("rds", "secgrp"): ("dbsecuritygroup",), ("rds", "subgrp"): ("dbsubnetgroup",), ("rds", "snapshot"): ("dbsnapshot",),
    ("rds", "cluster-snapshot"): ("dbclustersnapshot",), ("rds", "es"): ("eventsubscription", "subscription"),
    ("rds", "ri"): ("reserveddbinstance",), ("rds", "proxy"): ("dbproxy",), ("rds", "proxy-endpoint"): ("dbproxyendpoint",),
    ("rds", "cev"): ("customdbengineversion",), ("rds", "cluster-endpoint"): ("dbclusterendpoint",),
    ("rds", "shardgrp"): ("dbshardgroup",), ("rds", "deployment"): ("bluegreendeployment",),
    ("rds", "global-cluster"): ("globalcluster",), ("rds", "auto-backup"): ("dbinstanceautomatedbackup",),
    ("rds", "cluster-auto-backup"): ("dbclusterautomatedbackup",), ("rds", "target-group"): ("dbproxytargetgroup",),
    ("ssm", "maintenancewindow"): ("maintenancewindow", "window"), ("ssm", "patchbaseline"): ("patchbaseline", "baseline"),
    ("mobiletargeting", "app"): ("application",), ("mobiletargeting", "apps"): ("application",),
}

# Members that say the last variable of a type's ARN, where no rule finds them: (service, type) → names, in order.
MEMBERS = {
    ("ec2", "security-group"): ["GroupId", "GroupIds"], ("ec2", "ipv4pool-ec2"): ["PoolId"], ("ec2", "ipv6pool-ec2"): ["PoolId"],
    ("ec2", "elastic-ip"): ["AllocationId"],
    ("emr", "cluster"): ["ClusterId", "JobFlowId", "JobFlowIds"],
    ("sesv2", "identity"): ["EmailIdentity"], ("pinpoint-email", "identity"): ["EmailIdentity"],
    ("socialmessaging", "waba"): ["id"], ("socialmessaging", "phone-number-id"): ["id"],
    # Ids of builds begin with their project's name.
    ("codebuild", "project"): ["projectName", "names", "name", "id", "ids"],
    ("s3control", "accesspoint"): ["Name"], ("s3control", "objectlambdaaccesspoint"): ["Name"],
    ("wellarchitected", "lens"): ["LensAlias"], ("application-signals", "slo"): ["Id"],
    ("connect", "traffic-distribution-group"): ["Id"], ("servicediscovery", "namespace"): ["NamespaceId", "Id"],
    ("secretsmanager", "Secret"): ["SecretId", "SecretIdList", "Name"], ("iam", "mfa"): ["SerialNumber", "VirtualMFADeviceName"],
    ("iotwireless", "ImportTask"): ["Id"], ("events", "event-source"): ["EventSourceName", "Name"],
    ("mediapackage", "channels"): ["ChannelId", "Id"], ("eks", "cluster"): ["clusterName", "name"],
    ("frauddetector", "batch-import"): ["jobId"], ("frauddetector", "batch-prediction"): ["jobId"],
    ("frauddetector", "external-model"): ["modelEndpoint"], ("frauddetector", "rule"): ["ruleId"],
    ("directconnect", "dxcon"): ["connectionId", "interconnectId"], ("ssm", "instance"): ["InstanceIds", "InstanceId", "Target"],
    ("ssm", "managed-instance"): ["InstanceIds", "InstanceId", "Target"], ("ssm", "task"): ["Target"],
    ("ssm", "document"): ["DocumentName", "Name", "CalendarNames"],
    ("iot", "cacert"): ["certificateId", "caCertificateId"], ("codecommit", "repository"): ["repositoryName", "repositoryNames", "oldName"],
    ("config", "RemediationConfiguration"): ["ConfigRuleName", "ConfigRuleNames"], ("payment-cryptography", "key"): ["KeyIdentifier", "ExportKeyIdentifier"],
    ("glue", "userDefinedFunction"): ["FunctionName"], ("dms", "es"): ["SubscriptionName"],
    ("resource-groups", "group"): ["Group", "GroupName"], ("logs", "delivery-source"): ["name"],
    ("network-firewall", "Firewall"): ["FirewallName"], ("medialive", "channel"): ["ChannelId"],
}

# Operations whose templates no rule finds; `catalog_resources.MARKS` says what their first characters mean.
TEMPLATES = {
    ("kms", "ReEncrypt"): ["!arn:{P}:kms:{R}:{A}:key/{=SourceKeyId}", "!arn:{P}:kms:{R}:{A}:key/{=DestinationKeyId}"],
    # The data have no resource for some operations on access points, which S3 checks all the same.
    **{("s3control", operation): ["!arn:{P}:s3:{R}:{A=AccountId}:accesspoint/{=Name}"]
       for operation in ("GetAccessPoint", "DeleteAccessPoint", "GetAccessPointPolicy", "PutAccessPointPolicy",
                         "DeleteAccessPointPolicy", "GetAccessPointPolicyStatus")},
    ("ssm", "GetParametersByPath"): ["!arn:{P}:ssm:{R}:{A}:parameter/{=Path}/{*}"],
    ("ec2", "MoveCapacityReservationInstances"): [
        "!arn:{P}:ec2:{R}:{A}:capacity-reservation/{=SourceCapacityReservationId}",
        "!arn:{P}:ec2:{R}:{A}:capacity-reservation/{=DestinationCapacityReservationId}"],
    ("cloudtrail", "StartLogging"): ["!arn:{P}:cloudtrail:{R}:{A}:trail/{=Name}"],
    ("cloudtrail", "StopLogging"): ["!arn:{P}:cloudtrail:{R}:{A}:trail/{=Name}"],
    ("codepipeline", "StartPipelineExecution"): ["!arn:{P}:codepipeline:{R}:{A}:{=name}"],
    ("codepipeline", "UpdatePipeline"): ["!arn:{P}:codepipeline:{R}:{A}:{=pipeline.name}"],
    ("connectcampaigns", "PutDialRequestBatch"): ["!arn:{P}:connect-campaigns:{R}:{A}:campaign/{=id}"],
    ("connectcampaignsv2", "PutOutboundRequestBatch"): ["!arn:{P}:connect-campaigns:{R}:{A}:campaign/{=id}"],
    ("connectcampaignsv2", "PutProfileOutboundRequestBatch"): ["!arn:{P}:connect-campaigns:{R}:{A}:campaign/{=id}"],
    ("glue", "BatchDeleteConnection"): ["!arn:{P}:glue:{R}:{A=CatalogId}:connection/{=ConnectionNameList}",
                                        "!arn:{P}:glue:{R}:{A=CatalogId}:catalog"],
    ("glue", "PutWorkflowRunProperties"): ["!arn:{P}:glue:{R}:{A}:workflow/{=Name}"],
    **{("lex-models", operation): ["!arn:{P}:lex:{R}:{A}:%s:{=name}:{*}" % kind] for operation, kind in (
        ("DeleteIntent", "intent"), ("GetIntent", "intent"), ("PutIntent", "intent"), ("DeleteSlotType", "slottype"),
        ("GetSlotType", "slottype"), ("PutSlotType", "slottype"), ("PutBot", "bot"))},
    ("mwaa", "CreateCliToken"): ["!arn:{P}:airflow:{R}:{A}:environment/{=Name}"],
    **{("bedrock-agentcore", operation): [
        "!arn:{P}:bedrock-agentcore:{R}:{A}:workload-identity-directory/{*}/workload-identity/{=workloadName}"]
       for operation in ("GetWorkloadAccessToken", "GetWorkloadAccessTokenForJWT", "GetWorkloadAccessTokenForUserId")},
    ("iam", "CreateOpenIDConnectProvider"): ["+arn:{P}:iam::{A}:oidc-provider/{*}"],
    ("iam", "CreateServiceLinkedRole"): ["+arn:{P}:iam::{A}:role/aws-service-role/{=AWSServiceName}/{*}"],
    # Members inside of structures and lists, which no rule takes for the operation's own resource.
    ("appstream", "CreateImageBuilderStreamingURL"): ["!arn:{P}:appstream:{R}:{A}:image-builder/{=Name}"],
    **{("appsync", operation): ["!arn:{P}:appsync:{R}:{A}:apis/{=mergedApiIdentifier}",
                                "!arn:{P}:appsync:{R}:{A}:apis/{=sourceApiIdentifier}"]
       for operation in ("AssociateMergedGraphqlApi", "AssociateSourceGraphqlApi")},
    **{("autoscaling", operation): ["!arn:{P}:autoscaling:{R}:{A}:autoScalingGroup:{*}:autoScalingGroupName/{=Tags.ResourceId}"]
       for operation in ("CreateOrUpdateTags", "DeleteTags")},
    ("codepipeline", "UpdateActionType"): [
        "!arn:{P}:codepipeline:{R}:{A}:actiontype:{=actionType.id.owner}/{=actionType.id.category}/"
        "{=actionType.id.provider}/{=actionType.id.version}"],
    **{("config", operation): [
        "!arn:{P}:config:{R}:{A}:aggregation-authorization/{=AuthorizedAccountId}/{=AuthorizedAwsRegion}"]
       for operation in ("DeleteAggregationAuthorization", "PutAggregationAuthorization")},
    **{("databrew", operation): ["!arn:{P}:databrew:{R}:{A}:project/{=Name}"]
       for operation in ("SendProjectSessionAction", "StartProjectSession")},
    ("devops-guru", "AddNotificationChannel"): ["!arn:{P}:sns:{R}:{A}:{=Config.Sns.TopicArn}"],
    ("elbv2", "SetRulePriorities"): [
        "!arn:{P}:elasticloadbalancing:{R}:{A}:listener-rule/{*}/{*}/{*}/{*}/{=RulePriorities.RuleArn}"],
    **{("iotwireless", operation): ["!arn:{P}:iotwireless:{R}:{A}:SidewalkAccount/{=PartnerAccountId}"]
       for operation in ("DisassociateAwsAccountFromPartnerAccount", "GetPartnerAccount", "UpdatePartnerAccount")},
    ("lex-models", "StartMigration"): ["!arn:{P}:lex:{R}:{A}:bot:{=v1BotName}:{=v1BotVersion}"],
    ("medialive", "ClaimDevice"): ["!arn:{P}:medialive:{R}:{A}:inputDevice:{=Id}"],
    ("mediapackage-vod", "ConfigureLogs"): ["!arn:{P}:mediapackage-vod:{R}:{A}:packaging-groups/{=Id}"],
    **{("mwaa", operation): ["!arn:{P}:airflow:{R}:{A}:role/{=Name}/{*}"]
       for operation in ("CreateWebLoginToken", "InvokeRestApi")},
    **{("qapps", operation): ["!arn:{P}:qapps:{R}:{A}:application/{=instanceId}/qapp/{*}"]
       for operation in ("AssociateLibraryItemReview", "DisassociateLibraryItemReview", "UpdateLibraryItemMetadata")},
    **{("qapps", operation): ["!arn:{P}:qbusiness:{R}:{A}:application/{=instanceId}"]
       for operation in ("BatchCreateCategory", "BatchDeleteCategory", "BatchUpdateCategory", "CreateQApp", "PredictQApp")},
    ("quicksight", "UpdateLimitsProfile"): ["!arn:{P}:quicksight:{R}:{A}:limits-profile/{=profileId}",
                                            "~arn:{P}:quicksight:{R}:{A}:account/{=accountId}"],
    ("redshift", "BatchModifyClusterSnapshots"): ["!arn:{P}:redshift:{R}:{A}:snapshot:{*}/{=SnapshotIdentifierList}"],
    ("rekognition", "DistributeDatasetEntries"): ["!arn:{P}:rekognition:{R}:{A}:project/{*}/dataset/{*}/{=Datasets.Arn}"],
    ("securityhub", "BatchUpdateAutomationRules"): [
        "!arn:{P}:securityhub:{R}:{A}:automation-rule/{=UpdateAutomationRulesRequestItems.RuleArn}"],
    **{(service, "GetDomainStatisticsReport"): ["!arn:{P}:ses:{R}:{A}:identity/{=Domain}"]
       for service in ("pinpoint-email", "sesv2")},
    **{(service, "PutDedicatedIpInPool"): ["!arn:{P}:ses:{R}:{A}:dedicated-ip-pool/{=DestinationPoolName}"]
       for service in ("pinpoint-email", "sesv2")},
    ("synthetics", "StartCanaryDryRun"): ["!arn:{P}:synthetics:{R}:{A}:canary:{=Name}"],
    ("waf", "PutLoggingConfiguration"): ["!arn:{P}:waf::{A}:webacl/{=LoggingConfiguration.ResourceArn}"],
    ("waf-regional", "PutLoggingConfiguration"): ["!arn:{P}:waf-regional:{R}:{A}:webacl/{=LoggingConfiguration.ResourceArn}"],
    ("wafv2", "PutLoggingConfiguration"): ["!arn:{P}:wafv2:{R}:{A}:{*}/webacl/{*}/{=LoggingConfiguration.ResourceArn}"],
    # One member or the other, whichever the request has.
    **{("logs", operation): ["!arn:{P}:logs:{R}:{A}:log-group:{=logGroupName|logGroupIdentifier}"]
       for operation in ("DescribeLogStreams", "GetLogGroupFields")},
    ("logs", "FilterLogEvents"): [
        "!arn:{P}:logs:{R}:{A}:log-group:{=logGroupName|logGroupIdentifier}",
        "~arn:{P}:logs:{R}:{A}:log-group:{=logGroupName|logGroupIdentifier}:log-stream:{=logStreamNames}"],
    ("logs", "GetLogEvents"): [
        "!arn:{P}:logs:{R}:{A}:log-group:{=logGroupName|logGroupIdentifier}:log-stream:{=logStreamName}"],
    ("logs", "StartQuery"): [
        "!arn:{P}:logs:{R}:{A}:log-group:{=logGroupName|logGroupNames|logGroupIdentifiers}"],
    ("route53-recovery-control-config", "UpdateSafetyRule"): [
        "!arn:{P}:route53-recovery-control::{A}:controlpanel/{*}/safetyrule/"
        "{=AssertionRuleUpdate.SafetyRuleArn|GatingRuleUpdate.SafetyRuleArn}"],
    ("xray", "UpdateSamplingRule"): [
        "!arn:{P}:xray:{R}:{A}:sampling-rule/{=SamplingRuleUpdate.RuleName|SamplingRuleUpdate.RuleARN}"],
    # Either of the load balancers' types, which the ARN tells.
    **{("elbv2", operation): ["|arn:{P}:elasticloadbalancing:{R}:{A}:listener-rule/%s/{*}/{*}/{*}/{*}" % kind
                              for kind in ("app", "net")]
       for operation in ("DeleteRule", "ModifyRule")},
    # What is made, by the name that the request gives it inside of a structure or under another word.
    ("codepipeline", "CreatePipeline"): ["+arn:{P}:codepipeline:{R}:{A}:{=pipeline.name}"],
    ("codepipeline", "PutWebhook"): ["!arn:{P}:codepipeline:{R}:{A}:{=webhook.targetPipeline}",
                                     "!arn:{P}:codepipeline:{R}:{A}:webhook:{=webhook.name}"],
    ("config", "PutConfigurationRecorder"): [
        "!arn:{P}:config:{R}:{A}:configuration-recorder/{=ConfigurationRecorder.name}/{*}"],
    ("config", "PutStoredQuery"): ["!arn:{P}:config:{R}:{A}:stored-query/{=StoredQuery.QueryName}/{*}"],
    ("ecs", "RegisterTaskDefinition"): ["+arn:{P}:ecs:{R}:{A}:task-definition/{=family}:{*}"],
    ("ecs", "RegisterDaemonTaskDefinition"): ["+arn:{P}:ecs:{R}:{A}:daemon-task-definition/{=family}:{*}"],
    ("fms", "PutAppsList"): ["!arn:{P}:fms:{R}:{A}:applications-list/{=AppsList.ListId}"],
    ("fms", "PutResourceSet"): ["!arn:{P}:fms:{R}:{A}:resource-set/{=ResourceSet.Id}"],
    ("glue", "CreateConnection"): ["+arn:{P}:glue:{R}:{A=CatalogId}:connection/{=ConnectionInput.Name}",
                                   "!arn:{P}:glue:{R}:{A=CatalogId}:catalog",
                                   "-arn:{P}:glue:{R}:{A=CatalogId}:connectionType:{=ConnectionInput.ConnectionType}"],
    ("glue", "CreateDatabase"): ["+arn:{P}:glue:{R}:{A=CatalogId}:database/{=DatabaseInput.Name}",
                                 "!arn:{P}:glue:{R}:{A=CatalogId}:catalog",
                                 "~arn:{P}:glue:{R}:{A}:database/{=DatabaseInput.TargetDatabase.DatabaseName}",
                                 "~arn:{P}:glue:{R}:{A}:connection/{=DatabaseInput.FederatedDatabase.ConnectionName}"],
    **{("glue", operation): [
        "!arn:{P}:glue:{R}:{A=CatalogId}:database/{=DatabaseName}", "!arn:{P}:glue:{R}:{A=CatalogId}:catalog",
        "%sarn:{P}:glue:{R}:{A=CatalogId}:table/{=DatabaseName}/{=TableInput.Name|Name}" % mark,
        "~arn:{P}:glue:{R}:{A}:database/{=TableInput.TargetTable.DatabaseName}",
        "~arn:{P}:glue:{R}:{A}:table/{=TableInput.TargetTable.DatabaseName}/{=TableInput.TargetTable.Name}"]
       for operation, mark in (("CreateTable", "+"), ("UpdateTable", "!"))},
    ("glue", "CreateUserDefinedFunction"): [
        "!arn:{P}:glue:{R}:{A=CatalogId}:database/{=DatabaseName}", "!arn:{P}:glue:{R}:{A=CatalogId}:catalog",
        "~arn:{P}:glue:{R}:{A=CatalogId}:userDefinedFunction/{=DatabaseName}/{=FunctionInput.FunctionName}"],
    ("glue", "BatchDeleteTable"): [
        "!arn:{P}:glue:{R}:{A=CatalogId}:database/{=DatabaseName}", "!arn:{P}:glue:{R}:{A=CatalogId}:catalog",
        "!arn:{P}:glue:{R}:{A=CatalogId}:table/{=DatabaseName}/{=TablesToDelete}"],
    **{("personalize", "CreateDataset%sJob" % kind): [
        "!arn:{P}:personalize:{R}:{A}:dataset/{=datasetArn}",
        "+arn:{P}:personalize:{R}:{A}:dataset-%s-job/{=jobName}" % kind.lower()] for kind in ("Export", "Import")},
    ("ses", "CreateConfigurationSet"): ["+arn:{P}:ses:{R}:{A}:configuration-set/{=ConfigurationSet.Name}"],
    ("xray", "CreateSamplingRule"): ["+arn:{P}:xray:{R}:{A}:sampling-rule/{=SamplingRule.RuleName}"],
    # The domain whose credentials ask, and the other one, which may be anybody's.
    ("es", "CreateOutboundCrossClusterSearchConnection"): [
        "!arn:{P}:es:{R}:{A}:domain/{=SourceDomainInfo.DomainName}",
        "~arn:{P}:es:{*}:{*}:domain/{=DestinationDomainInfo.DomainName}"],
    ("opensearch", "CreateOutboundConnection"): [
        "!arn:{P}:es:{R}:{A}:domain/{=LocalDomainInfo.AWSDomainInformation.DomainName}",
        "~arn:{P}:es:{*}:{*}:domain/{=RemoteDomainInfo.AWSDomainInformation.DomainName}"],
    ("ec2", "PurchaseHostReservation"): ["!arn:{P}:ec2:{R}:{A}:dedicated-host/{=HostIdSet}"],
    ("omics", "StartVariantImportJob"): ["!arn:{P}:omics:{R}:{A}:variantStore/{=destinationName}"],
    **{("payment-cryptography-data", operation): ["!arn:{P}:payment-cryptography:{R}:{A}:key/{=%s}" % member
                                                  for member in members.split()]
       for operation, members in (
           ("GenerateMacEmvPinChange", "NewPinPekIdentifier SecureMessagingIntegrityKeyIdentifier "
                                       "SecureMessagingConfidentialityKeyIdentifier"),
           ("GeneratePinData", "GenerationKeyIdentifier EncryptionKeyIdentifier"),
           ("ReEncryptData", "IncomingKeyIdentifier OutgoingKeyIdentifier"),
           ("TranslatePinData", "IncomingKeyIdentifier OutgoingKeyIdentifier"),
           ("VerifyPinData", "VerificationKeyIdentifier EncryptionKeyIdentifier"))},
    **{("sso-admin", operation): ["!arn:{P}:sso:::account/{=TargetId}", "!arn:{P}:sso:::instance/{=InstanceArn}",
                                  "!arn:{P}:sso:::permissionSet/{=InstanceArn}/{=PermissionSetArn}"]
       for operation in ("CreateAccountAssignment", "DeleteAccountAssignment")},
    # Types that a member tells. Of what it tells otherwise, all stay.
    **{("ssm", operation): [
        *("![ResourceType=%s]arn:{P}:ssm:{R}:{A}:%s/{=ResourceId}" % (name, kind) for name, kind in (
            ("Document", "document"), ("ManagedInstance", "managed-instance"), ("MaintenanceWindow", "maintenancewindow"),
            ("Parameter", "parameter"), ("PatchBaseline", "patchbaseline"), ("OpsItem", "opsitem"),
            ("OpsMetadata", "opsmetadata"), ("Automation", "automation-execution"), ("Association", "association"))),
        "-[ResourceType=ManagedInstance]arn:{P}:ec2:{R}:{A}:instance/{=ResourceId}",
        *("?[ResourceType!=Document|ManagedInstance|MaintenanceWindow|Parameter|PatchBaseline|OpsItem|OpsMetadata"
          "|Automation|Association]arn:{P}:%s:{*}:{*}:{*}" % service for service in ("ec2", "ecs", "ssm"))]
       for operation in ("AddTagsToResource", "ListTagsForResource", "RemoveTagsFromResource")},
    **{("route53", operation): [
        *("![ResourceType=%s]arn:{P}:route53:::%s/{=%s}" % (kind, kind, member) for kind in ("healthcheck", "hostedzone")),
        "?[ResourceType!=healthcheck|hostedzone]arn:{P}:route53:::{*}"]
       for operation, member in (("ChangeTagsForResource", "ResourceId"), ("ListTagsForResource", "ResourceId"),
                                 ("ListTagsForResources", "ResourceIds"))},
    **{("network-firewall", operation): [
        *("%s[Type%s]arn:{P}:network-firewall:{R}:{A}:%s-rulegroup/{=RuleGroupName|RuleGroupArn}" % (mark, types, kind)
          for mark, types, kind in (("!", "=STATELESS", "stateless"), ("!", "=STATEFUL", "stateful"),
                                    ("-", "!=STATELESS|STATEFUL", "stateless"),
                                    ("-", "!=STATELESS|STATEFUL", "stateful")))]
       for operation in ("CreateRuleGroup", "DeleteRuleGroup", "DescribeRuleGroup", "DescribeRuleGroupMetadata",
                         "DescribeRuleGroupSummary", "UpdateRuleGroup")},
    # Whose policy it is: the id's form tells its type.
    **{("organizations", operation): [
        *(["!arn:{P}:organizations::{A}:policy/o-{*}/{*}/p-{=PolicyId}"] if operation.endswith("Policy") else []),
        *("?arn:{P}:organizations::{A}:%s{=TargetId}" % kind for kind in ("account/o-{*}/", "ou/o-{*}/ou-", "root/o-{*}/r-"))]
       for operation in ("AttachPolicy", "DetachPolicy", "ListPoliciesForTarget")},
    **{("organizations", operation): [
        "?arn:{P}:organizations::{A}:%s{=ResourceId}" % kind for kind in (
            "account/o-{*}/", "ou/o-{*}/ou-", "policy/o-{*}/{*}/p-", "resourcepolicy/o-{*}/rp-",
            "transfer/o-{*}/{*}/{*}/rt-", "root/o-{*}/r-")]
       for operation in ("ListTagsForResource", "TagResource", "UntagResource")},
    ("organizations", "DescribeEffectivePolicy"): ["!arn:{P}:organizations::{A}:account/o-{*}/{=TargetId}"],
    ("workmail", "UpdateResource"): ["!arn:{P}:workmail:{R}:{A}:organization/{=OrganizationId}"],
    # The account's registry is called by the account's number.
    **{("ecr-public", operation): ["!arn:{P}:ecr-public::{A}:registry/{A}"]
       for operation in ("GetRegistryCatalogData", "PutRegistryCatalogData")},
    # Connections of WebSocket APIs are all below this path, whatever the method: the guide to `@connections`.
    **{("apigatewaymanagementapi", operation): [
        "!arn:{P}:execute-api:{R}:{A}:{*}/{*}/{*}/@connections/{=ConnectionId}"]
       for operation in ("DeleteConnection", "GetConnection", "PostToConnection")},
    **{("mediastore-data", operation): ["!arn:{P}:mediastore:{R}:{A}:container/{*}/{=Path}"]
       for operation in ("DeleteObject", "DescribeObject", "GetObject", "PutObject")},
    # Members of structures that are the resource.
    ("amp", "CreateScraper"): ["!arn:{P}:eks:{R}:{A}:cluster/{=source.eksConfiguration.clusterArn}",
                               "!arn:{P}:aps:{R}:{A}:workspace/{=destination.ampConfiguration.workspaceArn}"],
    ("application-signals", "BatchDeleteInstrumentationConfigurations"): [
        "!arn:{P}:application-signals:{R}:{A}:instrumentationConfig/{*}/{*}/{*}/{=DeletionTarget.ResourceArns.ResourceArns}"],
    ("bedrock", "CreatePromptRouter"): [
        "~arn:{P}:bedrock:{R}:{A}:prompt-router/{*}",
        *("!arn:{P}:bedrock:{R}:%s/{~models.modelArn}" % kind
          for kind in (":foundation-model", "{A}:inference-profile", "{A}:application-inference-profile")),
        *("-arn:{P}:bedrock:{R}:%s/{~fallbackModel.modelArn}" % kind
          for kind in (":foundation-model", "{A}:inference-profile", "{A}:application-inference-profile"))],
    **{("bedrock-agentcore", operation): [
        "!arn:{P}:bedrock-agentcore:{R}:{A}:token-vault/{*}/%scredentialprovider/{=resourceCredentialProviderName}" % kind,
        "!arn:{P}:bedrock-agentcore:{R}:{A}:token-vault/{*}",
        "!arn:{P}:bedrock-agentcore:{R}:{A}:workload-identity-directory/{*}/workload-identity/{*}",
        "!arn:{P}:bedrock-agentcore:{R}:{A}:workload-identity-directory/{*}"]
       for operation, kind in (("GetResourceApiKey", "apikey"), ("GetResourceOauth2Token", "oauth2"),
                               ("GetResourcePaymentToken", "payment"))},
    ("chime-sdk-media-pipelines", "CreateMediaStreamPipeline"): [
        "!arn:{P}:chime:{R}:{A}:media-pipeline-kinesis-video-stream-pool/{=Sinks.SinkArn}"],
    ("opensearch", "InsightFeedback"): ["!arn:{P}:es:{R}:{A}:domain/{=Entity.Value}"],
    ("payment-cryptography-data", "TranslateKeyMaterial"): [
        "!arn:{P}:payment-cryptography:{R}:{A}:key/{=%s}" % member for member in (
            "IncomingKeyMaterial.DiffieHellmanTr31KeyBlock.PrivateKeyIdentifier",
            "IncomingKeyMaterial.DiffieHellmanTr31KeyBlock.CertificateAuthorityPublicKeyIdentifier",
            "OutgoingKeyMaterial.Tr31KeyBlock.WrappingKeyIdentifier")],
    ("rekognition", "CreateStreamProcessor"): [
        "!arn:{P}:rekognition:{R}:{A}:collection/{=Settings.FaceSearch.CollectionId}",
        "~arn:{P}:rekognition:{R}:{A}:streamprocessor/{=Name}"],
    ("s3control", "SubmitMultiRegionAccessPointRoutes"): [
        "!arn:{P}:s3::{A=AccountId}:accesspoint/{=Mrap}", "~arn:{P}:s3:::{=RouteUpdates.Bucket}"],
    ("sagemaker-metrics", "BatchGetMetrics"): [
        "!arn:{P}:sagemaker:{R}:{A}:%s/{~MetricQueries.ResourceArn}" % kind
        for kind in ("experiment-trial-component", "training-job")],
    **{("sesv2", operation): ["!arn:{P}:ses:{R}:{A}:tenant/{*}/{~ReputationEntityReference}"]
       for operation in ("GetReputationEntity", "UpdateReputationEntityCustomerManagedStatus")},
    ("sesv2", "UpdateReputationEntityPolicy"): [
        "!arn:{P}:ses:{R}:{A}:tenant/{*}/{~ReputationEntityReference}",
        "!arn:{P}:ses:{R}:aws:reputation-policy/{~ReputationEntityPolicy}"],
    ("ssm", "GetAccessToken"): ["!arn:{P}:ssm:{R}:{A}:opsitem/{=AccessRequestId}"],
    # The client is an application, by its ARN.
    ("sso-oidc", "CreateTokenWithIAM"): ["!arn:{P}:sso::{A}:application/{*}/{~clientId}"],
    ("stepfunctions", "CreateStateMachineAlias"): [
        "!arn:{P}:states:{R}:{A}:stateMachine:{=routingConfiguration.stateMachineVersionArn}"],
    # The source is deleted, which the data call a destination.
    ("logs", "DeleteDeliverySource"): ["!arn:{P}:logs:{R}:{A}:delivery-source:{=name}",
                                       "~arn:{P}:logs:{R}:{A}:delivery-destination:{*}"],
    # A contact that is made has no name; what `Name` says is shown to agents.
    ("connect", "CreateContact"): [
        "!arn:{P}:connect:{R}:{A}:instance/{=InstanceId}", "~arn:{P}:connect:{R}:{A}:instance/{=InstanceId}/contact/{*}",
        "-arn:{P}:connect:{R}:{A}:instance/{=InstanceId}/contact/{=RelatedContactId}",
        "-arn:{P}:connect:{R}:{A}:instance/{=InstanceId}/agent/{=UserInfo.UserId}"],
    # What is made, and AWS names.
    ("accessanalyzer", "CreateServiceLinkedAnalyzer"): ["+arn:{P}:access-analyzer:{R}:{A}:analyzer/{*}"],
    ("config", "PutConnector"): ["+arn:{P}:config:{R}:{A}:connector/{*}/{*}/{*}"],
    ("ec2", "CreateFleet"): [
        "+arn:{P}:ec2:{R}:{A}:fleet/{*}", "+arn:{P}:ec2:{R}:{A}:instance/{*}",
        *("-arn:{P}:ec2:{R}:%s/{=%s}" % one for one in (
            ("{A}:launch-template", "LaunchTemplateConfigs.LaunchTemplateSpecification.LaunchTemplateId"),
            ("{A}:subnet", "LaunchTemplateConfigs.Overrides.SubnetId"),
            (":image", "LaunchTemplateConfigs.Overrides.ImageId"),
            ("{A}:placement-group", "LaunchTemplateConfigs.Overrides.Placement.GroupName"),
            ("{A}:capacity-reservation", "ReservedCapacityOptions.CapacityReservationTarget.CapacityReservationIds"))),
        *("?arn:{P}:ec2:{R}:%s/{*}" % kind for kind in (
            "{A}:launch-template", "{A}:subnet", ":image", "{A}:placement-group", "{A}:capacity-reservation", "{A}:volume"))],
    ("ec2", "RequestSpotFleet"): [
        "+arn:{P}:ec2:{R}:{A}:spot-fleet-request/{*}", "?arn:{P}:ec2:{*}:{*}:{*}",
        *("~arn:{P}:ec2:{R}:%s/{=SpotFleetRequestConfig.%s}" % one for one in (
            (":image", "LaunchSpecifications.ImageId"), ("{A}:subnet", "LaunchSpecifications.SubnetId"),
            ("{A}:network-interface", "LaunchSpecifications.NetworkInterfaces.NetworkInterfaceId"),
            ("{A}:subnet", "LaunchSpecifications.NetworkInterfaces.SubnetId"),
            ("{A}:key-pair", "LaunchSpecifications.KeyName"),
            ("{A}:launch-template", "LaunchTemplateConfigs.LaunchTemplateSpecification.LaunchTemplateId"),
            ("{A}:launch-template", "LaunchTemplateConfigs.LaunchTemplateSpecification.LaunchTemplateName"),
            ("{A}:subnet", "LaunchTemplateConfigs.Overrides.SubnetId")))],
    ("ec2", "CreatePublicIpv4Pool"): ["+arn:{P}:ec2:{R}:{A}:ipv4pool-ec2/{*}"],
    ("ec2", "CreateRestoreImageTask"): ["+arn:{P}:ec2:{R}::image/{*}"],
    ("ec2", "ImportSnapshot"): ["+arn:{P}:ec2:{R}:{A}:import-snapshot-task/{*}", "+arn:{P}:ec2:{R}::snapshot/{*}"],
    ("ec2", "PurchaseCapacityBlock"): ["+arn:{P}:ec2:{R}:{A}:capacity-reservation/{*}"],
    ("imagebuilder", "ImportVmImage"): ["+arn:{P}:imagebuilder:{R}:{A}:image/{*}/{*}"],
    ("route53resolver", "AssociateFirewallRuleGroup"): [
        "+arn:{P}:route53resolver:{R}:{A}:firewall-rule-group-association/{*}",
        "~arn:{P}:route53resolver:{R}:{A}:firewall-rule-group/{=FirewallRuleGroupId}"],
    ("glue", "StartDataQualityRuleRecommendationRun"): [
        "!arn:{P}:glue:{R}:{A}:dataQualityRuleset/{=CreatedRulesetName}",
        *(template for source in ("GlueTable", "DataQualityGlueTable") for template in (
            "~arn:{P}:glue:{R}:{A=CatalogId}:database/{=DataSource.%s.DatabaseName}" % source,
            "~arn:{P}:glue:{R}:{A=CatalogId}:table/{=DataSource.%s.DatabaseName}/{=DataSource.%s.TableName}" % (source, source),
            "~arn:{P}:glue:{R}:{A}:connection/{=DataSource.%s.ConnectionName}" % source))],
    # What is made has no name yet; the member is of what it is made for.
    ("ec2", "CreateFlowLogs"): ["+arn:{P}:ec2:{R}:{A}:vpc-flow-log/{*}",
                                *("-arn:{P}:ec2:{R}:{A}:%s/{=ResourceIds}" % kind for kind in (
                                    "natgateway", "network-interface", "subnet", "transit-gateway",
                                    "transit-gateway-attachment", "vpc"))],
    ("ec2", "CreateVpcPeeringConnection"): [
        "+arn:{P}:ec2:{R}:{A}:vpc-peering-connection/{*}", "!arn:{P}:ec2:{R}:{A}:vpc/{=VpcId}",
        "-arn:{P}:ec2:{R}:{A=PeerOwnerId}:vpc/{=PeerVpcId}"],
    # Which database is read; the data have one type for it and for the one that is made.
    ("rds", "RestoreDBInstanceToPointInTime"): [
        "-arn:{P}:rds:{R}:{A}:db:{=SourceDBInstanceIdentifier}", "!arn:{P}:rds:{R}:{A}:db:{=TargetDBInstanceIdentifier}",
        "!arn:{P}:rds:{R}:{A}:og:{=OptionGroupName}", "!arn:{P}:rds:{R}:{A}:pg:{=DBParameterGroupName}",
        "!arn:{P}:rds:{R}:{A}:subgrp:{=DBSubnetGroupName}", "~arn:{P}:rds:{R}:{A}:auto-backup:{=SourceDBInstanceAutomatedBackupsArn}",
        "?arn:{P}:rds:{R}:{A}:auto-backup:{*}", "?[SourceDbiResourceId]arn:{P}:rds:{R}:{A}:db:{*}"],
    **{("redshift", operation): [
        "!arn:{P}:redshift:{R}:{A}:%s:{=ClusterSecurityGroupName}/ec2securitygroup/{*}/{*}" % kind
        for kind in ("securitygroup", "securitygroupingress")]
       for operation in ("AuthorizeClusterSecurityGroupIngress", "RevokeClusterSecurityGroupIngress")},
    ("redshift", "RestoreFromClusterSnapshot"): [
        "!arn:{P}:redshift:{R}:{A}:cluster:{=ClusterIdentifier}",
        "!arn:{P}:redshift:{R}:{A}:snapshot:{=SnapshotClusterIdentifier}/{=SnapshotIdentifier|SnapshotArn}",
        "~arn:{P}:redshift:{R}:{A}:hsmclientcertificate:{=HsmClientCertificateIdentifier}",
        "~arn:{P}:redshift:{R}:{A}:hsmconfiguration:{=HsmConfigurationIdentifier}",
        "~arn:{P}:redshift:{R}:{A}:snapshotschedule:{=SnapshotScheduleIdentifier}"],
    # Snapshots that are copied are read, which the data mark as optional.
    ("rds", "CopyDBSnapshot"): ["!arn:{P}:rds:{R}:{A}:snapshot:{=SourceDBSnapshotIdentifier}",
                                "+arn:{P}:rds:{R}:{A}:snapshot:{=TargetDBSnapshotIdentifier}"],
}

# What an operation names of other services' by other members than ARNs, keys' and buckets' (those are found by
# their names): it counts for policies that forbid.
MENTIONS = {
    ("application-autoscaling", None): [
        "~[ServiceNamespace=%s]arn:{P}:%s:{R}:{A}:{=ResourceId}" % (name, service) for name, service in (
            ("dynamodb", "dynamodb"), ("ecs", "ecs"), ("rds", "rds"), ("lambda", "lambda"))],
    ("logs", "CreateExportTask"): ["~arn:{P}:s3:::{=destination}", "~arn:{P}:s3:::{=destination}/{*}"],
    # Addresses and other ids of what has another name in its ARN.
    **{("ec2", operation): ["?[PublicIp]arn:{P}:ec2:{R}:{A}:elastic-ip/{*}"]
       for operation in ("AssociateAddress", "DisassociateAddress", "ReleaseAddress")},
    ("ec2", "DetachVolume"): ["?[!InstanceId]arn:{P}:ec2:{R}:{A}:instance/{*}"],
    **{(service, "RestoreDBClusterToPointInTime"): ["?[SourceDbClusterResourceId]arn:{P}:rds:{R}:{A}:cluster:{*}"]
       for service in ("docdb", "neptune", "rds")},
    ("athena", "StartQueryExecution"): ["~arn:{P}:athena:{R}:{A}:datacatalog/{=QueryExecutionContext.Catalog}"],
    ("events", "PutPermission"): ["~arn:{P}:events:{R}:{A}:event-bus/{=EventBusName}"],
    ("events", "RemovePermission"): ["~arn:{P}:events:{R}:{A}:event-bus/{=EventBusName}"],
    **{("ecs", operation): ["~arn:{P}:ecs:{R}:{A}:cluster/{=cluster}"] for operation in (
        "RunTask", "StartTask", "ExecuteCommand", "CreateService", "UpdateService", "DeleteService", "StopTask")},
    ("eks", None): ["~arn:{P}:eks:{R}:{A}:cluster/{=clusterName}"],
}


def _secrets(member, service, operations):
    return {(service, operation): member for operation in operations.split()}


# Operations whose answers hold secrets by no name that tells it: (service, operation) → the member.
SECRETS = {
    **_secrets("Parameters.Value", "ssm", "GetParameter GetParameters GetParametersByPath GetParameterHistory"),
    # Presigned addresses of code, by whatever is in it.
    **_secrets("Code.Location", "lambda", "GetFunction GetLayerVersion GetLayerVersionByArn"),
    **_secrets("UserData", "ec2", "DescribeInstanceAttribute"),
    **_secrets("Output", "ec2", "GetConsoleOutput"),  # what boot scripts print, Windows's first password among it
    **_secrets("UefiData", "ec2", "GetInstanceUefiData"),
    # Environments, where passwords are.
    **_secrets("environment.environmentVariables", "codebuild",
               "BatchGetProjects BatchGetBuilds BatchGetBuildBatches BatchGetSandboxes"),
    **_secrets("containerProperties.environment", "batch", "DescribeJobDefinitions DescribeJobs"),
    **_secrets("overrides.containerOverrides.environment", "ecs", "DescribeTasks"),
    **_secrets("containers.environment", "lightsail", "GetContainerServiceDeployments GetContainerServices"),
    **_secrets("OptionSettings.Value", "elasticbeanstalk", "DescribeConfigurationSettings"),
    **_secrets("Connection.ConnectionProperties", "glue", "GetConnection GetConnections"),
    **_secrets("IdentityProvider.ProviderDetails", "cognito-idp", "DescribeIdentityProvider"),  # client_secret
    **_secrets("apiKeys.id", "appsync", "ListApiKeys"),  # an AppSync key's id is the key
    **_secrets("Accessor.BillingToken", "managedblockchain", "GetAccessor"),
    **_secrets("StreamingSessionURL", "kinesis-video-archived-media", "GetHLSStreamingSessionURL GetDASHStreamingSessionURL"),
    **_secrets("LoRaWAN.SessionKeys", "iotwireless", "GetWirelessDevice"),
    **_secrets("UnlockCode", "snowball", "GetJobUnlockCode"), **_secrets("ManifestURI", "snowball", "GetJobManifest"),
    **_secrets("streamKey.value", "ivs", "GetStreamKey BatchGetStreamKey"),
    **_secrets("ingestConfiguration.streamKey", "ivs-realtime", "GetIngestConfiguration"),
    # API Gateway permits by method and path: the default policy goes by the path.
    **_secrets("value", "apigateway", "GetApiKey GetApiKeys GetUsagePlanKey GetUsagePlanKeys"),
}

# What is called like a secret and is none: (service, operation or member).
NO_SECRETS = {
    # AWS answers with asterisks, or not at all.
    ("rds", "MasterUserPassword"), ("neptune", "MasterUserPassword"), ("docdb", "MasterUserPassword"),
    ("redshift", "MasterUserPassword"), ("lightsail", "masterUserPassword"), ("elbv2", "ClientSecret"),
    ("securityhub", "GetFindings"),
    # ARNs, ids and paths of secrets.
    ("fsx", "DomainJoinServiceAccountSecret"), ("mediaconvert", "CertificateSecret"), ("appmesh", "privateKey"),
    ("mediapackage", "CdnIdentifierSecret"), ("mediapackage-vod", "CdnIdentifierSecret"), ("iot", "secretKey"),
    # Addresses that open nothing by themselves.
    ("bedrock-agent-runtime", "url"), ("identitystore", "ProfileUrl"), ("workdocs", "WebUrl"), ("geo-routes", "Url"),
    ("firehose", "Url"), ("glue", "EndpointUrl"), ("chime-sdk-media-pipelines", "Url"), ("workspaces", "ConnectionString"),
    ("bedrock-agentcore-control", "url"), ("quicksight", "OAuthTokenEndpointUrl"),
    ("quicksight", "OAuthAuthorizationEndpointUrl"), ("devicefarm", "testDetailsUrl"), ("devicefarm", "jobDetailsUrl"),
    ("qconnect", "sourceURL"), ("bedrock-agent", "connectionString"),
    # Variables of a game of rules, not of a process.
    ("frauddetector", "eventVariables"), ("frauddetector", "inputVariables"), ("frauddetector", "outputVariables"),
    ("stepfunctions", "assignedVariables"), ("bedrock", "unusedVariables"),
    # Says which version of a policy it is.
    ("entityresolution", "token"), ("kms", "GetParametersForImport"),
}

# Services and operations whose roles aren't handed on: they are what the operation is about, the caller takes them
# itself (sts:AssumeRole, which AWS asks for by that name), or they are roles of another kind.
NO_ROLES = {
    "iam", "sts", "sso", "sso-admin", "rolesanywhere", "cognito-idp", "redshift-data", "rds-data", "workdocs", "chime",
    "chime-sdk-messaging", "managedblockchain", "qldb", "identitystore", "grafana", "connect",
}
