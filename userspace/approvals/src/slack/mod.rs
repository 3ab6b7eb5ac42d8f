//! Slack: a message for each question, with buttons, which says later what became of it.
//!
//! Whoever presses a button is somebody only if the configuration says who that user of the workspace is; and what they
//! press comes signed by Slack ([`signature`]), or over a connection that was opened with the app's own token
//! ([`socket`]). What agents choose goes into messages as plain text, in which nothing is a link or a mention.

mod blocks;
mod interaction;
mod signature;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use bytes::Bytes;
use chaperone_model::Approver;
use chaperone_oidc::Fetch;
use chaperone_policy::approvals::{Answer, Scope};
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::interaction::{Act, Interaction};
use crate::{
    Backend, SlackSection,
    messages::{Failure, Message, Receiver, at, durable},
};

/// For one answer of Slack's.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old a signed request may be, as Slack says.
const FRESH: Duration = Duration::from_mins(5);
/// The most that are remembered so that they aren't done twice: more than come while they are fresh.
const MOST_SEEN: usize = 20_000;
/// The most messages that are remembered so that they can be updated.
const MOST_POSTED: usize = 5_000;

/// A message in Slack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Posted {
    channel: String,
    ts: String,
    /// When, in milliseconds.
    at: u64,
    /// How far the question was, as the message tells it.
    #[serde(default)]
    step: u8,
}

/// How far a question is: what failed to be told is tried again later, and must not hide what was told meanwhile.
fn step(kind: &str) -> u8 {
    match kind {
        "asked" => 0,
        "approved" => 1,
        _ => 2,
    }
}

/// `[approvals.slack]`, with its secrets read.
pub struct Slack {
    section: SlackSection,
    api: Uri,
    token: String,
    signing: Option<hmac::Key>,
    app_token: Option<String>,
    fetch: Fetch,
    posted: Mutex<BTreeMap<String, Posted>>,
    file: PathBuf,
    seen: Mutex<Seen>,
    trouble: Mutex<Option<String>>,
}

impl std::fmt::Debug for Slack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slack").field("section", &self.section).finish_non_exhaustive()
    }
}

/// What came, so that it isn't done again.
#[derive(Debug, Default)]
struct Seen {
    by_time: VecDeque<(Instant, String)>,
    all: HashSet<String>,
}

impl Seen {
    /// Whether this is new.
    fn is_new(&mut self, what: &str) -> bool {
        let now = Instant::now();
        // Twice as long as one is fresh, as its clock may be ahead by as much.
        while let Some((at, _)) = self.by_time.front()
            && (now.duration_since(*at) > 2 * FRESH || self.by_time.len() >= MOST_SEEN)
        {
            if let Some((_, old)) = self.by_time.pop_front() {
                self.all.remove(&old);
            }
        }
        if !self.all.insert(what.to_owned()) {
            return false;
        }
        self.by_time.push_back((now, what.to_owned()));
        true
    }
}

impl Slack {
    /// One for a configuration that was checked. Reads its files, and what it keeps in `folder`; the error begins with the
    /// key that it is about.
    pub fn new(section: SlackSection, folder: &Path) -> Result<Arc<Self>, String> {
        let secret = |key: &str, path: &Path| chaperone_oidc::secret(path).map_err(|why| format!("{key}: {why}"));
        let token = secret("token_file", &section.token_file)?;
        let signing = section.signing_secret_file.as_deref();
        let signing = signing.map(|path| secret("signing_secret_file", path)).transpose()?;
        let app_token = section.app_token_file.as_deref().map(|path| secret("app_token_file", path)).transpose()?;
        let file = folder.join("slack.json");
        // Without it, messages are posted anew.
        let posted = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Arc::new(Self {
            api: section.uri()?,
            token,
            signing: signing.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
            app_token,
            fetch: Fetch::new(section.ca_file.as_deref())?,
            posted: Mutex::new(posted),
            file,
            seen: Mutex::default(),
            trouble: Mutex::default(),
            section,
        }))
    }

    /// Takes what users press, over connections that this opens, until it is dropped. Ends at once without Socket Mode.
    pub async fn listen(self: Arc<Self>, backend: Arc<dyn Backend>) {
        socket::listen(self, backend).await;
    }

    /// Whether buttons come by requests to the API.
    pub(crate) const fn has_callback(&self) -> bool {
        self.signing.is_some()
    }

    /// A request of Slack's: its signature, its time, that it comes for the first time, and then what was pressed.
    pub(crate) fn callback(
        self: &Arc<Self>,
        backend: &Arc<dyn Backend>,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<(), &'static str> {
        let key = self.signing.as_ref().ok_or("requests of Slack's aren't taken here")?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let signed = text("x-slack-signature").ok_or("there is no x-slack-signature")?;
        let moment = text("x-slack-request-timestamp").ok_or("there is no x-slack-request-timestamp")?;
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        signature::check(key, moment, signed, body, now)?;
        if !self.seen.lock().is_new(signed) {
            return Err("this came before");
        }
        let interaction = Interaction::of_form(body).ok_or("this can't be read")?;
        tokio::spawn(self.clone().act(backend.clone(), interaction));
        Ok(())
    }

    /// Does what somebody pressed, and tells them if it doesn't count.
    async fn act(self: Arc<Self>, backend: Arc<dyn Backend>, interaction: Interaction) {
        let (user, channel) = (interaction.user.clone(), interaction.channel.clone());
        if let Err(why) = self.done(&*backend, interaction).await {
            tracing::info!(user, why, "what somebody pressed in Slack doesn't count");
            let text = format!("Your answer doesn't count: {why}");
            let told = json!({ "channel": channel.unwrap_or_else(|| self.section.channel.clone()), "user": user,
                "text": text, "blocks": [blocks::section(&text)] });
            if let Err(failure) = self.call("chat.postEphemeral", &self.token, &told).await {
                tracing::warn!(
                    why = failure.why,
                    "somebody in Slack could not be told that their answer doesn't count"
                );
            }
        }
    }

    async fn done(&self, backend: &dyn Backend, interaction: Interaction) -> Result<(), String> {
        let Interaction { team, user, id, act, .. } = interaction;
        if team != self.section.team {
            return Err("it comes from another workspace".into());
        }
        let name = self.section.people.get(&user);
        let name = name.ok_or_else(|| format!("nobody knows who {user} is ([approvals.slack.people])"))?;
        let (allow, reason) = match act {
            Act::Approve => (true, String::new()),
            Act::Deny { reason } => (false, reason),
            Act::AskReason { trigger } => {
                let view = blocks::reason(&id.to_string());
                let opened =
                    self.call("views.open", &self.token, &json!({ "trigger_id": trigger, "view": view })).await;
                return opened.map(|_| ()).map_err(|failure| failure.why);
            }
        };
        let groups = backend.groups(name);
        let asks = |group: &String| {
            let all = backend.questions();
            let asking = all.iter().find(|asking| asking.id == id);
            asking.is_some_and(|it| it.asked.requirements.iter().any(|one| one.groups.contains(group)))
        };
        if !groups.iter().any(asks) {
            return Err("there is no such question that you may answer".into());
        }
        let approver = Approver {
            by: "slack".into(),
            uid: None,
            pid: None,
            issuer: Some(format!("slack:{team}")),
            subject: Some(user),
            address: None,
            groups,
        };
        let answer = Answer { by: name.clone(), allow, reason, scope: Scope::Once, until: 0 };
        let asking = backend.answer(id, answer, approver).await.map_err(|error| error.to_string())?;
        tracing::info!(approval = %id, by = name, allow, state = asking.state.as_str(), "a question was answered in Slack");
        Ok(())
    }

    /// Calls a method of Slack's, and gives what it answers.
    async fn call(&self, method: &str, token: &str, body: &Value) -> Result<Value, Failure> {
        let failure = |why: String| Failure { why: format!("{method}: {why}"), is_final: false, retry_after: None };
        let uri = format!("{}/{method}", self.api.to_string().trim_end_matches('/'));
        let request = Request::post(uri)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(Bytes::from(body.to_string()))
            .map_err(|error| failure(error.to_string()))?;
        let answer = self.fetch.send(request, PATIENCE).await.map_err(failure)?;
        if answer.status != StatusCode::OK {
            let after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Failure { retry_after: after, ..failure(answer.status.to_string()) });
        }
        let said: Value = serde_json::from_slice(&answer.body).map_err(|error| failure(error.to_string()))?;
        if said["ok"] != true {
            let error = said["error"].as_str().unwrap_or("no reason").chars().take(100).collect::<String>();
            return Err(failure(format!("Slack refuses: {error}{}", remedy(&error))));
        }
        Ok(said)
    }

    /// Posts a question, or says at its message what became of it.
    async fn tell(&self, message: &Message) -> Result<String, Failure> {
        let wrong = |why: String| Failure { why, is_final: true, retry_after: None };
        let body: Value = serde_json::from_str(&message.body).map_err(|error| wrong(format!("BUG: {error}")))?;
        let id = message.heading.approval.to_string();
        let (text, blocks) = blocks::question(&body["data"], &message.heading.kind);
        let step = step(&message.heading.kind);
        let before = self.posted.lock().get(&id).cloned();
        let Some(posted) = before else {
            let post = json!({ "channel": self.section.channel, "text": text, "blocks": blocks,
                "unfurl_links": false, "unfurl_media": false });
            let said = self.call("chat.postMessage", &self.token, &post).await?;
            let part = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
            let posted = Posted { channel: part("channel"), ts: part("ts"), at: message.heading.at, step };
            let ts = posted.ts.clone();
            self.keep(id, posted);
            return Ok(format!("posted {ts}"));
        };
        if step < posted.step {
            return Ok(format!("{} says more already", posted.ts));
        }
        let update = json!({ "channel": posted.channel, "ts": posted.ts, "text": text, "blocks": blocks });
        self.call("chat.update", &self.token, &update).await?;
        let told = format!("updated {}", posted.ts);
        self.keep(id, Posted { step, ..posted });
        Ok(told)
    }

    fn keep(&self, id: String, posted: Posted) {
        let mut all = self.posted.lock();
        all.insert(id, posted);
        while all.len() > MOST_POSTED {
            let oldest = all.iter().min_by_key(|(_, posted)| posted.at).map(|(id, _)| id.clone());
            oldest.and_then(|id| all.remove(&id));
        }
        let written = serde_json::to_vec(&*all).map_err(Into::into).and_then(|json| durable(&self.file, &json));
        if let Err(error) = written.map_err(at(&self.file)) {
            tracing::warn!(%error, "after a restart, what becomes of questions is posted to Slack anew");
        }
    }
}

/// What to do about an error of Slack's.
fn remedy(error: &str) -> &'static str {
    match error {
        "account_inactive" | "invalid_auth" | "not_authed" | "token_expired" | "token_revoked" => {
            "; put a valid token into its file and restart the daemon"
        }
        "channel_not_found" | "not_in_channel" => "; invite the app to the channel (approvals.slack.channel)",
        "missing_scope" => "; the app needs the scope chat:write, and connections:write for Socket Mode",
        _ => "",
    }
}

impl Receiver for Arc<Slack> {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn wants(&self, _: &str) -> bool {
        true
    }

    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(self.tell(message))
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}
