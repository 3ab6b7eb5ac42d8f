package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// masked reads masked answers: the SDK holds SQS's digests, DynamoDB's CRC-32 and S3's checksums against what it got.
// What there is was made by the operator; own stands for a value that may go into a message.
func masked(ctx context.Context, cfg aws.Config, own string) {
	identity := must(sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil))
	items := must(dynamodb.NewFromConfig(cfg).Scan(ctx, &dynamodb.ScanInput{TableName: aws.String("masked")})).Items
	object := must(s3.NewFromConfig(cfg).GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("masked"), Key: aws.String("k")}))
	text := must(io.ReadAll(object.Body))
	queues := sqs.NewFromConfig(cfg)
	queue := must(queues.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("masked")})).QueueUrl
	received := must(queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue, MessageAttributeNames: []string{"All"}}))
	must(queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue, MessageBody: &own}))
	sent := must(queues.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: queue, Entries: []sqstypes.SendMessageBatchRequestEntry{
		{Id: aws.String("0"), MessageBody: &own}, {Id: aws.String("1"), MessageBody: aws.String("as it is")},
	}}))
	member := func(name string) string { return items[0][name].(*dbtypes.AttributeValueMemberS).Value }
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"account": identity.Account, "pin": member("pin"), "id": member("id"), "object": string(text),
		"body": received.Messages[0].Body, "sent": len(sent.Successful),
	})
}
