//! What is done for every request and every connection takes no memory that has to be got first.

use allocation_counter::measure;
use chaperone_aws::Catalog;

#[test]
fn a_name_is_looked_up_without_allocation() {
    let catalog = Catalog::global();
    for name in [
        "dynamodb.eu-west-1.amazonaws.com",
        "sts.amazonaws.com",
        "sts.us-gov-west-1.amazonaws.com",
        "ec2.cn-north-1.amazonaws.com.cn",
        "lambda.eu-west-1.api.aws",
        "s3.eu-west-1.amazonaws.com",
        "s3.dualstack.us-east-1.amazonaws.com",
        "123456789012.s3-control.eu-west-1.amazonaws.com",
        "rds.eu-west-1.amazonaws.com",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "git-codecommit.eu-west-1.amazonaws.com",
        "vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com",
        "example.com",
        "nothing-that-is-known.eu-west-1.amazonaws.com",
    ] {
        let mut found = None;
        let all = measure(|| found = Some(catalog.host(name)));
        assert_eq!(all.count_total, 0, "{name}: {found:?}");
    }
    // Where a bucket or an API is in the name, it is kept.
    for name in ["my-bucket.s3.eu-west-1.amazonaws.com", "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"] {
        let all = measure(|| drop(catalog.host(name)));
        assert!(all.count_total <= 2, "{name}: {all:?}");
    }
}
