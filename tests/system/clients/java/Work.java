import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import software.amazon.awssdk.core.async.AsyncRequestBody;
import software.amazon.awssdk.core.async.AsyncResponseTransformer;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.apache.ApacheHttpClient;
import software.amazon.awssdk.http.async.SdkAsyncHttpClient;
import software.amazon.awssdk.http.crt.AwsCrtAsyncHttpClient;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.dynamodb.DynamoDbClient;
import software.amazon.awssdk.services.dynamodb.model.AttributeDefinition;
import software.amazon.awssdk.services.dynamodb.model.AttributeValue;
import software.amazon.awssdk.services.dynamodb.model.BillingMode;
import software.amazon.awssdk.services.dynamodb.model.KeySchemaElement;
import software.amazon.awssdk.services.dynamodb.model.KeyType;
import software.amazon.awssdk.services.dynamodb.model.ScalarAttributeType;
import software.amazon.awssdk.services.s3.S3AsyncClient;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.model.ChecksumMode;
import software.amazon.awssdk.services.s3.model.NoSuchKeyException;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;
import software.amazon.awssdk.services.sqs.SqsClient;
import software.amazon.awssdk.services.sts.StsClient;

/**
 * What programs do with the AWS SDK for Java 2, by its three HTTP clients. Argument: a bucket; with `apache`, `netty` or `crt`
 * after it, that bucket is deleted by that client, and nothing else is done. `masked` and what stands for a value: masked answers
 * are read, and nothing else is done.
 */
class Work {
    static void delete(String bucket, Region region, String how) throws Exception {
        if (how.equals("apache")) {
            S3Client.builder().region(region).httpClient(ApacheHttpClient.create()).build().deleteBucket(it -> it.bucket(bucket));
        } else {
            SdkAsyncHttpClient http = how.equals("crt") ? AwsCrtAsyncHttpClient.create() : NettyNioAsyncHttpClient.create();
            S3AsyncClient.builder().region(region).httpClient(http).build().deleteBucket(it -> it.bucket(bucket)).get();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String bucket = arguments[0];
        Region region = Region.EU_WEST_1;
        if (bucket.equals("masked")) {
            masked(region, arguments[1]);
            return;
        }
        if (arguments.length > 1) {
            delete(bucket, region, arguments[1]);
            return;
        }
        var http = ApacheHttpClient.create();
        try (StsClient sts = StsClient.builder().region(region).httpClient(http).build()) {
            System.out.println("account " + sts.getCallerIdentity().account());
        }
        byte[] data = new byte[3_000_000];
        new Random(1).nextBytes(data);
        S3Client s3 = S3Client.builder().region(region).httpClient(http).build();
        s3.createBucket(it -> it.bucket(bucket).createBucketConfiguration(c -> c.locationConstraint("eu-west-1")));
        s3.waiter().waitUntilBucketExists(it -> it.bucket(bucket));
        s3.putObject(it -> it.bucket(bucket).key("sync"), RequestBody.fromBytes(data));
        System.out.println("sync " + Arrays.equals(data, s3.getObjectAsBytes(it -> it.bucket(bucket).key("sync")).asByteArray()));
        asynchronous("Netty", NettyNioAsyncHttpClient.create(), region, bucket, data);
        asynchronous("CRT", AwsCrtAsyncHttpClient.create(), region, bucket, data);
        s3.putObject(it -> it.bucket(bucket).key("k/2,b c é"), RequestBody.fromString("text"));
        s3.listObjectsV2Paginator(it -> it.bucket(bucket)).contents().stream().map(it -> it.key()).sorted()
            .forEach(key -> System.out.println("listed " + key));
        try (S3Presigner presigner = S3Presigner.builder().region(region).build()) {
            var url = presigner.presignGetObject(it -> it.signatureDuration(Duration.ofMinutes(5))
                .getObjectRequest(get -> get.bucket(bucket).key("k/2,b c é"))).url();
            var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(url.toString())).build(),
                HttpResponse.BodyHandlers.ofString());
            System.out.println("presigned get " + answer.statusCode() + " " + answer.body());
        }
        try {
            s3.getObjectAsBytes(it -> it.bucket(bucket).key("none"));
        } catch (NoSuchKeyException missing) {
            System.out.println("error by its type");
        }
        DynamoDbClient db = DynamoDbClient.builder().region(region).httpClient(http).build();
        db.createTable(it -> it.tableName(bucket).billingMode(BillingMode.PAY_PER_REQUEST)
            .keySchema(KeySchemaElement.builder().attributeName("id").keyType(KeyType.HASH).build())
            .attributeDefinitions(AttributeDefinition.builder().attributeName("id").attributeType(ScalarAttributeType.S).build()));
        db.waiter().waitUntilTableExists(it -> it.tableName(bucket));
        for (String id : List.of("1", "2", "3")) {
            db.putItem(it -> it.tableName(bucket).item(Map.of("id", AttributeValue.fromS(id))));
        }
        System.out.println("scanned " + db.scanPaginator(it -> it.tableName(bucket).limit(1)).items().stream().count());
    }

    /**
     * The SDK holds SQS's digests, DynamoDB's CRC-32 and S3's checksums against what it got. What there is was made by the
     * operator; `own` stands for a value that may go into a message.
     */
    static void masked(Region region, String own) {
        var http = ApacheHttpClient.create();
        var account = StsClient.builder().region(region).httpClient(http).build().getCallerIdentity().account();
        var item = DynamoDbClient.builder().region(region).httpClient(http).build().scan(it -> it.tableName("masked")).items().get(0);
        var object = S3Client.builder().region(region).httpClient(http).build()
            .getObjectAsBytes(it -> it.bucket("masked").key("k").checksumMode(ChecksumMode.ENABLED)).asUtf8String();
        var queues = SqsClient.builder().region(region).httpClient(http).build();
        var queue = queues.getQueueUrl(it -> it.queueName("masked")).queueUrl();
        var body = queues.receiveMessage(it -> it.queueUrl(queue).messageAttributeNames("All")).messages().get(0).body();
        queues.sendMessage(it -> it.queueUrl(queue).messageBody(own));
        var sent = queues.sendMessageBatch(it -> it.queueUrl(queue)
            .entries(e -> e.id("0").messageBody(own), e -> e.id("1").messageBody("as it is"))).successful().size();
        System.out.printf("{\"account\":\"%s\",\"pin\":\"%s\",\"id\":\"%s\",\"object\":\"%s\",\"body\":\"%s\",\"sent\":%d}%n",
            account, item.get("pin").s(), item.get("id").s(), object.replace("\n", "\\n"), body, sent);
    }

    static void asynchronous(String name, SdkAsyncHttpClient http, Region region, String bucket, byte[] data) {
        try (S3AsyncClient s3 = S3AsyncClient.builder().region(region).httpClient(http).build()) {
            s3.putObject(it -> it.bucket(bucket).key(name), AsyncRequestBody.fromBytes(data)).join();
            var back = s3.getObject(it -> it.bucket(bucket).key(name), AsyncResponseTransformer.toBytes()).join();
            System.out.println(name + " " + Arrays.equals(data, back.asByteArray()));
        }
    }
}
