//! What programs do with the AWS SDK for Rust. Argument: a bucket; with `delete` after it, that is all that is done. `masked`
//! and what stands for a value: masked answers are read, and nothing else is done.

use std::{env, error::Error, process::Command, time::Duration};

use aws_sdk_dynamodb::{
    client::Waiters as _,
    types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use aws_sdk_s3::{
    client::Waiters as _,
    error::SdkError,
    operation::get_object::GetObjectError,
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{
        BucketLocationConstraint, ChecksumMode, CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration,
    },
};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;

const PART: usize = 6_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bucket = env::args().nth(1).ok_or("which bucket?")?;
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    if env::args().nth(2).is_some_and(|what| what == "delete") {
        aws_sdk_s3::Client::new(&config).delete_bucket().bucket(bucket).send().await?;
        return Ok(());
    }
    if bucket == "masked" {
        return masked(&config, &env::args().nth(2).ok_or("what stands for a value?")?).await;
    }
    let caller = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await?;
    println!("account {}", caller.account().unwrap_or_default());
    objects(&aws_sdk_s3::Client::new(&config), &bucket).await?;
    items(&aws_sdk_dynamodb::Client::new(&config), &bucket).await?;

    let queues = aws_sdk_sqs::Client::new(&config);
    let queue = queues.create_queue().queue_name(&bucket).send().await?.queue_url.ok_or("no queue")?;
    queues.send_message().queue_url(&queue).message_body("hello & <goodbye>").send().await?;
    for message in queues.receive_message().queue_url(&queue).send().await?.messages() {
        println!("received {}", message.body().unwrap_or_default());
    }
    Ok(())
}

async fn objects(s3: &aws_sdk_s3::Client, bucket: &str) -> Result<(), Box<dyn Error>> {
    let place = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
    s3.create_bucket().bucket(bucket).create_bucket_configuration(place).send().await?;
    s3.wait_until_bucket_exists().bucket(bucket).wait(Duration::from_secs(20)).await?;

    let data: Vec<u8> = (0..16_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let upload = s3.create_multipart_upload().bucket(bucket).key("a large one").send().await?;
    let id = upload.upload_id().ok_or("no upload")?;
    let mut parts = CompletedMultipartUpload::builder();
    for (number, part) in (1..).zip(data.chunks(PART)) {
        let sent = s3.upload_part().bucket(bucket).key("a large one").upload_id(id).part_number(number);
        let sent = sent.body(ByteStream::from(part.to_vec())).send().await?;
        let part =
            CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).set_checksum_crc32(sent.checksum_crc32);
        parts = parts.parts(part.build());
    }
    let complete = s3.complete_multipart_upload().bucket(bucket).key("a large one").upload_id(id);
    complete.multipart_upload(parts.build()).send().await?;
    let back = s3.get_object().bucket(bucket).key("a large one").send().await?.body.collect().await?.into_bytes();
    println!("large object {}", back == data);

    for key in ["k/1", "k/2,b", "k/3 c", "k/é"] {
        s3.put_object().bucket(bucket).key(key).body(ByteStream::from(key.as_bytes().to_vec())).send().await?;
    }
    let mut pages = s3.list_objects_v2().bucket(bucket).prefix("k/").max_keys(3).into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page?.contents() {
            println!("listed {}", object.key().unwrap_or_default());
        }
    }

    let hour = PresigningConfig::expires_in(Duration::from_secs(3600))?;
    let put = s3.put_object().bucket(bucket).key("presigned").presigned(hour.clone()).await?;
    println!("presigned put {}", curl(&["-X", "PUT", "-d", "by a URL", "-w", "%{http_code}"], &put)?);
    let get = s3.get_object().bucket(bucket).key("presigned").presigned(hour).await?;
    println!("presigned get {}", curl(&[], &get)?);

    s3.delete_object().bucket(bucket).key("k/1").send().await?;
    match s3.get_object().bucket(bucket).key("k/1").send().await {
        Err(SdkError::ServiceError(error)) if matches!(error.err(), GetObjectError::NoSuchKey(_)) => {
            println!("error by its type NoSuchKey");
        }
        other => return Err(format!("a missing key: {other:?}").into()),
    }
    Ok(())
}

/// Uses a presigned URL as whoever was handed it would.
fn curl(arguments: &[&str], request: &aws_sdk_s3::presigning::PresignedRequest) -> Result<String, Box<dyn Error>> {
    let mut command = Command::new("curl");
    command.args(["-sS"]).args(arguments).arg("-H").arg("content-type:");
    for (name, value) in request.headers() {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    Ok(String::from_utf8(command.arg(request.uri()).output()?.stdout)?)
}

async fn items(dynamodb: &aws_sdk_dynamodb::Client, table: &str) -> Result<(), Box<dyn Error>> {
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build()?;
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build()?;
    let create = dynamodb.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    create.key_schema(key).attribute_definitions(id).send().await?;
    dynamodb.wait_until_table_exists().table_name(table).wait(Duration::from_secs(60)).await?;
    for id in ["1", "2", "3"] {
        dynamodb.put_item().table_name(table).item("id", AttributeValue::S(id.into())).send().await?;
    }
    let mut scanned = 0;
    let mut pages = dynamodb.scan().table_name(table).limit(1).into_paginator().send();
    while let Some(page) = pages.next().await {
        scanned += page?.count();
    }
    println!("scanned {scanned}");
    Ok(())
}

/// Reads masked answers: the SDK holds S3's checksums against what it got. What there is was made by the operator; `own`
/// stands for a value that may go into a message.
async fn masked(config: &aws_config::SdkConfig, own: &str) -> Result<(), Box<dyn Error>> {
    let caller = aws_sdk_sts::Client::new(config).get_caller_identity().send().await?;
    let items = aws_sdk_dynamodb::Client::new(config).scan().table_name("masked").send().await?;
    let item = items.items().first().ok_or("no item")?;
    let member = |name: &str| item.get(name).and_then(|it| it.as_s().ok()).cloned().unwrap_or_default();
    let object = aws_sdk_s3::Client::new(config).get_object().bucket("masked").key("k");
    let object = object.checksum_mode(ChecksumMode::Enabled).send().await?.body.collect().await?.into_bytes();
    let queues = aws_sdk_sqs::Client::new(config);
    let queue = queues.get_queue_url().queue_name("masked").send().await?.queue_url.ok_or("no queue")?;
    let received = queues.receive_message().queue_url(&queue).message_attribute_names("All").send().await?;
    let body = received.messages().first().and_then(|it| it.body()).unwrap_or_default();
    queues.send_message().queue_url(&queue).message_body(own).send().await?;
    let entry = |id: &str, body: &str| SendMessageBatchRequestEntry::builder().id(id).message_body(body).build();
    let batch = queues.send_message_batch().queue_url(&queue);
    let sent = batch.entries(entry("0", own)?).entries(entry("1", "as it is")?).send().await?;
    // All of it is ASCII, of which Rust's text is JSON's.
    println!(
        "{{\"account\":{:?},\"pin\":{:?},\"id\":{:?},\"object\":{:?},\"body\":{body:?},\"sent\":{}}}",
        caller.account().unwrap_or_default(),
        member("pin"),
        member("id"),
        String::from_utf8_lossy(&object),
        sent.successful().len()
    );
    Ok(())
}
