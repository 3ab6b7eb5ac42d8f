//! `chaperone explain`: what a request is taken for. The head is held to the data path's own strictness, then decoded
//! by the same catalog.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_aws::{Catalog, Explanation, HostKind};
use chaperone_model::{AccessLevel, Action, Payload, Protocol};
use chaperone_policy::{EgressKind, known_level};
use chaperone_proxy::{
    call::http_path::normalize,
    connection::hello::host_name,
    http::strict::{BodyLength, check_request_head},
};
use http::{HeaderName, HeaderValue, Request, request::Parts};
use serde::{Deserialize, Serialize};

use crate::{
    cli,
    daemon::KnownActions,
    output::{clean, json_line},
};

/// The largest body, in bytes: what the daemon spools by default.
const MAX_BODY: usize = 16 << 20;
/// The longest line of a batch: such a body in base64, with a head of the largest size.
const MAX_LINE: usize = MAX_BODY / 3 * 4 + (1 << 20);

/// What was given is not a request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub String);

/// One line of a batch.
#[derive(Deserialize)]
struct Line {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body_base64: Option<String>,
}

pub fn run(what: &cli::Explain, json: bool) -> anyhow::Result<ExitCode> {
    let account = what.account.as_deref();
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let (Some(method), Some(url)) = (&what.method, &what.url) else {
        batch(&mut io::stdin().lock(), &mut out, account)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut headers = Vec::new();
    for header in &what.headers {
        let (name, value) =
            header.split_once(':').ok_or_else(|| BadRequest(format!("--header `{header}`: no colon")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let body = what.body.as_deref().map(read_body).transpose()?.unwrap_or_default();
    let explained = explain(method, url, &headers, &body, account)?;
    if json {
        json_line(&mut out, &explained)?;
    } else {
        for_people(&mut out, &explained)?;
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(explained.error.is_some())))
}

fn read_body(path: &Path) -> Result<Vec<u8>, BadRequest> {
    let failed = |error| BadRequest(format!("--body {}: {error}", path.display()));
    let input: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
    let mut body = Vec::new();
    input.take(MAX_BODY as u64 + 1).read_to_end(&mut body).map_err(failed)?;
    if body.len() > MAX_BODY {
        return Err(BadRequest(format!("--body {}: more than {MAX_BODY} bytes", path.display())));
    }
    Ok(body)
}

/// Answers every line, in their order. Buffers on both sides; a line is all that is in memory.
fn batch(input: &mut impl BufRead, out: &mut impl Write, account: Option<&str>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 18, input);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        let answer = if line.len() > MAX_LINE && line.last() != Some(&b'\n') {
            skip_line(&mut input)?;
            Err(BadRequest(format!("longer than {MAX_LINE} bytes")))
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            explain_line(&line, account)
        };
        match answer {
            Ok(mut explained) => {
                explained.parameters = serde_json::Value::Null;
                json_line(out, &explained)?;
            }
            Err(error) => json_line(out, &Unread { error: format!("line {number}: {error}"), line: number })?,
        }
    }
    out.flush()
}

/// The answer to a line that can't be read.
#[derive(Serialize)]
struct Unread {
    error: String,
    line: u64,
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = input.fill_buf()?;
        let (end, used) = match buffered.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (buffered.is_empty(), buffered.len()),
        };
        input.consume(used);
        if end {
            return Ok(());
        }
    }
}

fn explain_line(line: &[u8], account: Option<&str>) -> Result<Explanation, BadRequest> {
    let line: Line = serde_json::from_slice(line).map_err(|error| BadRequest(format!("not a request: {error}")))?;
    let body = line.body_base64.map(|text| STANDARD.decode(text)).transpose();
    let body = body.map_err(|error| BadRequest(format!("body_base64: {error}")))?.unwrap_or_default();
    explain(&line.method, &line.url, &line.headers, &body, account)
}

/// What can't be a request at all is an error; what the daemon would refuse is an explanation with an error in it.
fn explain(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    account: Option<&str>,
) -> Result<Explanation, BadRequest> {
    Ok(match checked(method, url, headers, body)? {
        Ok((host, parts)) => {
            let explained = Catalog::global().explain(&host, &parts, body, account);
            match Catalog::global().host(&host).map(|found| found.kind) {
                None => passed_on(explained, url, &host),
                Some(HostKind::Endpoint(endpoint)) if endpoint.is_application(&parts) => {
                    application(explained, &host, &parts)
                }
                Some(_) => explained,
            }
        }
        Err(why) => Explanation::unknown(Payload::None, "not read", Vec::new(), why),
    })
}

/// What isn't AWS's is passed on, as far as policies let it: of its requests nothing is read.
fn passed_on(explained: Explanation, url: &str, host: &str) -> Explanation {
    let kind = if url.starts_with("http:") { EgressKind::Http } else { EgressKind::Tls };
    let why = format!(
        "`{host}` is not a name of AWS: the daemon passes such connections on without reading them, unless policies forbid \
         that; if it is listed under proxy.inspect, its requests are decided as http: actions"
    );
    Explanation {
        // These are of no level.
        actions: vec![Action { name: kind.action().into(), level: AccessLevel::Write }],
        resources: vec![host.to_owned()],
        why: vec![why],
        error: None,
        ..explained
    }
}

/// What is a customer's own, at a name of AWS's: decided by method and path.
fn application(mut explained: Explanation, host: &str, parts: &Parts) -> Explanation {
    let path = match normalize(parts.uri.path()) {
        Ok(path) => path,
        Err(error) => return Explanation { error: Some(error.to_string()), ..explained },
    };
    let name = format!("http:{}", parts.method);
    let level = known_level(&name, &KnownActions).unwrap_or(AccessLevel::Write);
    explained.why.push("without AWS's authority it is the application's own: decided by method, host and path".into());
    Explanation {
        operation: Some(parts.method.to_string().into()),
        service: Some(host.to_owned().into()),
        candidates: Vec::new(),
        access_level: Some(level),
        actions: vec![Action { name: name.into(), level }],
        resources: vec![format!("https://{host}{path}")],
        needs: Vec::new(),
        protocol: Some(Protocol::Http),
        error: None,
        ..explained
    }
}

/// The host and the head of a request, held to the data path's own strictness; or why it is refused.
pub fn checked(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<Result<(String, Parts), String>, BadRequest> {
    let refused = |why: String| Ok(Err(why));
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| BadRequest(format!("`{url}` is not an http or https URL")))?;
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let plain = authority.strip_suffix(":443").or_else(|| authority.strip_suffix(":80")).unwrap_or(authority);
    let Some(host) = host_name(plain.as_bytes()) else {
        return refused(format!("`{authority}` is not a plain DNS name"));
    };

    let mut head = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let given = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    if given.is_none() {
        head.extend_from_slice(format!("Host: {authority}\r\n").as_bytes());
    }
    for (name, value) in headers {
        for part in [name.as_str(), ": ", value.as_str(), "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
    let says_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match check_request_head(&head) {
        Err(violation) => return refused(format!("the request is refused because of {violation}")),
        Ok(BodyLength::Length(length)) if says_length && length != body.len() as u64 => {
            return refused(format!("Content-Length is {length} and the body has {} bytes", body.len()));
        }
        Ok(_) => {}
    }
    if let Some((_, value)) = given {
        let port = |text: &str| text.strip_suffix(":443").or_else(|| text.strip_suffix(":80")).map(str::to_owned);
        if host_name(port(value).as_deref().unwrap_or(value).as_bytes()).as_deref() != Some(&host) {
            return refused(format!("the connection is for `{host}` and the Host field says something else"));
        }
    }
    let read = parts(method, &target, authority, headers).map(|parts| (host, parts));
    Ok(read.map_err(|error| format!("the request can't be read: {error}")))
}

fn parts(method: &str, target: &str, host: &str, headers: &[(String, String)]) -> Result<Parts, http::Error> {
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", host);
    }
    for (name, value) in headers {
        request = request.header(HeaderName::try_from(name)?, HeaderValue::try_from(value.trim())?);
    }
    Ok(request.body(())?.into_parts().0)
}

fn for_people(out: &mut impl Write, explained: &Explanation) -> io::Result<()> {
    if let Some(error) = &explained.error {
        writeln!(out, "{:<14} {}", "refused", clean(error))?;
    }
    let mut line = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => writeln!(out, "{name:<14} {}", clean(value)),
    };
    let text = |value: &Option<std::borrow::Cow<'static, str>>| value.as_deref().unwrap_or_default().to_owned();
    line("service", &text(&explained.service))?;
    line("operation", &text(&explained.operation))?;
    if explained.candidates.len() > 1 {
        line("candidates", &explained.candidates.join(", "))?;
    }
    line("partition", &text(&explained.partition))?;
    line("region", &text(&explained.region))?;
    line("account", &text(&explained.account))?;
    for action in &explained.actions {
        match EgressKind::of_action(&action.name) {
            Some(_) => line("action", &action.name)?,
            None => line("action", &format!("{} ({})", action.name, action.level.as_str()))?,
        }
    }
    for resource in &explained.resources {
        line("resource", resource)?;
    }
    for (action, resource) in &explained.needs {
        line("needs", &format!("{action} on {resource}"))?;
    }
    line("signing name", &text(&explained.signing_name))?;
    line("authority", explained.authority)?;
    if !explained.parameters.is_null() {
        line("parameters", &explained.parameters.to_string())?;
    }
    for why in &explained.why {
        line("because", why)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &str) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        batch(&mut input.as_bytes(), &mut out, Some("123456789012")).unwrap();
        out.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn a_batch_answers_every_line_and_goes_on_after_a_bad_one() {
        let get = r#"{"method":"GET","url":"https://b.s3.eu-west-1.amazonaws.com/k"}"#;
        let put = r#"{"method":"POST","url":"https://dynamodb.eu-west-1.amazonaws.com","headers":[["X-Amz-Target","DynamoDB_20120810.DeleteItem"]],"body_base64":"eyJUYWJsZU5hbWUiOiJUIn0="}"#;
        let long = format!("{{\"method\":\"{}\"}}", "x".repeat(MAX_LINE));
        let input = format!("{get}\nno\n{{\"method\":1}}\n\n{long}\n{put}\n{}", get.replace("GET", "POST"));
        let is = answers(&input);
        assert_eq!(is.len(), 6);
        assert_eq!((&is[0]["operation"], &is[0]["access_level"]), (&"GetObject".into(), &"Read".into()));
        for (answer, line) in [(1, 2), (2, 3), (3, 5)] {
            let error = is[answer]["error"].as_str().unwrap();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
        assert_eq!(is[4]["resources"], serde_json::json!(["arn:aws:dynamodb:eu-west-1:123456789012:table/T"]));
        assert!(is[5]["error"].as_str().unwrap().contains("no operation of s3"), "{}", is[5]);
    }

    #[test]
    fn what_is_not_awss_api_is_explained_as_it_is_decided() {
        let of = |method: &str, url: &str, headers: &[(String, String)]| {
            let is = explain(method, url, headers, b"", Some("123456789012")).unwrap();
            let names: Vec<_> = is.actions.iter().map(|it| it.name.to_string()).collect();
            (names.join(" "), is.resources.join(" "), is.error)
        };
        let text = |one: &str, other: &str| (one.to_owned(), other.to_owned(), None);
        assert_eq!(of("GET", "https://github.com/x?y", &[]), text("egress:TLS", "github.com"));
        assert_eq!(of("POST", "http://github.com/", &[]), text("egress:HTTP", "github.com"));
        let lb = "my-lb-1.eu-west-1.elb.amazonaws.com";
        assert_eq!(of("GET", &format!("https://{lb}/a//b?c"), &[]), text("http:GET", &format!("https://{lb}/a/b")));
        let api = "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/s/x";
        assert_eq!(of("POST", api, &[]), text("http:POST", api));
        let cluster = "https://0123456789abcdef.gr7.eu-west-1.eks.amazonaws.com/api/v1/namespaces/a/pods";
        let resource = "arn:aws:eks:eu-west-1:123456789012:cluster/*/namespaces/a/pods";
        assert_eq!(of("GET", cluster, &[]), text("k8s:list", resource));
        assert!(of("GET", &format!("https://{lb}/..//x"), &[]).2.is_some());
    }

    #[test]
    fn what_the_data_path_refuses_is_refused() {
        let of = |method: &str, url: &str, headers: &[(&str, &str)], body: &str| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            explain(method, url, &headers, body.as_bytes(), None).unwrap().error.unwrap_or_default()
        };
        let url = "https://b.s3.amazonaws.com/k";
        assert_eq!(of("GET", url, &[], ""), "");
        assert_eq!(of("GET", url, &[("Host", "b.s3.amazonaws.com:443")], ""), "");
        assert!(of("GET", url, &[("Host", "c.s3.amazonaws.com")], "").contains("Host field"));
        assert!(of("GET", url, &[("Host", "b.s3.amazonaws.com"), ("host", "x")], "").contains("exactly one Host"));
        assert!(of("GET", "https://1.2.3.4/", &[], "").contains("plain DNS name"));
        assert!(of("GET", "https://u@b.s3.amazonaws.com/", &[], "").contains("plain DNS name"));
        assert!(of("GET", "https://b.s3.amazonaws.com/k#f", &[], "").contains("fragment"));
        assert!(of("GET", "https://b.s3.amazonaws.com/a b", &[], "").contains("three words"));
        assert!(of("CONNECT", url, &[], "").contains("CONNECT"));
        assert!(of("GET", url, &[("a", "b\r\nc: d")], "").contains("can't be read"));
        assert!(of("GET", url, &[("a b", "c")], "").contains("token"));
        assert!(of("PUT", url, &[("Content-Length", "9")], "body").contains("Content-Length is 9"));
        let both = [("Content-Length", "4"), ("Transfer-Encoding", "chunked")];
        assert!(of("PUT", url, &both, "body").contains("both Content-Length"));
        assert!(explain("GET", "ftp://b.s3.amazonaws.com/", &[], b"", None).is_err());
    }
}
