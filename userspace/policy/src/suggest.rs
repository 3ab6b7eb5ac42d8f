//! What was meant by a name that nothing has.

use strsim::osa_distance;

/// Longer names than this are not compared: the cost is the product of two lengths.
const LONGEST: usize = 128;

/// The known name that is written most like this one, if it is so near that it was probably meant. Case doesn't count.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST {
        return None;
    }
    let own = written.to_lowercase();
    let most = match own.chars().count() {
        0..=2 => return None,
        3..=5 => 1,
        6..=9 => 2,
        _ => 3,
    };
    let service = |name: &str| name.split_once(':').map(|(prefix, _)| prefix.to_lowercase());
    let candidates = known.into_iter().filter(|name| name.len().abs_diff(written.len()) <= most && *name != written);
    let near = candidates.filter_map(|name| {
        let distance = osa_distance(&own, &name.to_lowercase());
        // Of those that are as near, the one in the service that was named, and else the first by its name.
        (distance <= most).then(|| (distance, service(name) != service(written), name))
    });
    near.min().map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_meant_and_what_is_far_is_not() {
        let known = ["s3:DeleteBucket", "s3:DeleteObject", "ec2:DescribeInstances", "sqs:ListQueues", "context", "id"];
        let near = |written| nearest(written, known);
        assert_eq!(near("s3:DeleteBuket"), Some("s3:DeleteBucket"));
        assert_eq!(near("s3:delete_object"), Some("s3:DeleteObject"));
        assert_eq!(near("S3:DELETEBUCKET"), Some("s3:DeleteBucket"));
        assert_eq!(near("ec2:DescribeInstance"), Some("ec2:DescribeInstances"));
        assert_eq!(near("contxet"), Some("context"));
        for far in ["s3:GetObject", "", "i", "ix", "lambda:Invoke", "s3:DeleteBucket"] {
            assert_eq!(near(far), None, "{far}");
        }
        assert_eq!(nearest("a:List", ["b:List", "a:Last"]), Some("a:Last"));
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
