//! Where approvers are asked besides the command line: what of it is in files is read before anything is changed, and it
//! is served on the runtime of the console, so that it delays no call.

use std::{path::Path, sync::Arc};

use chaperone_approvals::{
    Api, Backend, Messages, Slack,
    messages::{Receiver, Webhook},
};
use chaperone_proxy::DataPlane;

use super::Desk;
use crate::config::{Config, ConfigError};

/// Them, not yet served.
pub struct Surfaces {
    api: Option<Api>,
    receivers: Vec<Box<dyn Receiver>>,
    slack: Option<Arc<Slack>>,
}

impl Surfaces {
    /// Those of a configuration. Reads certificates and secrets; what is wrong with one is told with its place.
    pub fn prepare(config: &Config) -> Result<Self, ConfigError> {
        let section = &config.approvals;
        let api = section.api.as_ref().map(Api::new).transpose();
        let api = api.map_err(|error| config.wrong(&format!("approvals.api.{}", error.key), &error.why))?;
        let mut receivers: Vec<Box<dyn Receiver>> = Vec::new();
        for webhook in &section.webhooks {
            let made = Webhook::new(webhook.clone());
            let made = made.map_err(|why| config.wrong("approvals.webhooks", format!("`{}`: {why}", webhook.name)))?;
            receivers.push(Box::new(made));
        }
        let slack = section.slack.clone().map(|slack| Slack::new(slack, &folder(&config.paths.state))).transpose();
        let slack = slack.map_err(|why| config.wrong("approvals.slack", why))?;
        receivers.extend(slack.clone().map(|slack| Box::new(slack) as Box<dyn Receiver>));
        Ok(Self { api, receivers, slack })
    }

    /// Serves them until the daemon ends.
    pub async fn serve(self, config: &Config, shared: &Arc<DataPlane>) -> anyhow::Result<Arc<Messages>> {
        let desk: Arc<dyn Backend> = Arc::new(Desk(shared.clone()));
        let messages = Messages::open(&folder(&config.paths.state), self.receivers, desk.clone());
        let messages = messages.map_err(|error| ConfigError(format!("keeping messages about questions: {error}")))?;
        tokio::spawn(messages.clone().run());
        if let Some(slack) = &self.slack {
            tokio::spawn(slack.clone().listen(desk.clone()));
        }
        if let Some(api) = self.api {
            let served = api.serve(desk, self.slack).await;
            let (serving, address) =
                served.map_err(|error| config.wrong(&format!("approvals.api.{}", error.key), &error.why))?;
            tracing::info!(%address, url = config.approvals.api.as_ref().map(|api| &api.url), "approvers are served");
            tokio::spawn(serving);
        }
        Ok(messages)
    }
}

fn folder(state: &Path) -> std::path::PathBuf {
    state.join("approval-messages")
}
