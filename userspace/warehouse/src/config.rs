//! Where the warehouse is, and what is wrong with what is said of that.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{WarehouseError, kept};

/// Rows that are deleted earlier than this are hardly evidence of anything.
pub(crate) const SHORTEST_DAYS: u32 = 30;
/// Longer than any law asks for; ClickHouse's DateTime ends in 2106.
const LONGEST_DAYS: u32 = 25_000;
/// So many servers nobody has; each is asked in turn when the others fail.
const MOST_ADDRESSES: usize = 16;

/// Where the warehouse is.
#[derive(Clone, Debug)]
pub struct WarehouseConfig {
    /// `http://` or `https://` addresses of ClickHouse's HTTP interface, in the order in which they are tried: of one
    /// server, or of the replicas of one set.
    pub urls: Vec<String>,
    /// The database; made if it isn't there.
    pub database: String,
    /// The user; ClickHouse's default one if not set.
    pub user: Option<String>,
    /// A file that holds the user's password, and maybe a line end.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate (PEM, with those between it and the server's CA) to show.
    pub client_cert_file: Option<PathBuf>,
    /// Its key (PEM), readable by its owner alone.
    pub client_key_file: Option<PathBuf>,
    /// The cluster, as the servers' configuration names it, on whose replicas the tables are made.
    pub cluster: Option<String>,
    /// How tables keep their rows, by the tables' names; those that aren't named are left as they are.
    pub tables: BTreeMap<String, TableSettings>,
    /// Whose rows these are, where several share a database.
    pub tenant: String,
    /// This machine's name.
    pub node: String,
}

/// How a table keeps its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableSettings {
    /// Rows are deleted after so many days; 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_days: Option<u32>,
    /// The storage policy, as the servers' configuration names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_policy: Option<String>,
}

impl WarehouseConfig {
    /// A ClickHouse at `url`, with everything else as usual.
    pub fn new(url: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            database: "chaperone".into(),
            user: None,
            password_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            cluster: None,
            tables: BTreeMap::new(),
            tenant: String::new(),
            node: node.into(),
        }
    }

    /// Whether records may get to ClickHouse by another server than the one that took the last ones.
    pub(crate) fn has_several(&self) -> bool {
        self.urls.len() > 1 || self.cluster.is_some()
    }

    /// Whether all of it makes sense, as far as that goes without reading a file.
    pub(crate) fn check(&self) -> Result<(), WarehouseError> {
        let wrong = |setting: &str, why: String| Err(WarehouseError::Config { setting: setting.to_owned(), why });
        if !is_name(&self.database) {
            return wrong("database", format!("`{}` is not made of letters, digits and underscores", self.database));
        }
        if self.urls.is_empty() || self.urls.len() > MOST_ADDRESSES {
            return wrong("url", format!("{} addresses: give 1 to {MOST_ADDRESSES}", self.urls.len()));
        }
        for (index, url) in self.urls.iter().enumerate() {
            let setting = if index == 0 { "url" } else { "urls" };
            if url.contains('@') {
                let why = "it holds a user name or password, which would get into logs: use `user` and `password_file`";
                return wrong(setting, why.into());
            }
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return wrong(setting, format!("`{url}` must begin with http:// or https://"));
            }
            if self.urls.iter().take(index).any(|other| other == url) {
                return wrong(setting, format!("`{url}` is there twice"));
            }
            let of_tls = [
                ("ca_file", &self.ca_file),
                ("client_cert_file", &self.client_cert_file),
                ("client_key_file", &self.client_key_file),
            ];
            if let Some((name, _)) = of_tls.iter().find(|(_, file)| file.is_some())
                && url.starts_with("http://")
            {
                return wrong(name, format!("`{url}` is plain http, which no certificate protects: use https"));
            }
        }
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), None) => return wrong("client_key_file", "client_cert_file needs it".into()),
            (None, Some(_)) => return wrong("client_cert_file", "client_key_file needs it".into()),
            _ => {}
        }
        if let Some(cluster) = &self.cluster
            && !is_plain(cluster)
        {
            return wrong("cluster", format!("`{cluster}` is not made of letters, digits, `_`, `-` and `.`"));
        }
        for (table, settings) in &self.tables {
            check_table(table, settings)?;
        }
        Ok(())
    }
}

fn check_table(table: &str, settings: &TableSettings) -> Result<(), WarehouseError> {
    let wrong = |key: &str, why: String| Err(WarehouseError::Config { setting: format!("tables.{table}{key}"), why });
    if kept::time_column(table).is_none() {
        let names: Vec<_> = kept::KEPT.iter().map(|(name, _)| *name).collect();
        return wrong("", format!("there is no such table to be set: those are {}", names.join(", ")));
    }
    if let Some(days) = settings.ttl_days
        && days != 0
        && !(SHORTEST_DAYS..=LONGEST_DAYS).contains(&days)
    {
        let why = format!("{days} days: give {SHORTEST_DAYS} to {LONGEST_DAYS}, or 0 to keep rows for ever");
        return wrong(".ttl_days", why);
    }
    if let Some(policy) = &settings.storage_policy
        && !is_plain(policy)
    {
        return wrong(".storage_policy", format!("`{policy}` is not made of letters, digits, `_`, `-` and `.`"));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether it can stand between quotes in a statement.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let good = WarehouseConfig::new("http://127.0.0.1:8123", "host");
        let safe = WarehouseConfig::new("https://127.0.0.1:8443", "host");
        assert!(good.check().is_ok() && safe.check().is_ok());
        let error = |config: WarehouseConfig| config.check().err().map(|error| error.to_string()).unwrap_or_default();
        let of = |urls: &[&str]| {
            error(WarehouseConfig { urls: urls.iter().map(|&url| url.to_owned()).collect(), ..good.clone() })
        };
        assert!(of(&["127.0.0.1"]).contains("`url`"));
        assert!(of(&[]).contains("`url`"));
        assert!(of(&["http://a:1", "b:2"]).contains("`urls`"));
        assert!(of(&["http://a:1", "http://a:1"]).contains("twice"));
        assert!(of(&["http://a:1"; 17]).contains("17 addresses"));
        let secret = of(&["http://user:secret@127.0.0.1:8123"]);
        assert!(secret.contains("`url`") && !secret.contains("secret@"));
        assert!(error(WarehouseConfig { database: "a;b".into(), ..good.clone() }).contains("`database`"));
        for name in ["a'b", "", "a b", "c;"] {
            assert!(error(WarehouseConfig { cluster: Some(name.into()), ..good.clone() }).contains("`cluster`"));
        }
        let file = Some(PathBuf::from("/x"));
        assert!(error(WarehouseConfig { ca_file: file.clone(), ..good.clone() }).contains("plain http"));
        assert!(error(WarehouseConfig { client_cert_file: file.clone(), ..good.clone() }).contains("plain http"));
        let mixed = vec!["https://a".into(), "http://b".into()];
        assert!(error(WarehouseConfig { ca_file: file.clone(), urls: mixed, ..good.clone() }).contains("`http://b`"));
        assert!(
            error(WarehouseConfig { client_cert_file: file.clone(), ..safe.clone() }).contains("`client_key_file`")
        );
        assert!(error(WarehouseConfig { client_key_file: file, ..safe }).contains("`client_cert_file`"));
        let table = |name: &str, ttl_days, storage_policy: Option<&str>| {
            let storage_policy = storage_policy.map(str::to_owned);
            let tables = BTreeMap::from([(name.to_owned(), TableSettings { ttl_days, storage_policy })]);
            error(WarehouseConfig { tables, ..good.clone() })
        };
        for days in [None, Some(0), Some(30), Some(400), Some(25_000)] {
            assert_eq!(table("calls", days, Some("cold-1")), "");
        }
        for days in [1, 29, 25_001, u32::MAX] {
            assert!(table("ledger", Some(days), None).contains("`tables.ledger.ttl_days`"));
        }
        assert!(table("calls", None, Some("a' ")).contains("`tables.calls.storage_policy`"));
        for name in ["call", "shipped", "schema_migrations", "sessions"] {
            assert!(table(name, Some(100), None).contains(&format!("`tables.{name}`")), "{name}");
        }
    }
}
