//! Host names: whether a name is AWS's, and which services, region and S3 form it stands for.
//!
//! A name below one of the API suffixes is AWS's even if nothing else is known of it: it is then opened and, being
//! undecodable, refused. Web sites of AWS (`console.aws.amazon.com`, `docs.aws.amazon.com`, `*.cloudfront.net`,
//! `*.awsstatic.com`) take no API calls with the agent's keys and are not AWS's in this sense.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use crate::{catalog::Catalog, endpoint::Endpoint, kubernetes_actions::KUBERNETES};

/// Suffixes that the partitions' data don't list, with their partitions.
const MORE_SUFFIXES: [(&str, &str); 14] = [
    ("on.aws", "aws"),
    ("on.amazonwebservices.com.cn", "aws-cn"),
    ("signin.aws.amazon.com", "aws"),
    ("signin.amazonaws-us-gov.com", "aws-us-gov"),
    ("signin.amazonaws.cn", "aws-cn"),
    ("signin.aws", "aws"),
    ("signin.amazonaws-eusc.eu", "aws-eusc"),
    ("signin.c2shome.ic.gov", "aws-iso"),
    ("signin.csphome.adc-e.uk", "aws-iso-e"),
    ("signin.csphome.hci.ic.gov", "aws-iso-f"),
    ("signin.sc2shome.sgov.gov", "aws-iso-b"),
    ("amazonaws-us-gov.com", "aws-us-gov"),
    ("amazonaws.cn", "aws-cn"),
    ("amazonwebservices.com.cn", "aws-cn"),
];

/// Positions of services in the catalog: few names stand for more than four.
pub(crate) type Services = SmallVec<[u16; 4]>;
/// Labels of a name: few have more than twelve.
type Labels<'a> = SmallVec<[&'a str; 12]>;

/// A host name that is AWS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMatch {
    /// Partition, such as `aws`.
    pub partition: &'static str,
    /// Region in the name.
    pub region: Option<Cow<'static, str>>,
    /// What kind of name it is.
    pub kind: HostKind,
    /// Positions of the services in the catalog.
    pub(crate) services: Services,
}

/// What kind of name it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// A customer's own endpoint, which no model describes.
    Endpoint(Endpoint),
    /// An S3 bucket or access point in the host's name.
    S3Bucket {
        /// The bucket, or what S3 takes in its place: an access point's name with its account (`name-123456789012`).
        bucket: String,
        /// Where the bucket or the access point is.
        at: S3At,
    },
    /// S3 Express's regional endpoint, which makes and lists directory buckets.
    S3ExpressControl,
    /// S3 with the bucket in the path.
    S3Path,
    /// A service of the catalog by its name.
    Service,
    /// Below one of AWS's suffixes, and nothing is known of it.
    Unknown,
}

/// Which of S3's data planes a bucket's name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3At {
    /// An access point, signed as `s3`.
    AccessPoint,
    /// A general purpose bucket.
    Bucket,
    /// A directory bucket, signed as `s3express`.
    Express,
    /// A multi-region access point, signed by SigV4A.
    MultiRegion,
    /// An Object Lambda access point, signed as `s3-object-lambda`.
    ObjectLambda,
    /// An access point on an outpost, signed as `s3-outposts`.
    Outposts,
}

impl HostMatch {
    /// The endpoint by whose name a server is verified where its own can't be: S3's certificates are for `*.` one label, and
    /// a bucket may have dots in its name. SDKs and s3cmd do the same.
    pub fn dotted_buckets_endpoint<'a>(&self, host: &'a str) -> Option<&'a str> {
        match &self.kind {
            HostKind::S3Bucket { bucket, at: S3At::Bucket } if bucket.contains('.') => {
                host.strip_prefix(bucket.as_str())?.strip_prefix('.')
            }
            _ => None,
        }
    }

    /// The services that the name can stand for, by botocore's names; empty when unknown.
    pub fn services(&self) -> impl Iterator<Item = &'static str> {
        let names = &Catalog::global().names;
        self.services.iter().map(|&i| names[usize::from(i)].name)
    }

    /// What errors of its own are like those of: the service, or for a cluster's API Kubernetes.
    pub fn service_of_errors(&self) -> &'static str {
        match self.kind {
            HostKind::Endpoint(Endpoint::EksCluster) => KUBERNETES,
            _ => self.services().next().unwrap_or_default(),
        }
    }

    /// Whether the name is one of S3's data plane.
    pub fn is_s3(&self) -> bool {
        matches!(self.kind, HostKind::S3ExpressControl | HostKind::S3Path | HostKind::S3Bucket { .. })
    }
}

/// What is left of a name without its partition's suffix.
struct Stripped<'a> {
    partition: &'static str,
    rest: &'a str,
}

impl Catalog {
    /// Whether a name (without port, in any case) is AWS's, and what it stands for. `None`: it isn't AWS's.
    pub fn host(&'static self, name: &str) -> Option<HostMatch> {
        if name.len() > 255 {
            return None;
        }
        let lower;
        let name = name.strip_suffix('.').unwrap_or(name);
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let stripped = self.strip(name)?;
        let mut labels: Labels<'_> = stripped.rest.split('.').filter(|label| !label.is_empty()).collect();
        let mut endpoint = None;
        if labels.last() == Some(&"vpce") {
            // `vpce-ID[-ZONE].SERVICE.REGION.vpce.SUFFIX`, for S3 with `bucket`, `accesspoint` or `control` before it.
            labels.pop();
            if let Some(at) = labels.iter().position(|label| label.starts_with("vpce-")) {
                labels.remove(at);
                endpoint = Some(at);
            }
        }
        // `s3-us-west-2` is from before the regions had a label of their own.
        let old_form = |label: &str| {
            self.region(label.strip_prefix("s3-fips-").or_else(|| label.strip_prefix("s3-")).unwrap_or(label))
        };
        let region = labels.iter().rev().find_map(|label| self.region(label)).or_else(|| old_form(labels.last()?));
        let partition = region.as_ref().map_or(stripped.partition, |(_, partition)| partition);
        let region = region.map(|(region, _)| region);

        let (kind, services) = self
            .s3(&labels, endpoint)
            .or_else(|| self.endpoint(&labels, endpoint.is_some()))
            .or_else(|| self.by_pattern(name, &labels))
            .or_else(|| self.customers_own(&labels))
            .unwrap_or((HostKind::Unknown, Services::new()));
        Some(HostMatch { partition, region, kind, services })
    }

    fn strip<'a>(&self, name: &'a str) -> Option<Stripped<'a>> {
        let mut best: Option<(usize, &'static str)> = None;
        let listed = self.partitions.iter().flat_map(|p| p.suffixes.iter().map(move |s| (*s, p.id)));
        for (suffix, partition) in listed.chain(MORE_SUFFIXES) {
            let fits = name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if fits && best.is_none_or(|(length, _)| suffix.len() > length) {
                best = Some((suffix.len(), partition));
            }
        }
        let (length, partition) = best?;
        Some(Stripped { partition, rest: name[..name.len() - length].trim_end_matches('.') })
    }

    /// A label that is a region: one that is listed, or one of the form that regions of its partition have.
    pub(crate) fn region(&self, label: &str) -> Option<(Cow<'static, str>, &'static str)> {
        if let Some((region, partition)) = self.regions.get_key_value(label) {
            return Some((Cow::Borrowed(region), partition));
        }
        let mut parts = label.split('-');
        let (first, second) = (parts.next()?, parts.next()?);
        let rest: SmallVec<[&str; 8]> = parts.collect();
        let number = rest.last()?;
        if number.is_empty() || number.len() > 2 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let partition = match (first, second, rest.len()) {
            ("cn", _, 1 | 2) => "aws-cn",
            ("us", "gov", 2) => "aws-us-gov",
            ("us", "iso", 2) => "aws-iso",
            ("us", "isob", 2) => "aws-iso-b",
            ("eu", "isoe", 2) => "aws-iso-e",
            ("us", "isof", 2) => "aws-iso-f",
            ("eusc", _, 2) => "aws-eusc",
            ("us" | "eu" | "ap" | "sa" | "ca" | "me" | "af" | "il" | "mx", _, 1) => "aws",
            _ => return None,
        };
        Some((Cow::Owned(label.to_owned()), partition))
    }

    /// S3's data plane and S3 Control, read from the right, so that a bucket's name can't imitate an endpoint.
    fn s3(&self, labels: &[&str], endpoint: Option<usize>) -> Option<(HostKind, Services)> {
        let mut end = labels.len();
        let last = labels.last()?;
        if self.region(last).is_some() {
            end -= 1;
        }
        if end > 0 && labels[end - 1] == "dualstack" {
            end -= 1;
        }
        let marker = *labels.get(end.checked_sub(1)?)?;
        let before = &labels[..end - 1];
        let s3: Services = smallvec![self.position("s3")?];
        let bucket = |at| {
            let kind =
                if before.is_empty() { HostKind::S3Path } else { HostKind::S3Bucket { bucket: before.join("."), at } };
            (kind, s3.clone())
        };
        if endpoint.is_some() && marker == "s3" {
            return match before {
                ["bucket" | "accesspoint"] | [] => Some((HostKind::S3Path, s3)),
                ["control"] => Some((HostKind::Service, smallvec![self.position("s3control")?])),
                [names @ .., "bucket"] => Some((HostKind::S3Bucket { bucket: names.join("."), at: S3At::Bucket }, s3)),
                [names @ .., "accesspoint"] => {
                    Some((HostKind::S3Bucket { bucket: names.join("."), at: S3At::AccessPoint }, s3))
                }
                [names @ .., "control"] if names.len() == 1 => {
                    Some((HostKind::Service, smallvec![self.position("s3control")?]))
                }
                _ => None,
            };
        }
        match marker {
            "s3" | "s3-fips" | "s3-accelerate" | "s3-external-1" => Some(bucket(S3At::Bucket)),
            "s3-accesspoint" | "s3-accesspoint-fips" if !before.is_empty() => Some(bucket(S3At::AccessPoint)),
            "s3-object-lambda" | "s3-object-lambda-fips" if !before.is_empty() => Some(bucket(S3At::ObjectLambda)),
            "s3-outposts" | "s3-outposts-fips" if before.len() >= 2 => Some(bucket(S3At::Outposts)),
            "s3-global" if before.last() == Some(&"accesspoint") => {
                // `ALIAS.mrap`, as its ARN has it.
                let alias = before[..before.len() - 1].join(".");
                (!alias.is_empty()).then_some((HostKind::S3Bucket { bucket: alias, at: S3At::MultiRegion }, s3))
            }
            "s3-control" | "s3-control-fips" if before.len() <= 1 => {
                Some((HostKind::Service, smallvec![self.position("s3control")?]))
            }
            "s3express-control" | "s3express-control-fips" if before.is_empty() => {
                // Access points for directory buckets are managed through S3 Control's API at the same host.
                Some((HostKind::S3ExpressControl, smallvec![s3[0], self.position("s3control")?]))
            }
            _ if marker.starts_with("s3express-") && !before.is_empty() => Some(bucket(S3At::Express)),
            // `s3-us-west-2` and `s3-fips-us-gov-west-1`, from before the regions had a label of their own.
            _ => {
                let region = marker.strip_prefix("s3-fips-").or_else(|| marker.strip_prefix("s3-"))?;
                self.region(region)?;
                Some(bucket(S3At::Bucket))
            }
        }
    }

    /// The labels before the region and those after it; all are before, if there is none.
    fn around_region<'a, 'b>(&self, labels: &'a [&'b str]) -> (&'a [&'b str], &'a [&'b str]) {
        match labels.iter().rposition(|label| self.region(label).is_some()) {
            Some(at) => (&labels[..at], &labels[at + 1..]),
            None => (labels, &[]),
        }
    }

    fn endpoint(&self, labels: &[&str], vpc_endpoint: bool) -> Option<(HostKind, Services)> {
        let (before, after) = self.around_region(labels);
        Endpoint::of(before, after, vpc_endpoint).map(|endpoint| (HostKind::Endpoint(endpoint), Services::new()))
    }

    /// Endpoints that a model describes, at names that a customer's own label is part of and no rule set lists.
    fn customers_own(&self, labels: &[&str]) -> Option<(HostKind, Services)> {
        let services: &[&str] = match self.around_region(labels) {
            ([_, "iot" | "iot-fips"], []) => &["iot-data"],
            // By account: `123456789012.control-kinesis`.
            ([_, "control-kinesis" | "control-kinesis-fips" | "data-kinesis" | "data-kinesis-fips"], []) => {
                &["kinesis"]
            }
            ([_, "cloudfront-kvs", "global"], []) => &["cloudfront-keyvaluestore"],
            // Global endpoints: `abcde.veo.endpoint.events`.
            ([.., "endpoint", "events"], []) => &["events"],
            ([.., "endpoints", "email"], []) => &["sesv2"],
            ([_, "jobs", "iot"], []) => &["iot-jobs-data"],
            ([_, "data", "mediastore" | "mediastore-fips"], []) => &["mediastore-data"],
            ([_, "kinesisvideo" | "kinesisvideo-fips"], []) => &[
                "kinesis-video-archived-media",
                "kinesis-video-media",
                "kinesis-video-signaling",
                "kinesis-video-webrtc-storage",
            ],
            // By endpoint discovery: `ingest-cell1`, `query-cell2`.
            ([cell, "timestream"], []) if cell.starts_with("ingest-") => &["timestream-write"],
            ([cell, "timestream"], []) if cell.starts_with("query-") => &["timestream-query"],
            ([name], ["cloudsearch"]) if name.starts_with("search-") || name.starts_with("doc-") => {
                &["cloudsearchdomain"]
            }
            ([.., _], ["neptune"]) => &["neptunedata"],
            _ => return None,
        };
        let services: Services = services.iter().filter_map(|name| self.position(name)).collect();
        Some((HostKind::Service, services))
    }

    fn by_pattern(&self, name: &str, labels: &[&str]) -> Option<(HostKind, Services)> {
        let mut canonical: Labels<'_> =
            labels.iter().map(|label| if self.region(label).is_some() { "{r}" } else { label }).collect();
        let look = |canonical: &[&str]| {
            // Names have 255 characters at most.
            let mut joined: SmallVec<[u8; 256]> = SmallVec::new();
            for label in canonical {
                if !joined.is_empty() {
                    joined.push(b'.');
                }
                joined.extend_from_slice(label.as_bytes());
            }
            let found = self.hosts.get(std::str::from_utf8(&joined).ok()?)?;
            Some(Services::from_slice(found))
        };
        if let Some(found) = look(&canonical) {
            return Some((HostKind::Service, found));
        }
        // Names with a label of the customer's before the service's own: an account, an endpoint's id.
        for at in 0..canonical.len().saturating_sub(1).min(2) {
            if canonical[at] == "{r}" {
                break;
            }
            canonical[at] = "*";
            if let Some(found) = look(&canonical) {
                return Some((HostKind::Service, found));
            }
        }
        let full: Labels<'_> =
            name.split('.').map(|label| if self.region(label).is_some() { "{r}" } else { label }).collect();
        look(&full).map(|found| (HostKind::Service, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> String {
        match Catalog::global().host(name) {
            None => "not AWS".into(),
            Some(found) => {
                let services: Vec<_> = found.services().collect();
                let region = found.region.as_deref().unwrap_or("-");
                match &found.kind {
                    HostKind::S3Bucket { bucket, at } => format!("{} {region} {at:?} {bucket}", found.partition),
                    HostKind::Service => format!("{} {region} {}", found.partition, services.join("|")),
                    HostKind::Endpoint(endpoint) => format!("{} {region} {endpoint:?}", found.partition),
                    kind => format!("{} {region} {kind:?}", found.partition),
                }
            }
        }
    }

    #[test]
    fn services_by_name() {
        for (name, expected) in [
            ("sts.amazonaws.com", "aws - sts"),
            ("STS.eu-west-1.amazonaws.com.", "aws eu-west-1 sts"),
            ("dynamodb.us-east-1.amazonaws.com", "aws us-east-1 dynamodb"),
            ("dynamodb.cn-north-1.amazonaws.com.cn", "aws-cn cn-north-1 dynamodb"),
            ("dynamodb.us-gov-west-1.amazonaws.com", "aws-us-gov us-gov-west-1 dynamodb"),
            ("dynamodb.us-iso-east-1.c2s.ic.gov", "aws-iso us-iso-east-1 dynamodb"),
            ("123456789012.ddb.us-east-1.amazonaws.com", "aws us-east-1 dynamodb"),
            ("dynamodb-fips.us-east-1.amazonaws.com", "aws us-east-1 dynamodb"),
            ("ecs.us-east-1.api.aws", "aws us-east-1 ecs"),
            ("iam.amazonaws.com", "aws - iam"),
            ("api.ecr.us-east-1.amazonaws.com", "aws us-east-1 ecr"),
            ("secretsmanager.eu-central-1.amazonaws.com", "aws eu-central-1 secretsmanager"),
            ("vpce-0a1b-2c3d.ec2.us-east-1.vpce.amazonaws.com", "aws us-east-1 ec2"),
            ("vpce-0a1b-2c3d-us-east-1a.sqs.us-east-1.vpce.amazonaws.com", "aws us-east-1 sqs"),
            ("queue.amazonaws.com", "aws - sqs"),
            ("monitoring.us-east-1.amazonaws.com", "aws us-east-1 cloudwatch"),
            ("123456789012.s3-control.us-east-1.amazonaws.com", "aws us-east-1 s3control"),
            ("sqs.us-east-99.amazonaws.com", "aws us-east-99 sqs"),
            ("eu-west-1.signin.aws.amazon.com", "aws eu-west-1 signin"),
            ("frobnicate.us-east-1.amazonaws.com", "aws us-east-1 Unknown"),
            ("amazonaws.com", "aws - Unknown"),
        ] {
            assert_eq!(host(name), expected, "{name}");
        }
    }

    #[test]
    fn s3_in_all_its_forms() {
        for (name, expected) in [
            ("s3.amazonaws.com", "aws - S3Path"),
            ("s3.us-west-2.amazonaws.com", "aws us-west-2 S3Path"),
            ("s3.dualstack.us-west-2.amazonaws.com", "aws us-west-2 S3Path"),
            ("bucket.s3.amazonaws.com", "aws - Bucket bucket"),
            ("my.dotted.bucket.s3.us-west-2.amazonaws.com", "aws us-west-2 Bucket my.dotted.bucket"),
            ("s3.us-east-1.s3.us-west-2.amazonaws.com", "aws us-west-2 Bucket s3.us-east-1"),
            ("bucket.s3-accelerate.amazonaws.com", "aws - Bucket bucket"),
            ("bucket.s3-accelerate.dualstack.amazonaws.com", "aws - Bucket bucket"),
            ("bucket.s3-fips.dualstack.us-east-1.amazonaws.com", "aws us-east-1 Bucket bucket"),
            ("bucket.s3.cn-north-1.amazonaws.com.cn", "aws-cn cn-north-1 Bucket bucket"),
            ("ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com", "aws us-east-1 AccessPoint ap-123456789012"),
            ("mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com", "aws - MultiRegion mfzwi23gnjvgw.mrap"),
            ("s3.dualstack.us-gov-west-1.amazonaws.com", "aws-us-gov us-gov-west-1 S3Path"),
            ("bucket.s3-fips.us-gov-west-1.amazonaws.com", "aws-us-gov us-gov-west-1 Bucket bucket"),
            ("bucket.s3.us-iso-east-1.c2s.ic.gov", "aws-iso us-iso-east-1 Bucket bucket"),
            ("bucket.s3.us-isob-east-1.sc2s.sgov.gov", "aws-iso-b us-isob-east-1 Bucket bucket"),
            ("bucket.s3.dualstack.cn-northwest-1.amazonaws.com.cn", "aws-cn cn-northwest-1 Bucket bucket"),
            ("bucket.s3-us-west-2.amazonaws.com", "aws us-west-2 Bucket bucket"),
            ("bucket.s3-fips-us-gov-west-1.amazonaws.com", "aws-us-gov us-gov-west-1 Bucket bucket"),
            ("bucket.s3-external-1.amazonaws.com", "aws - Bucket bucket"),
            (
                "a-123456789012.s3-accesspoint-fips.dualstack.us-east-1.amazonaws.com",
                "aws us-east-1 AccessPoint a-123456789012",
            ),
            (
                "b--use1-az4--x-s3.s3express-fips-use1-az4.us-east-1.amazonaws.com",
                "aws us-east-1 Express b--use1-az4--x-s3",
            ),
            (
                "b--use1-az4--x-s3.s3express-use1-az4.dualstack.us-east-1.amazonaws.com",
                "aws us-east-1 Express b--use1-az4--x-s3",
            ),
            ("s3express-control.dualstack.us-east-1.amazonaws.com", "aws us-east-1 S3ExpressControl"),
            (
                "a-123456789012.accesspoint.vpce-1a-2b-us-east-1a.s3.us-east-1.vpce.amazonaws.com",
                "aws us-east-1 AccessPoint a-123456789012",
            ),
            ("123456789012.control.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com", "aws us-east-1 s3control"),
            ("l-123456789012.s3-object-lambda.us-east-1.amazonaws.com", "aws us-east-1 ObjectLambda l-123456789012"),
            ("a-1.op-2.s3-outposts.us-east-1.amazonaws.com", "aws us-east-1 Outposts a-1.op-2"),
            ("b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com", "aws us-east-1 Express b--use1-az4--x-s3"),
            ("s3express-control.us-east-1.amazonaws.com", "aws us-east-1 S3ExpressControl"),
            ("bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com", "aws us-east-1 S3Path"),
            ("mine.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com", "aws us-east-1 Bucket mine"),
        ] {
            assert_eq!(host(name), expected, "{name}");
        }
    }

    #[test]
    fn names_outside_the_models() {
        for (name, expected) in [
            ("abc123.execute-api.eu-west-1.amazonaws.com", "aws eu-west-1 ExecuteApi { api: Some(\"abc123\") }"),
            (
                "abc123.execute-api.cn-north-1.amazonaws.com.cn",
                "aws-cn cn-north-1 ExecuteApi { api: Some(\"abc123\") }",
            ),
            ("execute-api.us-east-1.amazonaws.com", "aws us-east-1 apigatewaymanagementapi"),
            ("abc.lambda-url.us-east-1.on.aws", "aws us-east-1 LambdaUrl"),
            (
                "search-logs-prod-abc123.us-east-1.es.amazonaws.com",
                "aws us-east-1 OpenSearch { domain: \"logs-prod\" }",
            ),
            ("search-logs-prod-abc123.aos.us-east-1.on.aws", "aws us-east-1 OpenSearch { domain: \"logs-prod\" }"),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com",
                "aws us-east-1 Registry { account: Some(\"123456789012\") }",
            ),
            ("a1b2c3-ats.iot.us-east-1.amazonaws.com", "aws us-east-1 iot-data"),
            ("123456789012.data-kinesis.eu-west-1.amazonaws.com", "aws eu-west-1 kinesis"),
            ("123456789012.cloudfront-kvs.global.api.aws", "aws - cloudfront-keyvaluestore"),
            ("abcde.veo.endpoint.events.amazonaws.com", "aws - events"),
            ("a1b2c3.jobs.iot.us-east-1.amazonaws.com", "aws us-east-1 iot-jobs-data"),
            ("data-ats.iot.us-gov-west-1.amazonaws.com", "aws-us-gov us-gov-west-1 iot-data"),
            ("abcd.data.mediastore.eu-west-1.amazonaws.com", "aws eu-west-1 mediastore-data"),
            ("ingest-cell1.timestream.us-west-2.amazonaws.com", "aws us-west-2 timestream-write"),
            ("query-cell2.timestream.us-west-2.amazonaws.com", "aws us-west-2 timestream-query"),
            ("search-imdb-x.us-east-1.cloudsearch.amazonaws.com", "aws us-east-1 cloudsearchdomain"),
        ] {
            assert_eq!(host(name), expected, "{name}");
        }
    }

    #[test]
    fn other_names_are_not_aws() {
        for name in [
            "example.com",
            "amazonaws.com.example.com",
            "notamazonaws.com",
            "console.aws.amazon.com",
            "docs.aws.amazon.com",
            "d111111abcdef8.cloudfront.net",
            "",
            "com",
        ] {
            assert_eq!(host(name), "not AWS", "{name}");
        }
    }
}
