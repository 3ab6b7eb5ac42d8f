//! The API's description, from the types that it is made of.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use crate::{api, sign_in, types};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chaperone: approvals",
        description = "Calls of AI agents to AWS that wait for a person. Whoever asks sees the questions of their own groups, \
                       and answers them. Answers that change something need the session's cookie together with `origin` and \
                       `x-csrf-token`, or a bearer token of a configured issuer.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    paths(api::list, api::show, api::approve, api::deny, api::me, api::sign_out),
    components(schemas(types::Problem)),
    modifiers(&Security),
)]
struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let Some(components) = &mut openapi.components else { return };
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(sign_in::SESSION)));
        components.add_security_scheme("session", cookie);
        let token = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-csrf-token")));
        components.add_security_scheme("csrf", token);
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The description (OpenAPI 3.1), as JSON.
pub fn document() -> String {
    Description::openapi().to_pretty_json().expect("BUG: the API's description is no JSON") + "\n"
}

pub(crate) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_description_in_docs_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/approvals-openapi.json");
        if std::env::var_os("CHAPERONE_WRITE_DOCS").is_some() {
            fs::write(&path, document()).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == document(),
            "docs/approvals-openapi.json isn't what the types say: run this test with CHAPERONE_WRITE_DOCS=1, and look at \
             the change"
        );
    }
}
