// Makes presigned-js.json: URLs that the AWS SDK for JavaScript presigned with the tests' placeholder on 2025-06-01 at
// 12:00:00 UTC, for an hour. The checksums in their queries are the SDK's own, but for the last one.
//
//     node presigned.mjs > presigned-js.json   (in a folder with @aws-sdk/client-s3 and s3-request-presigner 3.1162 to 3.1169)
import { PutObjectCommand, S3Client, UploadPartCommand } from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const client = new S3Client({
  region: "eu-west-1",
  credentials: {
    accessKeyId: "ASIAQWERTYUIOPASDFGH",
    secretAccessKey: "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2",
    sessionToken: "chaperone/placeholder-token",
  },
});
const at = { Bucket: "bucket", Key: "a b/c+d" };
const ChecksumSHA256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="; // of "hello"
const cases = [
  ["v4-js-put", new PutObjectCommand(at), {}, {}],
  ["v4-js-part", new UploadPartCommand({ ...at, PartNumber: 1, UploadId: "u" }), {}, {}],
  [
    "v4-js-unhoisted",
    new PutObjectCommand({ ...at, ChecksumSHA256 }),
    { unhoistableHeaders: new Set(["x-amz-checksum-sha256"]) },
    { "x-amz-checksum-sha256": ChecksumSHA256 },
  ],
];
const lines = [];
for (const [name, command, how, headers] of cases) {
  const options = { expiresIn: 3600, signingDate: new Date("2025-06-01T12:00:00Z"), ...how };
  lines.push({ name, method: "PUT", url: await getSignedUrl(client, command, options), headers });
}
console.log(JSON.stringify(lines, null, 1));
