//! The back ends: s3s-fs in this process, moto in its own, and a page for every other name.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper_util::rt::TokioIo;
use s3s::{
    S3Result,
    auth::SimpleAuth,
    host::{S3Host, VirtualHost},
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::net::TcpStream;

use crate::{hosts, server::BoxError};

/// What every back end answers with.
pub type Answer = Response<AnswerBody>;
/// The body of it.
pub type AnswerBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// RFC 9110, 7.6.1: these are about one connection. Bodies keep their length or get a framing of their own.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// s3s-fs with its objects in `root`; it verifies every signature against the one key.
pub fn s3(root: &Path, key: &Path) -> anyhow::Result<S3Service> {
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    let files = FileSystem::new(root).map_err(|error| anyhow::anyhow!("s3s-fs at {}: {error:?}", root.display()))?;
    let text = fs::read_to_string(key).with_context(|| format!("reading {}", key.display()))?;
    let (id, secret) = text.trim().split_once('\n').with_context(|| format!("{} has not two lines", key.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(id, secret));
    builder.set_host(AwsNames);
    Ok(builder.build())
}

struct AwsNames;

impl S3Host for AwsNames {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.split(':').next().unwrap_or(host);
        let Some((domain, bucket)) = hosts::s3(name) else {
            return Err(s3s::s3_error!(InvalidRequest, "not a name of S3"));
        };
        let named = VirtualHost::new(domain);
        Ok(match bucket {
            Some(bucket) => named.with_bucket(bucket),
            None => named,
        })
    }
}

/// Asks s3s-fs.
pub async fn ask_s3<B>(service: &S3Service, request: Request<B>) -> Result<Answer, BoxError>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
{
    let answer = service.call(request.map(s3s::Body::http_body_unsync)).await.map_err(|error| format!("{error:?}"))?;
    Ok(answer.map(|body| body.map_err(|error| std::io::Error::other(error.to_string())).boxed_unsync()))
}

/// Asks moto, which closes its connections after each answer.
pub async fn ask_moto<B>(moto: SocketAddr, host: &str, mut request: Request<B>) -> Result<Answer, BoxError>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    *request.uri_mut() = path.parse()?;
    *request.version_mut() = http::Version::HTTP_11;
    strip(request.headers_mut());
    request.headers_mut().insert(header::HOST, host.parse()?);
    let stream = TcpStream::connect(moto).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut answer = sender.send_request(request).await?;
    strip(answer.headers_mut());
    Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// Says whose page it would be, so that one sees that a connection was passed on.
pub fn page(host: &str) -> Answer {
    let text = format!("<!doctype html><title>{host}</title><p>This is {host}, as the lab's fake internet has it.\n");
    text_answer(StatusCode::OK, "text/html; charset=utf-8", text)
}

/// A registry's answer to everything, for who has the token that moto's ECR gives out. Of layers it has none, and says, as
/// ECR does, where in S3 they are: by a URL of its own key's.
pub fn registry(head: &Parts, presigned: impl FnOnce(&str) -> Result<String, BoxError>) -> Result<Answer, BoxError> {
    let right = format!("Basic {}", BASE64_STANDARD.encode("AWS:123456789012-auth-token"));
    if head.headers.get(header::AUTHORIZATION).is_some_and(|field| *field == right) {
        let mut answer = text_answer(StatusCode::OK, "application/json", "{\"tags\":[\"latest\"]}".to_owned());
        if let Some((_, digest)) = head.uri.path().split_once("/blobs/sha256:") {
            let bucket = "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com";
            let url = presigned(&format!("https://{bucket}/{digest}"))?;
            *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            answer.headers_mut().insert(header::LOCATION, url.parse()?);
        }
        return Ok(answer);
    }
    let mut answer = text_answer(StatusCode::UNAUTHORIZED, "text/plain", "Not Authorized\n".to_owned());
    let realm = header::HeaderValue::from_static("Basic realm=\"https://ecr\",service=\"ecr.amazonaws.com\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    Ok(answer)
}

/// A short answer.
pub fn text_answer(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

fn strip(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}
