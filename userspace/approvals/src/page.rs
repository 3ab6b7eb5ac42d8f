//! The page: one document, one script and one style sheet, which ask the API for everything.

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};

/// After signing in: on to the page, from a page of our own, so that the session's cookie goes along.
pub(crate) const SIGNED_IN: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Signed in</title>\
    <meta http-equiv=\"refresh\" content=\"0;url=/\"><link rel=\"stylesheet\" href=\"/style.css\">\
    <p>You are signed in. <a href=\"/\">Go on</a></html>";

/// Nobody has signed in.
pub(crate) fn failed(why: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Not signed in</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/style.css\">\
         <main><h1>Not signed in</h1><p role=\"alert\">{}</p><p><a href=\"/sign-in\">Sign in</a></main></html>",
        escaped(why)
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

pub(crate) async fn index() -> Response {
    Html(include_str!("page/index.html")).into_response()
}

pub(crate) async fn script() -> Response {
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], include_str!("page/app.js")).into_response()
}

pub(crate) async fn style() -> Response {
    let kind = HeaderValue::from_static("text/css; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], include_str!("page/style.css")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_text_and_nothing_else() {
        let page = failed("<script>alert('1')</script> & \"x\"");
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot;"), "{page}");
    }

    /// The policy allows no script and no style that isn't in its own file.
    #[test]
    fn the_page_has_nothing_inline() {
        for page in [include_str!("page/index.html"), SIGNED_IN] {
            for wrong in ["<script>", "<style", "style=", "javascript:", "onclick=", "onload=", "onerror=", "onsubmit="]
            {
                assert!(!page.contains(wrong), "{wrong}: {page}");
            }
        }
        let script = include_str!("page/app.js");
        for wrong in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(wrong), "{wrong}");
        }
    }
}
