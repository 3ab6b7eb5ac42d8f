// What programs do with the AWS SDK for Go v2. Argument: a bucket; with `delete` after it, that is all that is done; or
// `masked`, and what stands for a value.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func main() {
	ctx, bucket := context.Background(), os.Args[1]
	cfg := must(config.LoadDefaultConfig(ctx))
	if bucket == "masked" {
		masked(ctx, cfg, os.Args[2])
		return
	}
	if len(os.Args) > 2 && os.Args[2] == "delete" {
		must(s3.NewFromConfig(cfg).DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}))
		return
	}
	fmt.Println("account", *must(sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil)).Account)

	client := s3.NewFromConfig(cfg)
	must(client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"}}))
	if err := s3.NewBucketExistsWaiter(client).Wait(ctx, &s3.HeadBucketInput{Bucket: &bucket}, 20*time.Second); err != nil {
		must(0, err)
	}
	data := make([]byte, 16_000_000)
	rand.Read(data)
	must(manager.NewUploader(client).Upload(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("a large one"), Body: bytes.NewReader(data)}))
	back := manager.NewWriteAtBuffer(nil)
	must(manager.NewDownloader(client).Download(ctx, back, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("a large one")}))
	fmt.Println("large object", bytes.Equal(back.Bytes(), data))
	for _, key := range []string{"k/1", "k/2,b", "k/3 c", "k/é"} {
		must(client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(key), Body: bytes.NewReader([]byte(key))}))
	}
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String("k/")})
	for pages.HasMorePages() {
		for _, object := range must(pages.NextPage(ctx)).Contents {
			fmt.Println("listed", *object.Key)
		}
	}
	presigner := s3.NewPresignClient(client)
	put := must(presigner.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("presigned")}))
	request := must(http.NewRequest(put.Method, put.URL, bytes.NewReader([]byte("by a URL"))))
	fmt.Println("presigned put", must(http.DefaultClient.Do(request)).StatusCode)
	get := must(presigner.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("presigned")}))
	fmt.Println("presigned get", string(must(io.ReadAll(must(http.Get(get.URL)).Body))))
	must(client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("k/1")}))
	_, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("k/1")})
	var missing *types.NoSuchKey
	fmt.Println("error by its type", errors.As(err, &missing))

	db := dynamodb.NewFromConfig(cfg)
	must(db.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &bucket, BillingMode: dbtypes.BillingModePayPerRequest,
		KeySchema:            []dbtypes.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: dbtypes.KeyTypeHash}},
		AttributeDefinitions: []dbtypes.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: dbtypes.ScalarAttributeTypeS}},
	}))
	if err := dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: &bucket}, 20*time.Second); err != nil {
		must(0, err)
	}
	for _, id := range []string{"1", "2", "3"} {
		must(db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &bucket, Item: map[string]dbtypes.AttributeValue{"id": &dbtypes.AttributeValueMemberS{Value: id}}}))
	}
	scanned := int32(0)
	scan := dynamodb.NewScanPaginator(db, &dynamodb.ScanInput{TableName: &bucket, Limit: aws.Int32(1)})
	for scan.HasMorePages() {
		scanned += must(scan.NextPage(ctx)).Count
	}
	fmt.Println("scanned", scanned)

	queues := sqs.NewFromConfig(cfg)
	queue := must(queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &bucket})).QueueUrl
	must(queues.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: queue, MessageBody: aws.String("hello & <goodbye>")}))
	fmt.Println("received", *must(queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue})).Messages[0].Body)
}
