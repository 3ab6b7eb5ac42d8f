//! Secrets in commands' arguments, replaced before anything else sees them.

use regex::Regex;

/// What stands in a secret's place.
const MASKED: &str = "<masked>";
/// A rule that takes longer to compile is refused.
const MAX_RULE_BYTES: usize = 1 << 20;

/// What a rule finds is masked: its group 1, or all of it if it has no group.
const RULES: [&str; 9] = [
    // --password=…, and PASSWORD=…, "token": …, also inside of a script
    r#"(?i)(?:pass(?:word|wd|phrase)|secret(?:[-_]?(?:access)?[-_]?key)?|token|api[-_]?key|private[-_]?key|credentials?)["']?\s*[=:]\s*["']?([^\s"'&]+)"#,
    // --password … inside of a script
    r"(?i)--?[a-z0-9-]*(?:pass(?:word|wd|phrase)|secret-key|secret-access-key|token|api-?key)\s+([^\s-]\S*)",
    // curl -u user:…, inside of a script, and --user=user:…
    r#"(?:^|[\s"'])(?:-u\s*|--(?:proxy-)?user[\s=]\s*)["']?[^\s"':-][^\s"':]*:([^\s"']+)"#,
    r"(?i)authorization:\s*(.+)",
    r"://[^/\s:@]*:([^/\s@]+)@",
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----(.*)",
    r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,})",
    r"\b(eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)",
    r"(?i)[?&](?:x-amz-signature|x-amz-security-token|sig|signature)=([^&\s]+)",
];

/// An option whose value is the next argument.
const OPTION: &str =
    r"(?i)^--?[a-z0-9-]*(?:pass(?:word|wd|phrase)|secret|secret-key|secret-access-key|secret-string|token|api-?key)$";

/// An option whose value is a user and, behind a colon, a password.
const USER: &str = r"^(?:-u|--user|--proxy-user)$";

/// The rules.
#[derive(Clone, Debug)]
pub struct ArgumentMask {
    rules: Vec<Regex>,
    option: Regex,
    user: Regex,
}

/// A rule that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("`{rule}` is not a regular expression: {reason}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Default for ArgumentMask {
    fn default() -> Self {
        Self::new(&[]).expect("BUG: the rules compile")
    }
}

impl ArgumentMask {
    /// The rules that are always there, and these. Matching takes time linear in the arguments, whatever the rules.
    pub fn new(more: &[String]) -> Result<Self, RuleError> {
        let compile = |rule: &str| {
            regex::RegexBuilder::new(rule)
                .size_limit(MAX_RULE_BYTES)
                .build()
                .map_err(|error| RuleError { rule: rule.to_owned(), reason: error.to_string() })
        };
        let rules = RULES.into_iter().chain(more.iter().map(String::as_str)).map(compile).collect::<Result<_, _>>()?;
        Ok(Self { rules, option: compile(OPTION)?, user: compile(USER)? })
    }

    /// Replaces what the rules find.
    pub fn mask(&self, argv: &mut [String]) {
        let (mut is_value, mut is_user) = (false, false);
        for argument in argv {
            if std::mem::take(&mut is_value) && !argument.starts_with('-') {
                MASKED.clone_into(argument);
                continue;
            }
            if std::mem::take(&mut is_user)
                && let Some((user, _)) = argument.split_once(':')
            {
                *argument = format!("{user}:{MASKED}");
                continue;
            }
            is_value = self.option.is_match(argument);
            is_user = self.user.is_match(argument);
            for rule in &self.rules {
                mask_all(rule, argument);
            }
        }
    }
}

fn mask_all(rule: &Regex, text: &mut String) {
    if !rule.is_match(text) {
        return;
    }
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for found in rule.captures_iter(text) {
        let Some(secret) = found.get(1).or_else(|| found.get(0)) else { continue };
        masked.push_str(&text[from..secret.start()]);
        masked.push_str(MASKED);
        from = secret.end();
    }
    masked.push_str(&text[from..]);
    *text = masked;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(arguments: &[&str]) -> Vec<String> {
        let mut argv: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        ArgumentMask::new(&["CORP-[0-9]+".to_owned()]).unwrap().mask(&mut argv);
        argv
    }

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        for (arguments, wanted) in [
            (&["mysql", "--password", "hunter2", "-u", "me"][..], &["mysql", "--password", MASKED, "-u", "me"][..]),
            (&["mysql", "--password=hunter2"], &["mysql", "--password=<masked>"]),
            (&["mysql", "--password", "-u"], &["mysql", "--password", "-u"]),
            (
                &["sh", "-c", "AWS_SECRET_ACCESS_KEY=abc/def aws s3 ls --token t0k"],
                &["sh", "-c", "AWS_SECRET_ACCESS_KEY=<masked> aws s3 ls --token <masked>"],
            ),
            (&["curl", "-H", "Authorization: Bearer abc"], &["curl", "-H", "Authorization: <masked>"]),
            (&["git", "clone", "https://me:pw@example.com/x"], &["git", "clone", "https://me:<masked>@example.com/x"]),
            (&["curl", "-u", "me:pw", "https://a"], &["curl", "-u", "me:<masked>", "https://a"]),
            (&["curl", "--user=me:pw", "-uyou:pw"], &["curl", "--user=me:<masked>", "-uyou:<masked>"]),
            (&["sh", "-c", "curl -sS -u 'me:pw' x:y"], &["sh", "-c", "curl -sS -u 'me:<masked>' x:y"]),
            (&["sudo", "-u", "me", "a:b"], &["sudo", "-u", "me", "a:b"]),
            (&["echo", "ghp_0123456789abcdefghij0123456789abcdef"], &["echo", MASKED]),
            (&["echo", "CORP-42 and CORP-43"], &["echo", "<masked> and <masked>"]),
            (
                &["curl", "https://b.s3.amazonaws.com/k?X-Amz-Signature=0123&x=1"],
                &["curl", "https://b.s3.amazonaws.com/k?X-Amz-Signature=<masked>&x=1"],
            ),
            (
                &["aws", "secretsmanager", "get-secret-value", "--secret-id", "prod/db"],
                &["aws", "secretsmanager", "get-secret-value", "--secret-id", "prod/db"],
            ),
            (
                &["aws", "secretsmanager", "put-secret-value", "--secret-string", "s"],
                &["aws", "secretsmanager", "put-secret-value", "--secret-string", MASKED],
            ),
            (&["aws", "s3", "rm", "s3://bucket/tokens"], &["aws", "s3", "rm", "s3://bucket/tokens"]),
        ] {
            assert_eq!(masked(arguments), wanted, "{arguments:?}");
        }
    }

    #[test]
    fn a_rule_that_is_none_is_named() {
        let error = ArgumentMask::new(&["(".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`(`"), "{error}");
    }
}
