//! The stand-in for the instance metadata service (IMDSv2) and the container credential endpoints: it gives out
//! placeholders, and nothing about the real instance.

use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header::CONTENT_TYPE};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Placeholder, request_auth::single};

/// SDKs refresh 10 to 15 minutes before the end.
const LIFETIME: Duration = Duration::hours(6);
const MAX_TTL: u32 = 21_600;
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";

/// Answers for the metadata services. Tokens are authenticated, not stored.
pub struct Metadata {
    key: hmac::Key,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata").finish_non_exhaustive()
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self::new()
    }
}

/// A request to a metadata service, and what it is answered with.
#[derive(Clone, Copy, Debug)]
pub struct MetadataRequest<'a> {
    /// The session's credentials.
    pub placeholder: &'a Placeholder,
    /// The region that the agent shall work in.
    pub region: &'a str,
    /// The name of the role that is listed, such as the agent's name.
    pub role_name: &'a str,
    /// HTTP method.
    pub method: &'a Method,
    /// Path, with or without a query.
    pub path: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Now.
    pub now: OffsetDateTime,
}

impl Metadata {
    /// A service with a key of its own: tokens end when the daemon does, and clients then fetch another.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    pub fn new() -> Self {
        let mut key = [0_u8; 32];
        rand::fill(&mut key).expect("the operating system must have randomness");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// Answers as 169.254.169.254 (and fd00:ec2::254) does.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>
    pub fn respond(&self, request: &MetadataRequest<'_>) -> Response<Bytes> {
        let path = request.path.split('?').next().unwrap_or_default();
        let path = path.strip_prefix("/latest/").or_else(|| path.strip_prefix("/2021-07-15/"));
        if path == Some("api/token") {
            return self.put_token(request);
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        match single(request.headers, TOKEN) {
            Some(token) if self.is_valid(token, request) => {}
            // Version 1 is not served, as on an instance with `HttpTokens=required`.
            _ => return plain(StatusCode::UNAUTHORIZED, ""),
        }
        let Some(path) = path else { return not_found() };
        let zone = format!("{}a", request.region);
        match path.trim_end_matches('/') {
            "meta-data" => plain(StatusCode::OK, "iam/\nplacement/"),
            "meta-data/iam" => plain(StatusCode::OK, "security-credentials/"),
            "meta-data/iam/security-credentials" => plain(StatusCode::OK, request.role_name),
            "meta-data/iam/security-credentials-extended" => not_found(),
            "meta-data/placement" => plain(StatusCode::OK, "availability-zone\nregion"),
            "meta-data/placement/region" => plain(StatusCode::OK, request.region),
            "meta-data/placement/availability-zone" => plain(StatusCode::OK, &zone),
            "meta-data/services/domain" => plain(StatusCode::OK, "amazonaws.com"),
            "meta-data/services/partition" => plain(StatusCode::OK, "aws"),
            "dynamic/instance-identity/document" => json(&serde_json::json!({
                "accountId": "000000000000",
                "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" },
                "availabilityZone": zone,
                "imageId": "ami-00000000000000000",
                "instanceId": "i-00000000000000000",
                "instanceType": "m5.large",
                "region": request.region,
                "version": "2017-09-30",
            })),
            other => match other.strip_prefix("meta-data/iam/security-credentials/") {
                Some(role) if role == request.role_name => {
                    let Some((expiration, updated)) = times(request.now) else { return not_found() };
                    let placeholder = request.placeholder;
                    json(&serde_json::json!({
                        "Code": "Success",
                        "LastUpdated": updated,
                        "Type": "AWS-HMAC",
                        "AccessKeyId": placeholder.access_key_id(),
                        "SecretAccessKey": placeholder.secret_access_key(),
                        "Token": placeholder.session_token(),
                        "Expiration": expiration,
                    }))
                }
                _ => not_found(),
            },
        }
    }

    /// Answers as ECS's container credentials do (169.254.170.2, the path of `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`):
    /// whatever the path, the session's own credentials, for what that path would name is another task's or ours. The
    /// task metadata that is at the same address is not served.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html>
    pub fn respond_ecs(&self, request: &MetadataRequest<'_>) -> Response<Bytes> {
        if request.method != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let metadata = ["/v2/metadata", "/v2/stats", "/v3", "/v4"];
        let below =
            |root: &&str| request.path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if metadata.iter().any(below) {
            return not_found();
        }
        container(request, "RoleArn", &format!("arn:aws:iam::000000000000:role/{}", request.role_name))
    }

    /// Answers as EKS's pod identity agent does (169.254.170.23, fd00:ec2::23). It wants the token of the pod's service
    /// account; which token that is makes no difference here, where the cgroup has said whose the connection is.
    /// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html>
    pub fn respond_pod_identity(&self, request: &MetadataRequest<'_>) -> Response<Bytes> {
        if request.method != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        if request.path.split('?').next() != Some("/v1/credentials") {
            return not_found();
        }
        if single(request.headers, "authorization").is_none_or(|token| token.trim().is_empty()) {
            return plain(StatusCode::BAD_REQUEST, "Service account token cannot be empty\n");
        }
        container(request, "AccountId", "000000000000")
    }

    fn put_token(&self, request: &MetadataRequest<'_>) -> Response<Bytes> {
        if request.method != Method::PUT {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        // Real IMDS refuses what came through a proxy.
        if request.headers.contains_key("x-forwarded-for") {
            return plain(StatusCode::FORBIDDEN, "");
        }
        let ttl = single(request.headers, TTL).and_then(|ttl| ttl.parse::<u32>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let ends = request.now.unix_timestamp() + i64::from(ttl);
        let mut response = plain(StatusCode::OK, &self.token(ends, request.placeholder));
        response.headers_mut().insert(TTL, ttl.into());
        response
    }

    fn token(&self, ends: i64, placeholder: &Placeholder) -> String {
        let tag = hmac::sign(&self.key, &Self::signed(ends, placeholder));
        format!("{ends:016x}{}", hex::encode(tag))
    }

    fn signed(ends: i64, placeholder: &Placeholder) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&ends.to_be_bytes());
        bytes[8..].copy_from_slice(placeholder.session().as_bytes());
        bytes
    }

    fn is_valid(&self, token: &str, request: &MetadataRequest<'_>) -> bool {
        let Some((ends, tag)) = token.split_at_checked(16) else { return false };
        let (Ok(ends), Ok(tag)) = (i64::from_str_radix(ends, 16), hex::decode(tag.get(..64).unwrap_or_default()))
        else {
            return false;
        };
        token.len() == 80
            && request.now.unix_timestamp() < ends
            && hmac::verify(&self.key, &Self::signed(ends, request.placeholder), &tag).is_ok()
    }
}

/// The session's own credentials, as SDKs' container providers read them.
fn container(request: &MetadataRequest<'_>, more: &str, value: &str) -> Response<Bytes> {
    let Some((expiration, _)) = times(request.now) else { return not_found() };
    let placeholder = request.placeholder;
    json(&serde_json::json!({
        "AccessKeyId": placeholder.access_key_id(),
        "SecretAccessKey": placeholder.secret_access_key(),
        "Token": placeholder.session_token(),
        "Expiration": expiration,
        (more): value,
    }))
}

fn times(now: OffsetDateTime) -> Option<(String, String)> {
    let now = now.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).ok()?;
    Some(((now + LIFETIME).format(&Rfc3339).ok()?, now.format(&Rfc3339).ok()?))
}

fn not_found() -> Response<Bytes> {
    plain(StatusCode::NOT_FOUND, "")
}

fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    answer(status, "text/plain", text.to_owned())
}

fn json(value: &serde_json::Value) -> Response<Bytes> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use chaperone_model::SessionId;
    use time::macros::datetime;

    use super::*;

    enum Place {
        Instance,
        Ecs,
        Pod,
    }

    struct Instance {
        place: Place,
        metadata: Metadata,
        placeholder: Placeholder,
        now: OffsetDateTime,
    }

    impl Instance {
        fn new() -> Self {
            Self {
                place: Place::Instance,
                metadata: Metadata::new(),
                placeholder: Placeholder::mint(SessionId::new()),
                now: datetime!(2025-06-01 12:00 UTC),
            }
        }

        fn ask(&self, method: &Method, path: &str, fields: &[(&'static str, &str)]) -> (u16, String) {
            let headers: HeaderMap = fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            let request = MetadataRequest {
                placeholder: &self.placeholder,
                region: "eu-west-1",
                role_name: "coder",
                method,
                path,
                headers: &headers,
                now: self.now,
            };
            let response = match self.place {
                Place::Instance => self.metadata.respond(&request),
                Place::Ecs => self.metadata.respond_ecs(&request),
                Place::Pod => self.metadata.respond_pod_identity(&request),
            };
            (response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap())
        }

        fn token(&self) -> String {
            self.ask(&Method::PUT, "/latest/api/token", &[(TTL, "60")]).1
        }
    }

    #[test]
    fn the_sequence_of_every_sdk() {
        let instance = Instance::new();
        let token = instance.token();
        let get = |path: &str| instance.ask(&Method::GET, path, &[(TOKEN, &token)]);
        assert_eq!(get("/latest/meta-data/iam/security-credentials/"), (200, "coder".into()));
        let (status, body) = get("/latest/meta-data/iam/security-credentials/coder");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(body["Code"], "Success");
        assert_eq!(body["AccessKeyId"], instance.placeholder.access_key_id());
        assert_eq!(body["Expiration"], "2025-06-01T18:00:00Z");
        assert_eq!(get("/latest/meta-data/placement/region").1, "eu-west-1");
        assert_eq!(get("/latest/meta-data/placement/availability-zone/").1, "eu-west-1a");
        assert!(get("/latest/dynamic/instance-identity/document").1.contains("\"region\":\"eu-west-1\""));
        assert_eq!(get("/latest/user-data").0, 404);
        assert_eq!(get("/latest/meta-data/iam/security-credentials/other").0, 404);
        assert_eq!(get("/elsewhere").0, 404);
    }

    #[test]
    fn version_one_and_foreign_or_old_tokens_get_nothing() {
        let mut instance = Instance::new();
        let path = "/latest/meta-data/iam/security-credentials/coder";
        assert_eq!(instance.ask(&Method::GET, path, &[]).0, 401);
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, "")]).0, 401);
        let token = instance.token();
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, &token)]).0, 200);
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, &format!("{token}00"))]).0, 401);
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, &token.replace('0', "1"))]).0, 401);
        let placeholder = std::mem::replace(&mut instance.placeholder, Placeholder::mint(SessionId::new()));
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, &token)]).0, 401, "another session's token");
        instance.placeholder = placeholder;
        instance.now += Duration::seconds(61);
        assert_eq!(instance.ask(&Method::GET, path, &[(TOKEN, &token)]).0, 401, "an old token");
    }

    #[test]
    fn tokens_need_a_put_with_a_life() {
        let instance = Instance::new();
        assert_eq!(instance.ask(&Method::PUT, "/latest/api/token", &[]).0, 400);
        assert_eq!(instance.ask(&Method::PUT, "/latest/api/token", &[(TTL, "0")]).0, 400);
        assert_eq!(instance.ask(&Method::PUT, "/latest/api/token", &[(TTL, "21601")]).0, 400);
        assert_eq!(instance.ask(&Method::GET, "/latest/api/token", &[(TTL, "60")]).0, 405);
        assert_eq!(instance.ask(&Method::PUT, "/latest/api/token", &[(TTL, "60"), ("x-forwarded-for", "x")]).0, 403);
    }

    #[test]
    fn containers_are_given_the_sessions_own_credentials() {
        let token = [("authorization", "a.service.account")];
        for (place, path, fields) in
            [(Place::Ecs, "/v2/credentials/5f2d", &[][..]), (Place::Pod, "/v1/credentials", &token[..])]
        {
            let instance = Instance { place, ..Instance::new() };
            let (status, body) = instance.ask(&Method::GET, path, fields);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, 200, "{path}");
            assert_eq!(body["AccessKeyId"], instance.placeholder.access_key_id());
            assert_eq!(body["SecretAccessKey"], instance.placeholder.secret_access_key());
            assert_eq!(body["Token"], instance.placeholder.session_token());
            assert_eq!(body["Expiration"], "2025-06-01T18:00:00Z");
            assert_eq!(instance.ask(&Method::POST, path, fields).0, 405);
        }
    }

    #[test]
    fn containers_are_told_nothing_else() {
        let ecs = Instance { place: Place::Ecs, ..Instance::new() };
        for path in ["/v4/0123-task", "/v4/0123-task/task", "/v3/x", "/v2/metadata", "/v2/stats/x"] {
            assert_eq!(ecs.ask(&Method::GET, path, &[]).0, 404, "{path}");
        }
        let pod = Instance { place: Place::Pod, ..Instance::new() };
        assert_eq!(pod.ask(&Method::GET, "/v1/credentials", &[]).0, 400, "no service account's token");
        assert_eq!(pod.ask(&Method::GET, "/v1/credentials", &[("authorization", " ")]).0, 400);
        assert_eq!(pod.ask(&Method::GET, "/latest/meta-data/", &[("authorization", "t")]).0, 404);
    }
}
