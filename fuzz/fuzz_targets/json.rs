//! JSON bodies: what we can read, serde_json can, and it finds the same in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const DYNAMODB: &str = "dynamodb.eu-west-1.amazonaws.com";
const LAMBDA: &str = "lambda.eu-west-1.amazonaws.com";

fuzz_target!(|data: &[u8]| {
    for name in ["PutItem", "BatchWriteItem", "TransactWriteItems", "ExecuteStatement"] {
        let operation = format!("DynamoDB_20120810.{name}");
        let parts = chaperone_fuzz::head("POST", DYNAMODB, "/", &[("x-amz-target", &operation)]);
        check(&chaperone_fuzz::decode(&parts, data), data, "TableName");
    }
    let parts = chaperone_fuzz::head("POST", LAMBDA, "/2015-03-31/functions", &[("content-type", "application/json")]);
    check(&chaperone_fuzz::decode(&parts, data), data, "FunctionName");
});

fn check(call: &Result<chaperone_model::Call, chaperone_aws::DecodeError>, data: &[u8], member: &str) {
    let Ok(call) = call else { return };
    if data.is_empty() {
        return;
    }
    let read: Value = serde_json::from_slice(data).expect("ours alone could read it");
    if let Some(text) = read[member].as_str()
        && text.len() <= 4096
    {
        assert_eq!(call.parameters[member], text);
    }
}
