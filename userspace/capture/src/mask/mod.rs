//! Secrets in commands' arguments, replaced before anything else sees them.
//!
//! What is masked is what looks like a secret, by the name that stands before it. It is a net, and no wall: a secret that
//! nothing tells apart from any other argument is recorded. Where it isn't clear how far a secret goes, more is masked.

mod programs;
mod words;

use std::sync::LazyLock;

use regex::Regex;

use self::{
    programs::Program,
    words::{unquoted, words},
};

/// What stands in a secret's place.
const MASKED: &str = "<masked>";
/// A rule that takes longer to compile is refused.
const MAX_RULE_BYTES: usize = 1 << 20;
/// Scripts in scripts in scripts are looked into so deep.
const MAX_DEPTH: usize = 3;

/// Names of secrets, up to their end.
const NAME: &str = "(?:pass(?:word|wd|phrase|code)|secret(?:[-_]?(?:access)?[-_]?key|[-_]?(?:string|binary|value))?|token|\
                    (?:api|auth|private|account|signing|encryption)[-_]?key|shared[-_]?access[-_]?key|credentials?)";
/// Those that are short, and the ends of words that aren't names of secrets.
const SHORT_NAME: &str = "(?:pass|pwd|pw|psk|auth)";

/// What a rule finds is masked: its groups, or all of it if it has no group.
static RULES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let value = r#"(?:"((?:[^"\\]|\\.)*)|'([^']*)|([^\s"'&;]+))"#;
    vec![
        // PASSWORD=…, also inside of a URL's query or a structure; "token": …; token: …
        format!(r#"(?is){NAME}(?:["']?\s*=\s*|["']\s*:\s*|:\s+){value}"#),
        // … in JSON that is quoted itself
        format!(r#"(?i){NAME}\\+"\s*:\s*\\+"([^"\\]*)"#),
        // X-Token:…; `secret:` is part of ARNs
        format!(r#"(?i)(?:pass(?:word|wd|phrase)|token|[-_]key|[-_]secret):([^\s"'&;]+)"#),
        // DB_PASS=… and ;Pwd=…, which PWD=… isn't
        format!(r#"(?i)(?:[-_.;]{SHORT_NAME}|[{{,&?\s]pass)["']?\s*=\s*{value}"#),
        r#"(?i)(?:authorization|cookie):\s*([^"'\r\n]+)"#.to_owned(),
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----(.*)".to_owned(),
        r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,})"
            .to_owned(),
        r"\b(eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)".to_owned(),
        r"(?i)[?&](?:x-amz-signature|x-amz-security-token|sig|signature)=([^&\s]+)".to_owned(),
    ]
});

/// The rules.
#[derive(Clone, Debug)]
pub struct ArgumentMask {
    rules: Vec<Regex>,
    /// An option whose value is the next argument.
    option: Regex,
    /// An option whose value is a user and, behind a colon, a password; and how it is with both in one argument.
    user: Regex,
    user_attached: Regex,
    /// An argument that is a name, `=`, and a secret to its end.
    assignment: Regex,
    header: Regex,
    /// A name as a word of its own, before its value.
    bare: Regex,
    url: Regex,
    /// What may be an option rather than a secret that begins with a dash.
    is_option: Regex,
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

/// What is known of the next argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Any,
    Cookies,
    /// A literal, `NAME=SECRET`.
    Literal,
    Script,
    Secret,
    /// A user and, behind a colon, a password.
    User,
    /// … which may be numbers of a user and a group.
    UserOrIds,
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
        let rules = RULES.iter().chain(more).map(|rule| compile(rule)).collect::<Result<_, _>>()?;
        Ok(Self {
            rules,
            option: compile(&format!(
                r"(?i)^--?(?:[a-z0-9_.-]*{NAME}|(?:[a-z0-9_.-]*[-_.])?(?:pass|pw|bearer)|[a-z-]*secret-(?:string|binary))$"
            ))?,
            user: compile(r"^(?:-u|--user|--proxy-user|--(?:src-|dest-)?creds)$")?,
            user_attached: compile(r"^(?:-u\s*|--(?:proxy-)?user=|--(?:src-|dest-)?creds=)(.+)$")?,
            assignment: compile(&format!(
                r"(?i)^[-a-z0-9_.]*(?:{NAME}|(?:^|[-_.])(?:pass|auth)|[-_.]{SHORT_NAME})=(.*)$"
            ))?,
            header: compile(r"(?is)^(?:[a-z-]*authorization|(?:set-)?cookie|x-[a-z-]*(?:token|key|secret)):\s*(.*)$")?,
            bare: compile(&format!(
                r"(?i)^(?:[a-z0-9_.]+_(?:{NAME}|pass|pwd)|(?:access|account|api|auth|private|secret|signing)_key)$"
            ))?,
            url: compile(r#"(?i)[a-z][a-z0-9+.-]*://([^\s"'<>]*)"#)?,
            is_option: compile(r"^-(?:[A-Za-z0-9]|-[A-Za-z][A-Za-z0-9-]*(?:=.*)?)?$")?,
        })
    }

    /// Replaces what the rules find.
    pub fn mask(&self, argv: &mut [String]) {
        self.command(argv, 0);
    }

    /// As [`mask`](Self::mask), the arguments of one command, as they are or as they stand in a script.
    fn command(&self, argv: &mut [String], depth: usize) {
        let has = |argv: &[String], word: &str| argv.iter().any(|argument| unquoted(argument).1 == word);
        let is_secure = has(argv, "SecureString");
        let is_login = has(argv, "login");
        let (mut program, mut next) = (None::<&Program>, Next::Any);
        for argument in argv {
            let (open, inner, close) = unquoted(argument);
            program = Program::named(inner).or(program);
            let in_force = program.filter(|program| program.only_with.is_none_or(|_| is_login));
            let was = std::mem::replace(&mut next, self.next(inner, in_force, is_secure));
            let masked = match was {
                Next::Secret if !self.stays(inner) => {
                    MASKED.clone_into(argument);
                    next = Next::Any;
                    continue;
                }
                Next::User | Next::UserOrIds => user_masked(inner, was == Next::User),
                Next::Cookies if inner.contains('=') => Some(MASKED.to_owned()),
                Next::Literal => inner.split_once('=').map(|(name, _)| format!("{name}={MASKED}")),
                Next::Script if depth < MAX_DEPTH => Some(self.script(inner, depth + 1)),
                _ => None,
            };
            let masked = masked.or_else(|| attached(inner, in_force)).unwrap_or_else(|| self.argument(inner, depth));
            *argument = format!("{open}{masked}{close}");
        }
    }

    /// What the argument behind this one is.
    fn next(&self, argument: &str, program: Option<&Program>, is_secure: bool) -> Next {
        if let Some(program) = program {
            if program.next.contains(&argument) || is_secure && program.is("aws") && argument == "--value" {
                return Next::Secret;
            }
            if program.user.contains(&argument) {
                return Next::User;
            }
            if program.is("curl") && ["-b", "--cookie"].contains(&argument) {
                return Next::Cookies;
            }
            if program.is("curl") && bundled_user(argument) == Some("") {
                return Next::User;
            }
        }
        if self.option.is_match(argument) || self.bare.is_match(argument) {
            return Next::Secret;
        }
        match argument {
            "--from-literal" => Next::Literal,
            _ if self.user.is_match(argument) => Next::UserOrIds,
            _ if is_script_option(argument) => Next::Script,
            _ => Next::Any,
        }
    }

    /// Whether this is not the secret that it stands in the place of: another option, or where the secret is.
    fn stays(&self, argument: &str) -> bool {
        self.is_option.is_match(argument)
            || ["file:", "fileb:", "env:", "fd:", "/", "./", "../", "~/"].iter().any(|it| argument.starts_with(it))
            || argument == "stdin"
    }

    /// An argument by itself.
    fn argument(&self, argument: &str, depth: usize) -> String {
        for whole in [&self.assignment, &self.header] {
            // The rest, however it goes on: what an argument is, nobody else takes apart.
            if let Some(secret) = whole.captures(argument).and_then(|found| found.get(1)) {
                return format!("{}{MASKED}", &argument[..secret.start()]);
            }
        }
        if let Some(found) = argument.strip_prefix("--from-literal=").and_then(|literal| literal.split_once('=')) {
            return format!("--from-literal={}={MASKED}", found.0);
        }
        if let Some(user) = self.user_attached.captures(argument).and_then(|found| found.get(1)) {
            return match user_masked(user.as_str(), false) {
                Some(masked) => format!("{}{masked}", &argument[..user.start()]),
                None => argument.to_owned(),
            };
        }
        let mut text = if depth < MAX_DEPTH && argument.contains(char::is_whitespace) {
            self.script(argument, depth + 1)
        } else {
            argument.to_owned()
        };
        self.by_rules(&mut text);
        text
    }

    /// A script, or a text: each command in it.
    fn script(&self, script: &str, depth: usize) -> String {
        let (mut masked, mut from) = (String::with_capacity(script.len()), 0);
        let words = words(script);
        let mut rest = &words[..];
        while !rest.is_empty() {
            let length = rest.iter().skip(1).position(|word| word.begins).map_or(rest.len(), |n| n + 1);
            let (command, later) = rest.split_at(length);
            let mut argv: Vec<_> = command.iter().map(|word| script[word.place.clone()].to_owned()).collect();
            for argument in &mut argv {
                self.inner_script(argument, depth);
            }
            self.command(&mut argv, depth);
            for (word, argument) in command.iter().zip(argv) {
                masked.push_str(&script[from..word.place.start]);
                masked.push_str(&argument);
                from = word.place.end;
            }
            rest = later;
        }
        masked.push_str(&script[from..]);
        self.by_rules(&mut masked);
        masked
    }

    /// `$(…)` in a word.
    fn inner_script(&self, word: &mut String, depth: usize) {
        if depth < MAX_DEPTH
            && let (Some(open), Some(close)) = (word.find("$("), word.rfind(')'))
            && open + 2 < close
            && !self.assignment.is_match(word)
        {
            let inner = self.script(&word[open + 2..close], depth + 1);
            *word = format!("{}{inner}{}", &word[..open + 2], &word[close..]);
        }
    }

    fn by_rules(&self, text: &mut String) {
        self.urls(text);
        for rule in &self.rules {
            mask_all(rule, text);
        }
    }

    /// The users and passwords in URLs; RFC 3986, section 3.2.1.
    fn urls(&self, text: &mut String) {
        if !text.contains("://") {
            return;
        }
        let (mut masked, mut from) = (String::with_capacity(text.len()), 0);
        for found in self.url.captures_iter(text) {
            let Some(rest) = found.get(1) else { continue };
            let Some((user, password)) =
                user_info(&text[found.get(0).map_or(0, |it| it.start())..rest.start()], rest.as_str())
            else {
                continue;
            };
            masked.push_str(&text[from..rest.start()]);
            masked.push_str(if is_token(user) { MASKED } else { user });
            if password.is_some() {
                masked.push(':');
                masked.push_str(MASKED);
            }
            from = rest.start() + user.len() + password.map_or(0, |password| 1 + password.len());
        }
        masked.push_str(&text[from..]);
        *text = masked;
    }
}

/// The user and the password in what stands behind a URL's scheme.
fn user_info<'a>(scheme: &str, rest: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    let authority = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    let is_web = ["http://", "https://", "ws://", "wss://"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
    // A password with a slash in it isn't escaped as it should be, and is one all the same: where it can't be a port.
    let is_cut = authority.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && !port.bytes().all(|byte| byte.is_ascii_digit()) && !port.contains(']')
    });
    let end = match authority.rfind('@') {
        Some(end) if is_web || !authority[..end].contains(':') => end,
        Some(end) => rest.rfind('@').unwrap_or(end),
        None if is_cut => rest.rfind('@')?,
        None => return None,
    };
    let user_info = &rest[..end];
    Some(user_info.split_once(':').map_or((user_info, None), |(user, password)| (user, Some(password))))
}

/// Whether a user's name is a token rather than a name.
fn is_token(user: &str) -> bool {
    let has = |is: fn(&char) -> bool| user.chars().any(|character| is(&character));
    user.len() >= 20
        || user.len() >= 12 && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic) && !user.contains('.')
}

/// Without the password behind the colon, if there is one. `surely`: two numbers may be a user's and a group's otherwise.
fn user_masked(argument: &str, surely: bool) -> Option<String> {
    let (user, password) = argument.split_once(':')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if user.starts_with('-') || password.is_empty() || !surely && is_number(user) && is_number(password) {
        return None;
    }
    let open = password.len() - password.trim_start_matches(['"', '\'']).len();
    let end = password.trim_end_matches(['"', '\'']).len().max(open);
    Some(format!("{user}:{}{MASKED}{}", &password[..open], &password[end..]))
}

/// An argument that is an option and its secret.
fn attached(argument: &str, program: Option<&Program>) -> Option<String> {
    let program = program?;
    let option = program.attached.iter().find(|option| argument.len() > option.len() && argument.starts_with(**option));
    if let Some(option) = option {
        return Some(format!("{option}{MASKED}"));
    }
    if !program.is("curl") {
        return None;
    }
    if let Some(cookies) = argument.strip_prefix("-b").filter(|cookies| cookies.contains('=')) {
        return Some(argument.replace(cookies, MASKED));
    }
    let user = bundled_user(argument).filter(|user| !user.is_empty())?;
    Some(format!("{}{}", argument.strip_suffix(user)?, user_masked(user, true)?))
}

/// What follows curl's `-u` or `-U` behind other letters that have no values: `-sSu me:…`, `-sSume:…`.
fn bundled_user(argument: &str) -> Option<&str> {
    let letters = argument.strip_prefix('-')?;
    let rest = letters.trim_start_matches(|letter| "#0123468BGIJLNORSVafgijklnpqsv".contains(letter));
    rest.strip_prefix(['u', 'U'])
}

/// `-c`, `-lc`: what follows is a script.
fn is_script_option(argument: &str) -> bool {
    let letters = argument.strip_prefix('-').and_then(|letters| letters.strip_suffix('c'));
    letters.is_some_and(|letters| letters.bytes().all(|letter| letter.is_ascii_lowercase()))
}

fn mask_all(rule: &Regex, text: &mut String) {
    if !rule.is_match(text) {
        return;
    }
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for found in rule.captures_iter(text) {
        let Some(secret) = found.iter().skip(1).flatten().next().or_else(|| found.get(0)) else { continue };
        masked.push_str(&text[from..secret.start()]);
        masked.push_str(MASKED);
        from = secret.end();
    }
    masked.push_str(&text[from..]);
    *text = masked;
}

#[cfg(test)]
mod tests;
