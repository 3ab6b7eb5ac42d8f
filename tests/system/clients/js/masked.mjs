// Masked answers, read by the AWS SDK for JavaScript v3, which holds SQS's digests, DynamoDB's CRC-32 and S3's checksums
// against what it got. What there is was made by the operator.
import { DynamoDBClient, ScanCommand } from "@aws-sdk/client-dynamodb";
import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { GetQueueUrlCommand, ReceiveMessageCommand, SQSClient, SendMessageBatchCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const region = "eu-west-1";
const tell = (what) => console.log(JSON.stringify(what));
const identity = await new STSClient({ region }).send(new GetCallerIdentityCommand({}));
const { Items } = await new DynamoDBClient({ region }).send(new ScanCommand({ TableName: "masked" }));
const s3 = new S3Client({ region, forcePathStyle: true });
const object = await s3.send(new GetObjectCommand({ Bucket: "masked", Key: "k", ChecksumMode: "ENABLED" }));
const text = await object.Body.transformToString();
const sqs = new SQSClient({ region });
const { QueueUrl } = await sqs.send(new GetQueueUrlCommand({ QueueName: "masked" }));
const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, MessageAttributeNames: ["All"], VisibilityTimeout: 0 }));
const own = process.argv[2]; // what stands for a value that may go into a message
await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: own }));
const Entries = [own, "as it is"].map((MessageBody, at) => ({ Id: `${at}`, MessageBody }));
const { Successful } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
tell({ account: identity.Account, pin: Items[0].pin.S, id: Items[0].id.S, object: text, body: Messages[0].Body, sent: Successful.length });
