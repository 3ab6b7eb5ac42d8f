// What programs do with the AWS SDK for JavaScript v3. Argument: a bucket.
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { CreateTableCommand, DynamoDBClient, PutItemCommand, paginateScan, waitUntilTableExists } from "@aws-sdk/client-dynamodb";
import { CreateBucketCommand, DeleteObjectCommand, GetObjectCommand, PutObjectCommand, S3Client, paginateListObjectsV2, waitUntilBucketExists } from "@aws-sdk/client-s3";
import { CreateQueueCommand, ReceiveMessageCommand, SQSClient, SendMessageCommand } from "@aws-sdk/client-sqs";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const Bucket = process.argv[2];
const region = process.env.AWS_REGION; // by itself: from the environment, or the metadata address
const options = region ? { region } : {};
const sha = (data) => createHash("sha256").update(data).digest("hex");

console.log("account", (await new STSClient(options).send(new GetCallerIdentityCommand({}))).Account);
const s3 = new S3Client(options);
await s3.send(new CreateBucketCommand({ Bucket }));
await waitUntilBucketExists({ client: s3, maxWaitTime: 20 }, { Bucket });
const data = randomBytes(16_000_000);
await new Upload({ client: s3, params: { Bucket, Key: "a large one", Body: Readable.from([data]) } }).done();
const large = await s3.send(new GetObjectCommand({ Bucket, Key: "a large one" }));
console.log("large object", sha(await large.Body.transformToByteArray()) === sha(data));
for (const Key of ["k/1", "k/2,b", "k/3 c", "k/é"]) await s3.send(new PutObjectCommand({ Bucket, Key, Body: Key }));
const keys = [];
for await (const page of paginateListObjectsV2({ client: s3 }, { Bucket, Prefix: "k/" }))
  for (const { Key } of page.Contents ?? []) keys.push(Key);
console.log("listed", keys.sort().join(" "));
const stream = new PutObjectCommand({ Bucket, Key: "stream", Body: Readable.from(["one ", "two"]), ContentLength: 7 });
await s3.send(stream);
// The SDK puts the checksum of no bytes into the URL's query, where S3 doesn't look for one.
const put = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: "presigned" }));
console.log("checksum in the URL", new URL(put).searchParams.get("x-amz-checksum-crc32"));
console.log("presigned put", (await fetch(put, { method: "PUT", body: "by a URL" })).status);
const get = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: "presigned" }));
console.log("presigned get", await (await fetch(get)).text());
await s3.send(new DeleteObjectCommand({ Bucket, Key: "k/1" }));
try {
  await s3.send(new GetObjectCommand({ Bucket, Key: "k/1" }));
} catch (error) {
  console.log("error by its type", error.name);
}

const TableName = Bucket;
const dynamodb = new DynamoDBClient(options);
await dynamodb.send(new CreateTableCommand({
  TableName, BillingMode: "PAY_PER_REQUEST",
  KeySchema: [{ AttributeName: "id", KeyType: "HASH" }],
  AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }],
}));
await waitUntilTableExists({ client: dynamodb, minDelay: 1, maxWaitTime: 60 }, { TableName });
for (const id of ["1", "2", "3"]) await dynamodb.send(new PutItemCommand({ TableName, Item: { id: { S: id } } }));
let scanned = 0;
for await (const page of paginateScan({ client: dynamodb, pageSize: 1 }, { TableName })) scanned += page.Count;
console.log("scanned", scanned);

const sqs = new SQSClient(options);
const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: Bucket }));
await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "hello & <goodbye>" }));
console.log("received", (await sqs.send(new ReceiveMessageCommand({ QueueUrl }))).Messages[0].Body);
