//! Errors with their causes: an error's own text often says little.

/// An error's text with all of its causes; what was said already isn't said again. `Debug` could say more than anybody should
/// read.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_follow_each_once() {
        let of = |a, b, c| Layer(a, Some(Box::new(Layer(b, Some(Box::new(Layer(c, None)))))));
        assert_eq!(with_causes(&of("a call", "b", "c")), "a call: b: c");
        assert_eq!(with_causes(&of("reading x: no such file", "no such file", "2")), "reading x: no such file: 2");
    }
}
