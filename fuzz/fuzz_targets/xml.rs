//! XML bodies of S3, CloudFront and Route 53: no document types, no entities of their own.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for (method, host, target) in [
        ("POST", "b.s3.eu-west-1.amazonaws.com", "/?delete"),
        ("PUT", "b.s3.eu-west-1.amazonaws.com", "/?tagging"),
        ("PUT", "b.s3.eu-west-1.amazonaws.com", "/?notification"),
        ("POST", "cloudfront.amazonaws.com", "/2020-05-31/distribution"),
        ("POST", "route53.amazonaws.com", "/2013-04-01/hostedzone/Z1/rrset"),
    ] {
        let parts = chaperone_fuzz::head(method, host, target, &[("content-type", "application/xml")]);
        if chaperone_fuzz::decode(&parts, data).is_ok() {
            assert!(!data.windows(9).any(|bytes| bytes == b"<!DOCTYPE"), "a document type was read");
        }
    }
});
