//! JSON bodies: what is read is text, and serde_json finds the same in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const DYNAMODB: &str = "dynamodb.eu-west-1.amazonaws.com";
const LAMBDA: &str = "lambda.eu-west-1.amazonaws.com";

fuzz_target!(|data: &[u8]| {
    for (name, member) in [
        ("PutItem", "TableName"),
        ("BatchWriteItem", "ReturnConsumedCapacity"),
        ("TransactWriteItems", "ClientRequestToken"),
        ("ExecuteStatement", "Statement"),
    ] {
        let operation = format!("DynamoDB_20120810.{name}");
        let parts = chaperone_fuzz::head("POST", DYNAMODB, "/", &[("x-amz-target", &operation)]);
        check(&chaperone_fuzz::decode(&parts, data), data, member);
    }
    let parts = chaperone_fuzz::head("POST", LAMBDA, "/2015-03-31/functions", &[("content-type", "application/json")]);
    check(&chaperone_fuzz::decode(&parts, data), data, "FunctionName");
});

fn check(call: &Result<chaperone_model::Call, chaperone_aws::DecodeError>, data: &[u8], member: &str) {
    let Ok(call) = call else { return };
    if data.is_empty() {
        return;
    }
    assert!(std::str::from_utf8(data).is_ok(), "it is not text");
    // serde_json doesn't look into escapes of what it passes over.
    let Ok(read) = serde_json::from_slice::<Value>(data) else { return };
    if let Some(text) = read[member].as_str()
        && text.len() <= 4096
    {
        assert_eq!(call.parameters[member], text);
    }
}
