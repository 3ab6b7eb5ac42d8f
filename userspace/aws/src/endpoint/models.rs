//! APIs of Amazon Bedrock that no model of AWS's describes: OpenAI's and Anthropic's, which their SDKs speak. Which there
//! are is in `data/model-apis.tsv`.

use std::sync::LazyLock;

use chaperone_model::{AccessLevel, Call};
use http::{HeaderName, HeaderValue, Uri, request::Parts};
use serde::Deserialize;
use serde_json::{Value, json};

use super::EndpointRequirements;
use crate::{Catalog, HostMatch, decode_error::DecodeError, head::header, request_auth::single, resources::Place};

/// Where Anthropic's SDK puts its key.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const OPENAI_PROJECT: &str = "openai-project";
/// More than any model's id.
const MAX_MODEL: usize = 2048;

struct Api {
    service: &'static str,
    method: &'static str,
    path: &'static str,
    action: &'static str,
    level: AccessLevel,
}

static APIS: LazyLock<Vec<Api>> = LazyLock::new(|| {
    let levels = Catalog::global().actions();
    let lines = include_str!("../../data/model-apis.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().expect("BUG: a line of model-apis.tsv has four columns");
            let (service, method, path, action) = (next(), next(), next(), next());
            let level = levels.get(action).copied().unwrap_or(AccessLevel::Write);
            Api { service, method, path, action, level }
        })
        .collect()
});

fn find(service: &str, parts: &Parts) -> Option<&'static Api> {
    // Some models are asked below a folder of their maker's.
    let path = parts.uri.path();
    let paths = [path, path.strip_prefix("/openai").filter(|_| service == "bedrock-mantle").unwrap_or(path)];
    let fits = |api: &&Api| {
        api.service == service && api.method == parts.method.as_str() && paths.iter().any(|path| fits(api.path, path))
    };
    APIS.iter().find(fits)
}

fn fits(pattern: &str, path: &str) -> bool {
    let id = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    let (mut wanted, mut there) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), there.next()) {
            (None, None) => return true,
            (Some("*"), Some(segment)) if id(segment) && !segment.starts_with('.') => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// What of such a body decides.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
}

impl Asked {
    /// A member that comes twice, or whose name has another case, is refused: readers differ in which they take.
    fn of(body: &[u8]) -> Result<Self, DecodeError> {
        let asked: Self =
            serde_json::from_slice(body).map_err(|_| DecodeError::Body("not a JSON object of this API"))?;
        if asked.model.as_ref().is_some_and(|model| model.len() > MAX_MODEL) {
            return Err(DecodeError::Body("one that names no model's id"));
        }
        Ok(asked)
    }
}

/// A request to `bedrock-runtime` by another API than its own, as the request of its own that it stands for: to the model
/// that the body names. `None`: it is one of its own.
pub(crate) fn as_invoke(host: &HostMatch, parts: &Parts, body: Option<&[u8]>) -> Option<Result<Parts, DecodeError>> {
    is_for_runtime(host, parts).then(|| {
        if parts.headers.contains_key(API_KEY) {
            return Err(DecodeError::Contradiction("a signature and an x-api-key"));
        }
        let asked = Asked::of(body.ok_or(DecodeError::BodyNeeded)?)?;
        let model = asked.model.ok_or(DecodeError::Body("one that names no model"))?;
        let mut path = "/model/".to_owned();
        crate::canonical::write_encoded(&mut path, model.as_bytes());
        path.push_str(if asked.stream == Some(true) { "/invoke-with-response-stream" } else { "/invoke" });
        if parts.uri.query().is_some() {
            return Err(DecodeError::Path("a query, which this API has not"));
        }
        let mut invoke = parts.clone();
        invoke.uri = path.parse::<Uri>().map_err(|_| DecodeError::Body("one that names no model's id"))?;
        Ok(invoke)
    })
}

/// Whether it is by another API than `bedrock-runtime`'s own, so that its body must be read.
pub(crate) fn is_for_runtime(host: &HostMatch, parts: &Parts) -> bool {
    let path = parts.uri.path();
    (path.starts_with("/openai/") || path.starts_with("/anthropic/"))
        && host.services().any(|name| name == "bedrock-runtime")
        && find("bedrock-runtime", parts).is_some()
}

/// What a request to `bedrock-mantle` needs.
pub(crate) fn mantle(
    parts: &Parts,
    body: Option<&[u8]>,
    place: &Place<'_>,
) -> Result<(EndpointRequirements, Value), DecodeError> {
    let none = || DecodeError::NoOperation { service: "bedrock-mantle".into() };
    // Beside our signature it would be somebody else's authority.
    if parts.headers.contains_key(API_KEY) {
        return Err(DecodeError::Contradiction("a signature and an x-api-key"));
    }
    let api = find("bedrock-mantle", parts).ok_or_else(none)?;
    let project = match header(&parts.headers, OPENAI_PROJECT) {
        None if !parts.headers.contains_key(OPENAI_PROJECT) => "default",
        _ => single(&parts.headers, OPENAI_PROJECT)
            .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
            .ok_or(DecodeError::Path("an OpenAI-Project that is no project's id"))?,
    };
    // A project's own page names it in the path.
    let project = parts
        .uri
        .path()
        .split_once("/organization/projects/")
        .map_or(project, |(_, rest)| rest.split('/').next().unwrap_or_default());
    let json = header(&parts.headers, "content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let mut parameters = Value::Null;
    if let Some(body) = body.filter(|body| !body.is_empty() && json) {
        let asked = Asked::of(body)?;
        parameters = json!({ "model": asked.model, "stream": asked.stream.unwrap_or(false) });
    } else if api.action == "bedrock-mantle:CreateInference" {
        return Err(DecodeError::Body("not JSON, which this API takes"));
    }
    let resource = place.arn("bedrock-mantle", &format!("project/{project}"));
    Ok((EndpointRequirements::one("bedrock-mantle", api.action, api.level, resource), parameters))
}

/// The key in `x-api-key`, as the bearer token that it is, if there is no other authority.
pub(crate) fn bearer_of_api_key(parts: &mut Parts) {
    let Some(key) = single(&parts.headers, API_KEY) else { return };
    if parts.headers.contains_key(http::header::AUTHORIZATION) {
        return;
    }
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {key}")) {
        value.set_sensitive(true);
        parts.headers.remove(API_KEY);
        parts.headers.insert(http::header::AUTHORIZATION, value);
    }
}

/// The call with what its body says.
pub(crate) fn with(mut call: Call, parameters: Value) -> Call {
    call.parameters = parameters;
    call
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::RequestAuth;

    fn ask(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Result<Call, DecodeError> {
        let uri: Uri = url.parse().unwrap();
        let host = uri.authority().unwrap().as_str();
        let mut request = Request::builder().method(method).uri(uri.path_and_query().unwrap().as_str());
        request = request.header("host", host).header("content-type", "application/json");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let found = Catalog::global().host(host).unwrap();
        let body = Some(body.as_bytes());
        Catalog::global().decode(&found, &parts, body, &RequestAuth::of(&parts), Some("123456789012"))
    }

    fn needs(call: &Call) -> Vec<String> {
        call.needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect()
    }

    const MANTLE: &str = "https://bedrock-mantle.eu-west-1.api.aws";
    const RUNTIME: &str = "https://bedrock-runtime.eu-west-1.amazonaws.com";

    #[test]
    fn every_action_is_iams() {
        let known = Catalog::global().actions();
        for api in APIS.iter().filter(|api| api.action != "invoke") {
            assert_eq!(known.get(api.action), Some(&api.level), "{}", api.action);
        }
        assert!(APIS.len() > 25);
    }

    #[test]
    fn openais_and_anthropics_apis_need_bedrocks_actions() {
        let project = "arn:aws:bedrock-mantle:eu-west-1:123456789012:project";
        for (method, path, action, project_id) in [
            ("POST", "/v1/chat/completions", "CreateInference", "default"),
            ("POST", "/openai/v1/responses", "CreateInference", "default"),
            ("POST", "/anthropic/v1/messages", "CreateInference", "default"),
            ("GET", "/v1/models", "ListModels", "default"),
            ("DELETE", "/v1/responses/resp_1", "DeleteInference", "default"),
            ("POST", "/v1/organization/projects/proj_9/archive", "ArchiveProject", "proj_9"),
        ] {
            let body = if method == "POST" { "{\"model\":\"m\",\"stream\":true}" } else { "" };
            let call = ask(method, &format!("{MANTLE}{path}"), &[], body).unwrap();
            assert_eq!(needs(&call), [format!("bedrock-mantle:{action} {project}/{project_id}")], "{path}");
            assert_eq!((&*call.signing_name, call.region.as_deref()), ("bedrock-mantle", Some("eu-west-1")));
            if method == "POST" {
                assert_eq!(call.parameters["model"], "m");
            }
        }
        let named =
            ask("POST", &format!("{MANTLE}/v1/responses"), &[("openai-project", "proj_1")], "{\"model\":\"m\"}");
        assert_eq!(needs(&named.unwrap()), [format!("bedrock-mantle:CreateInference {project}/proj_1")]);
    }

    #[test]
    fn at_bedrocks_runtime_they_are_invocations_of_the_model_in_the_body() {
        for (path, stream, operation) in [
            ("/openai/v1/chat/completions", false, "InvokeModel"),
            ("/anthropic/v1/messages", true, "InvokeModelWithResponseStream"),
        ] {
            let body = format!("{{\"stream\":{stream},\"model\":\"openai.gpt-oss-20b-1:0\"}}");
            let call = ask("POST", &format!("{RUNTIME}{path}"), &[], &body).unwrap();
            assert_eq!(call.operation, operation);
            let wanted = "arn:aws:bedrock:eu-west-1::foundation-model/openai.gpt-oss-20b-1:0";
            assert!(needs(&call).iter().any(|need| need.ends_with(wanted)), "{:?}", needs(&call));
        }
    }

    #[test]
    fn what_could_be_read_otherwise_is_refused() {
        for (method, url, fields, body) in [
            ("POST", format!("{RUNTIME}/openai/v1/chat/completions"), &[][..], "{}"),
            ("POST", format!("{RUNTIME}/openai/v1/chat/completions"), &[], "{\"model\":\"a\",\"model\":\"b\"}"),
            ("POST", format!("{RUNTIME}/openai/v1/chat/completions?x=1"), &[], "{\"model\":\"a\"}"),
            ("POST", format!("{RUNTIME}/openai/v1/other"), &[], "{\"model\":\"a\"}"),
            ("POST", format!("{RUNTIME}/openai//v1/chat/completions"), &[], "{\"model\":\"a\"}"),
            ("POST", format!("{MANTLE}/v1/chat/completions"), &[], "model=a"),
            ("POST", format!("{MANTLE}/v1/chat/completions"), &[("x-api-key", "somebody else's")], "{\"model\":\"a\"}"),
            ("POST", format!("{MANTLE}/v1/chat/completions"), &[("openai-project", "a/b")], "{\"model\":\"a\"}"),
            ("GET", format!("{MANTLE}/v1/responses/.."), &[], ""),
            ("GET", format!("{MANTLE}/v1/responses/a%2Fb"), &[], ""),
            ("GET", format!("{MANTLE}/v2/models"), &[], ""),
        ] {
            let call = ask(method, &url, fields, body);
            assert!(call.is_err(), "{url} {body}: {:?}", call.map(|call| needs(&call)));
        }
    }
}
