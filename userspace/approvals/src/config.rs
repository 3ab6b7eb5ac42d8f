//! What the configuration says of these surfaces.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use chaperone_oidc::{Issuer, SignIn};
use http::Uri;
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// `[approvals.api]`: where approvers answer over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// The address and port that it listens on.
    pub listen: SocketAddr,
    /// What browsers call it, such as `https://approvals.example.com`: without a path.
    pub url: String,
    /// Its certificate, with those that vouch for it (PEM).
    pub certificate: Option<PathBuf>,
    /// The certificate's key (PEM): root's, mode 0600.
    pub key: Option<PathBuf>,
    /// Whether it is served without TLS, on a loopback address only: behind a proxy on this host that does TLS. That proxy's
    /// last `X-Forwarded-For` is then taken for the address that a request comes from.
    #[serde(default)]
    pub insecure_loopback: bool,
    /// Minutes after which people must sign in again. Groups of an ID token are believed for as long.
    #[serde(default = "default_session")]
    pub session: u64,
    /// Where people sign in; nobody does, without it.
    pub sign_in: Option<SignIn>,
    /// Whose tokens programs may bring, as `[[identity.issuers]]` has them.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
}
}

const fn default_session() -> u64 {
    60
}

impl ApiSection {
    /// What TOML's types can't say. The error begins with the key that it is about.
    pub fn check(&self) -> Result<(), String> {
        self.origin()?;
        match (&self.certificate, &self.key) {
            (Some(_), Some(_)) => {}
            (None, None) if self.insecure_loopback && self.listen.ip().is_loopback() => {}
            (None, None) if self.insecure_loopback => {
                return Err(format!("listen = \"{}\": without TLS it must be a loopback address", self.listen));
            }
            (None, None) => return Err("certificate: name the certificate's file, and `key`".into()),
            _ => return Err("certificate and key: one of them is missing".into()),
        }
        if self.insecure_loopback && self.certificate.is_some() {
            return Err("insecure_loopback: there is a certificate; leave one of them out".into());
        }
        if !(1..=24 * 60).contains(&self.session) {
            return Err(format!("session = {}: from 1 to {} minutes", self.session, 24 * 60));
        }
        if self.sign_in.is_none() && self.issuers.is_empty() {
            return Err("sign_in: nobody could be known here; add [approvals.api.sign_in], or \
                        [[approvals.api.issuers]] for programs"
                .into());
        }
        if let Some(sign_in) = &self.sign_in {
            sign_in.check().map_err(|why| format!("sign_in: {why}"))?;
        }
        let own = self.sign_in.iter().map(|it| (&it.name, &it.issuer));
        let mut seen: Vec<(&String, &String)> = Vec::new();
        for (name, issuer) in own.chain(self.issuers.iter().map(|it| (&it.name, &it.issuer))) {
            if ["group", "uid"].contains(&name.as_str()) {
                return Err(format!("`{name}` means something else among approvers: give the provider another name"));
            }
            // The same provider may vouch for people and for programs, by one name.
            if seen.iter().any(|(other, url)| (*other == name) != (*url == issuer)) {
                return Err(format!("`{name}`: one name for one issuer, so that nobody is taken for somebody else"));
            }
            seen.push((name, issuer));
        }
        for issuer in &self.issuers {
            issuer.check().map_err(|why| format!("issuers: `{}`: {why}", issuer.name))?;
        }
        Ok(())
    }

    /// The origin, as browsers say it.
    pub fn origin(&self) -> Result<String, String> {
        let wrong = |why: &str| format!("url = \"{}\": {why}", self.url);
        let uri: Uri = self.url.parse().map_err(|_| wrong("not a URL, such as https://approvals.example.com"))?;
        let authority = uri.authority().ok_or_else(|| wrong("not a URL, such as https://approvals.example.com"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it must be https: browsers keep the session's cookie for https alone"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong("leave out path, query and user"));
        }
        // Browsers leave out the scheme's own port.
        let authority = authority.as_str().to_ascii_lowercase();
        Ok(format!("https://{}", authority.strip_suffix(":443").unwrap_or(&authority)))
    }
}

chaperone_model::documented! {
/// One of `[[approvals.webhooks]]`: whom to tell what becomes of questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSection {
    /// What it is called here and in records: a-z, 0-9 and `-`.
    pub name: String,
    /// Where messages are posted: https.
    pub url: String,
    /// A file with the secret that messages are signed by, `whsec_` and 24 to 64 bytes in base64: root's, mode 0600.
    pub secret_file: PathBuf,
    /// What is told; everything, if empty: `asked`, `approved`, `denied`, `expired`, `superseded`, `used`, `withdrawn`.
    #[serde(default)]
    pub events: Vec<String>,
    /// Seconds that an answer may take.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// The certificates (PEM) that the receiver is verified by, if not the host's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be reached without TLS, on loopback addresses only: for tests.
    #[serde(default)]
    pub insecure_loopback: bool,
}
}

const fn default_timeout() -> u64 {
    10
}

impl WebhookSection {
    /// What TOML's types can't say. The error begins with the key that it is about.
    pub fn check(&self) -> Result<(), String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(fits) {
            return Err(format!("name = \"{}\": 1 to 32 of a-z, 0-9 and `-`", self.name));
        }
        self.uri()?;
        if let Some(event) = self.events.iter().find(|event| !crate::messages::KINDS.contains(&event.as_str())) {
            return Err(format!("events: `{event}`: there are {}", crate::messages::KINDS.join(", ")));
        }
        if !(1..=60).contains(&self.timeout) {
            return Err(format!("timeout = {}: from 1 to 60 seconds", self.timeout));
        }
        Ok(())
    }

    /// Where messages go.
    pub(crate) fn uri(&self) -> Result<Uri, String> {
        outgoing("url", &self.url, self.insecure_loopback)
    }
}

chaperone_model::documented! {
/// `[approvals.slack]`: the workspace where approvers are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackSection {
    /// The workspace's id, such as `T0123ABCD`: users of others aren't believed to be anybody.
    pub team: String,
    /// The channel that questions are posted to, by its id.
    pub channel: String,
    /// A file with the bot's token (`xoxb-…`, scope `chat:write`): root's, mode 0600.
    pub token_file: PathBuf,
    /// A file with the app's signing secret, if Slack calls `/slack/interactions` of `[approvals.api]`.
    pub signing_secret_file: Option<PathBuf>,
    /// A file with the app's token (`xapp-…`, scope `connections:write`), for Socket Mode: the daemon needn't be reachable.
    pub app_token_file: Option<PathBuf>,
    /// Who users of the workspace are, by their ids: names as `[approvals.groups]` has them.
    #[serde(default)]
    pub people: BTreeMap<String, String>,
    /// Where Slack's methods are.
    #[serde(default = "default_api")]
    pub api: String,
    /// The certificates (PEM) that Slack is verified by, if not the host's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be reached without TLS, on loopback addresses only: for tests.
    #[serde(default)]
    pub insecure_loopback: bool,
}
}

fn default_api() -> String {
    "https://slack.com/api".into()
}

impl SlackSection {
    /// What TOML's types can't say. The error begins with the key that it is about.
    pub fn check(&self) -> Result<(), String> {
        let is_id = |text: &str| (2..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        for (key, id) in [("team", &self.team), ("channel", &self.channel)] {
            if !is_id(id) {
                return Err(format!("{key} = \"{id}\": give the id, which is letters and digits"));
            }
        }
        if let Some(user) = self.people.keys().find(|user| !is_id(user)) {
            return Err(format!("people: `{user}`: give the user's id, which is letters and digits"));
        }
        if self.people.is_empty() {
            return Err(
                "people: nobody in Slack is anybody here; say who its users are, such as U0123ABCD = \"alice\"".into(),
            );
        }
        if self.signing_secret_file.is_none() && self.app_token_file.is_none() {
            return Err(
                "signing_secret_file: buttons would do nothing; name it, or `app_token_file` for Socket Mode".into()
            );
        }
        self.uri().map(|_| ())
    }

    /// Where Slack's methods are.
    pub(crate) fn uri(&self) -> Result<Uri, String> {
        outgoing("api", &self.api, self.insecure_loopback)
    }
}

/// A URL that messages may be sent to.
pub(crate) fn outgoing(key: &str, url: &str, insecure_loopback: bool) -> Result<Uri, String> {
    let wrong = |why: &str| format!("{key} = \"{url}\": {why}");
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    let host = uri.host().ok_or_else(|| wrong("not a URL, such as https://hooks.example.com/x"))?;
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err(wrong("a password doesn't belong into a URL"));
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_allowed_loopback(host, insecure_loopback) => Ok(uri),
        Some("http") if is_allowed_loopback(host, true) => {
            Err(wrong("without TLS only with `insecure_loopback = true`, in tests"))
        }
        _ => Err(wrong("it must be https")),
    }
}

/// Whether a host may be reached without TLS.
pub(crate) fn is_allowed_loopback(host: &str, insecure_loopback: bool) -> bool {
    insecure_loopback
        && host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(text: &str) -> Result<(), String> {
        let sign_in = "[sign_in]\nname = \"corp\"\nissuer = \"https://login.example.com\"\nclient_id = \"chaperone\"\n";
        toml::from_str::<ApiSection>(&format!("{text}\n{sign_in}")).unwrap().check()
    }

    #[test]
    fn what_is_wrong_with_the_api_is_named() {
        let tls = "certificate = \"/c\"\nkey = \"/k\"";
        let here = "listen = \"127.0.0.1:8443\"\nurl = \"https://a.example\"";
        assert_eq!(api(&format!("{here}\n{tls}")), Ok(()));
        assert_eq!(api(&format!("{here}\ninsecure_loopback = true")), Ok(()));
        for (text, why) in [
            (here.to_owned(), "certificate"),
            (format!("{here}\ncertificate = \"/c\""), "one of them is missing"),
            (format!("{here}\n{tls}\ninsecure_loopback = true"), "leave one of them out"),
            (format!("{here}\n{tls}\nsession = 0"), "from 1 to"),
            (
                "listen = \"0.0.0.0:1\"\nurl = \"https://a.example\"\ninsecure_loopback = true".into(),
                "loopback address",
            ),
            (format!("listen = \"0.0.0.0:1\"\nurl = \"http://a.example\"\n{tls}"), "must be https"),
            (format!("listen = \"0.0.0.0:1\"\nurl = \"https://a.example/x\"\n{tls}"), "leave out path"),
        ] {
            let error = api(&text).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_origin_is_said_as_browsers_say_it() {
        let origin = |url: &str| {
            let text = format!("listen = \"[::1]:1\"\nurl = \"{url}\"");
            toml::from_str::<ApiSection>(&text).unwrap().origin().unwrap()
        };
        assert_eq!(origin("https://A.example:443/"), "https://a.example");
        assert_eq!(origin("https://a.example:8443"), "https://a.example:8443");
    }

    #[test]
    fn webhooks_go_where_they_may() {
        let check = |url: &str, more: &str| {
            let text = format!("name = \"x\"\nurl = \"{url}\"\nsecret_file = \"/s\"\n{more}");
            toml::from_str::<WebhookSection>(&text).unwrap().check()
        };
        assert_eq!(check("https://a.example/x?y=1", ""), Ok(()));
        assert_eq!(check("http://127.0.0.1:1/", "insecure_loopback = true"), Ok(()));
        for (url, more, why) in [
            ("http://a.example/", "insecure_loopback = true", "must be https"),
            ("http://127.0.0.1:1/", "", "insecure_loopback"),
            ("ftp://a.example/", "", "must be https"),
            ("https://u:p@a.example/", "", "password"),
            ("https://a.example/", "events = [\"aproved\"]", "there are asked"),
            ("https://a.example/", "timeout = 0", "from 1 to 60"),
        ] {
            let error = check(url, more).expect_err(url);
            assert!(error.contains(why), "{error}");
        }
    }
}
