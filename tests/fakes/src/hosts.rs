//! Which back end a host name belongs to.

/// AWS's domains in every partition.
const AWS_DOMAINS: [&str; 6] =
    ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws", "on.aws", "api.amazonwebservices.com.cn"];

/// Whether the name is one of AWS's.
pub fn is_aws(host: &str) -> bool {
    AWS_DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// An S3 name: its domain, and the bucket if it names one.
pub fn s3(host: &str) -> Option<(&str, Option<&str>)> {
    if !is_aws(host) {
        return None;
    }
    let mut start = 0;
    // Buckets may have dots and be called `s3`: the last label that fits is the service.
    let mut found = None;
    for label in host.split('.') {
        if is_s3_label(label) {
            found = Some(start);
        }
        start += label.len() + 1;
    }
    let start = found?;
    let bucket = start.checked_sub(1).map(|end| &host[..end]);
    Some((&host[start..], bucket))
}

/// Whether it is a customer's application, which is no API of AWS's.
pub fn is_application(host: &str) -> bool {
    is_aws(host) && [".elb.", ".compute.", ".s3-website", ".lambda-url."].iter().any(|part| host.contains(part))
}

/// Whether it is a container registry of ECR.
pub fn is_registry(host: &str) -> bool {
    is_aws(host) && host.contains(".dkr.ecr.")
}

fn is_s3_label(label: &str) -> bool {
    match label.strip_prefix("s3") {
        Some("" | "-accelerate") => true,
        // The old names: s3-eu-west-1.amazonaws.com.
        Some(rest) => {
            let region = rest.strip_prefix('-').unwrap_or_default();
            region.ends_with(|end: char| end.is_ascii_digit()) && region.split('-').count() >= 3
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_names_are_known_with_their_buckets() {
        for (host, expected) in [
            ("s3.eu-west-1.amazonaws.com", Some(("s3.eu-west-1.amazonaws.com", None))),
            ("a.b.s3.eu-west-1.amazonaws.com", Some(("s3.eu-west-1.amazonaws.com", Some("a.b")))),
            ("b.s3.amazonaws.com", Some(("s3.amazonaws.com", Some("b")))),
            ("b.s3-eu-west-1.amazonaws.com", Some(("s3-eu-west-1.amazonaws.com", Some("b")))),
            ("b.s3.dualstack.eu-west-1.amazonaws.com", Some(("s3.dualstack.eu-west-1.amazonaws.com", Some("b")))),
            ("s3-outposts.eu-west-1.amazonaws.com", None),
            ("123456789012.s3-control.eu-west-1.amazonaws.com", None),
            ("sts.eu-west-1.amazonaws.com", None),
            ("my-lb-1.eu-west-1.elb.amazonaws.com", None),
            ("s3.example.com", None),
            ("amazonaws.com", None),
        ] {
            assert_eq!(s3(host), expected, "{host}");
        }
    }
}
