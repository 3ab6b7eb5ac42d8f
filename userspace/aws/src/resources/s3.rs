//! S3's buckets, objects and access points.

use std::borrow::Cow;

use chaperone_model::AccessLevel;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::{Place, checked};
use crate::{
    actions::Requirements,
    decode::value::MAX_STRING,
    decode_error::DecodeError,
    head::header,
    host::{HostKind, HostMatch, S3At},
};

/// S3's buckets, objects and access points.
pub(crate) fn s3(
    needs: &mut Requirements,
    operation: &str,
    members: &Map<String, Value>,
    headers: &HeaderMap,
    host: &HostMatch,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    if matches!(operation, "ListBuckets" | "ListDirectoryBuckets") {
        return Ok(());
    }
    let Some(bucket) = members.get("Bucket").and_then(Value::as_str) else {
        // An answer of Object Lambda's, whose access point its route stands for.
        return needs.unknown("*".into(), Cow::Borrowed("the request names no bucket"), false);
    };
    if bucket.is_empty() {
        return Err(DecodeError::Path("an empty bucket name"));
    }
    let base = bucket_arn(bucket, &host.kind, place);
    other_names(needs, bucket, &base, place)?;
    let object = |key: &str| -> Result<String, DecodeError> {
        if key.len() >= MAX_STRING {
            return Err(DecodeError::TooLarge("object's key"));
        }
        let is_access_point = base.splitn(6, ':').nth(5).is_some_and(|tail| tail.starts_with("accesspoint/"));
        Ok(if is_access_point { format!("{base}/object/{key}") } else { format!("{base}/{key}") })
    };
    match members.get("Key") {
        Some(Value::String(key)) => needs.resource(object(key)?)?,
        _ if operation == "DeleteObjects" => {
            let keys = members.get("Delete").and_then(|delete| delete.get("Objects")).and_then(Value::as_array);
            let mut any = false;
            let mut versions = Vec::new();
            for entry in keys.into_iter().flatten() {
                let key = entry.get("Key").and_then(Value::as_str).ok_or(DecodeError::Body("a key that is missing"))?;
                any = true;
                if entry.get("VersionId").and_then(Value::as_str).is_some_and(|id| !id.is_empty()) {
                    versions.push(object(key)?);
                } else {
                    needs.resource(object(key)?)?;
                }
            }
            if !versions.is_empty() {
                let others = needs.open_actions();
                let objects = needs.has_resources();
                if objects {
                    needs.close();
                    for action in others {
                        needs.action(action.name, action.level);
                    }
                }
                needs.replace_action("s3:DeleteObject", "s3:DeleteObjectVersion", AccessLevel::Write);
                for version in versions {
                    needs.resource(version)?;
                }
            }
            if members.get("Delete").is_none() {
                return Err(DecodeError::Body("without keys to delete"));
            }
            if !any {
                // S3 answers that it is malformed, whoever asks.
                needs.unknown(format!("{base}/*"), Cow::Borrowed("no key to delete is named"), false)?;
            }
        }
        _ => needs.resource(base.clone())?,
    }
    if matches!(operation, "CopyObject" | "UploadPartCopy") {
        let source = header(headers, "x-amz-copy-source").unwrap_or_default();
        needs.close();
        let action = if source.contains("versionId=") { "s3:GetObjectVersion" } else { "s3:GetObject" };
        needs.action(action, AccessLevel::Read);
        let source = copy_source(source, place)?;
        let bucket = source.splitn(6, ':').nth(5).and_then(|name| name.split('/').next()).unwrap_or_default();
        other_names(needs, bucket, &source, place)?;
        needs.resource(checked(&source)?)?;
    }
    Ok(())
}

/// `[/]BUCKET/KEY[?versionId=ID]`, percent-encoded, or the ARN of an object behind an access point.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
fn copy_source(source: &str, place: &Place<'_>) -> Result<String, DecodeError> {
    const UNCLEAR: DecodeError = DecodeError::Path("a copy source that is not BUCKET/KEY");
    let (path, query) = source.split_once('?').map_or((source, None), |(path, query)| (path, Some(query)));
    let version = |query: &str| query.strip_prefix("versionId=").is_some_and(|id| !id.contains(['?', '&', '=', '#']));
    if query.is_some_and(|query| !version(query)) || path.contains('#') {
        return Err(DecodeError::Path("a copy source with more than a version in its query"));
    }
    let decoded = |text: &str| -> Result<String, DecodeError> {
        let text = percent_encoding::percent_decode_str(text).decode_utf8();
        Ok(text.map_err(|_| DecodeError::Path("a copy source that is not UTF-8"))?.into_owned())
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let whole = decoded(path)?;
    if whole.starts_with("arn:") {
        let is_object = whole.splitn(6, ':').nth(5).is_some_and(|name| name.contains("/object/"));
        return if is_object { Ok(whole) } else { Err(UNCLEAR) };
    }
    // An encoded slash between the two could be read as part of either.
    let (bucket, key) = path.split_once('/').ok_or(UNCLEAR)?;
    let (bucket, key) = (decoded(bucket)?, decoded(key)?);
    if bucket.is_empty() || key.is_empty() || bucket.contains(['/', ':']) {
        return Err(UNCLEAR);
    }
    Ok(format!("arn:{}:s3:::{bucket}/{key}", place.partition))
}

/// What an access point stands before, and the access point that a bucket's name is an alias of: S3 alone knows.
fn other_names(needs: &mut Requirements, bucket: &str, arn: &str, place: &Place<'_>) -> Result<(), DecodeError> {
    let is_alias = bucket.ends_with("-s3alias") || bucket.ends_with("--ol-s3");
    let is_point = arn.splitn(6, ':').nth(5).is_some_and(|name| name.contains("accesspoint/"));
    if is_alias {
        let points = format!("arn:{}:s3:*:*:accesspoint/*", place.partition);
        needs.unknown(points, Cow::Borrowed("the access point that the bucket's name stands for"), true)?;
    }
    if is_alias || is_point {
        let buckets = format!("arn:{}:s3:::*", place.partition);
        needs.unknown(buckets, Cow::Borrowed("the bucket behind the access point"), true)?;
    }
    Ok(())
}

fn bucket_arn(bucket: &str, kind: &HostKind, place: &Place<'_>) -> String {
    let region = place.region.as_deref().unwrap_or_default();
    let partition = place.partition;
    match kind {
        HostKind::S3Bucket { at: S3At::AccessPoint, .. } => {
            let (name, account) = bucket.rsplit_once('-').unwrap_or((bucket, "*"));
            format!("arn:{partition}:s3:{region}:{account}:accesspoint/{name}")
        }
        HostKind::S3Bucket { at: S3At::ObjectLambda, .. } => {
            let (name, account) = bucket.rsplit_once('-').unwrap_or((bucket, "*"));
            format!("arn:{partition}:s3-object-lambda:{region}:{account}:accesspoint/{name}")
        }
        // An access point of a directory bucket.
        HostKind::S3ExpressControl | HostKind::S3Bucket { at: S3At::Express, .. } if bucket.ends_with("--xa-s3") => {
            place.arn("s3express", &format!("accesspoint/{bucket}"))
        }
        HostKind::S3ExpressControl | HostKind::S3Bucket { at: S3At::Express, .. } => {
            place.arn("s3express", &format!("bucket/{bucket}"))
        }
        HostKind::S3Bucket { at: S3At::MultiRegion, .. } => {
            format!("arn:{partition}:s3::{}:accesspoint/{bucket}", place.account.unwrap_or("*"))
        }
        HostKind::S3Bucket { at: S3At::Outposts, .. } => {
            let (access_point, outpost) = bucket.split_once('.').unwrap_or((bucket, "*"));
            let (name, account) = access_point.rsplit_once('-').unwrap_or((access_point, "*"));
            format!("arn:{partition}:s3-outposts:{region}:{account}:outpost/{outpost}/accesspoint/{name}")
        }
        _ if bucket.starts_with("arn:") => bucket.to_owned(),
        _ => format!("arn:{partition}:s3:::{bucket}"),
    }
}
