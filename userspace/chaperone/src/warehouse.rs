//! `chaperone warehouse`: what ClickHouse has to be told, how it is, and its schema.

use std::{io::Write as _, path::Path, path::PathBuf, process::ExitCode};

use chaperone_warehouse::{TableState, Warehouse, WarehouseConfig, WarehouseError};
use serde::Serialize;

use crate::{
    ask, cli,
    commands::blocking_on,
    config::{Config, ConfigError},
    output::{clean, json_line, size, table},
};

/// Runs it.
pub fn run(config: &Path, what: &cli::Warehouse, json: bool) -> anyhow::Result<ExitCode> {
    match what {
        cli::Warehouse::Migrate { user, password_file } => {
            migrate(config, user.as_deref(), password_file.as_ref(), json)
        }
        cli::Warehouse::Roles { format, database, tenant, group } => {
            ask::roles(*format, database, tenant.as_ref(), group.as_ref())
        }
        cli::Warehouse::Status => status(config, json),
    }
}

/// How an address is.
#[derive(Serialize)]
struct Address {
    url: String,
    version: Option<String>,
    error: Option<String>,
}

/// How all of it is.
#[derive(Serialize)]
struct Status {
    addresses: Vec<Address>,
    schema_version: Option<u32>,
    known_schema_version: u32,
    tables: Vec<TableState>,
    /// What isn't as the configuration says.
    amiss: Vec<String>,
}

fn configured(config: &Config) -> Result<Warehouse, ConfigError> {
    config.warehouse()?.ok_or_else(|| ConfigError(format!("{}: it has no [warehouse]", config.path().display())))
}

fn migrate(config: &Path, user: Option<&str>, password_file: Option<&PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let mut settings = configured(&config)?.config().clone();
    if let Some(user) = user {
        settings.user = Some(user.to_owned());
        settings.password_file = password_file.cloned();
    }
    let warehouse = Warehouse::new(settings)?;
    let version = blocking_on(async {
        warehouse.reach().await?;
        warehouse.prepare().await?;
        warehouse.schema_version().await
    })??;
    let version = version.0.unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if json {
        json_line(&mut out, &serde_json::json!({ "address": warehouse.address(), "schema_version": version }))?;
    } else {
        let (address, database) = (warehouse.address(), &warehouse.config().database);
        writeln!(out, "{}: the schema of `{database}` is at version {version}", clean(address))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status = look(&configured(&Config::read(config)?)?)?;
    let mut out = std::io::stdout().lock();
    if json {
        json_line(&mut out, &status)?;
    } else {
        for address in &status.addresses {
            let is = match (&address.version, &address.error) {
                (Some(version), _) => format!("version {version}"),
                (_, error) => error.clone().unwrap_or_default(),
            };
            writeln!(out, "{}: {}", clean(&address.url), clean(&is))?;
        }
        let version = status.schema_version.map_or("none".to_owned(), |version| version.to_string());
        writeln!(out, "schema: version {version}; this program's is {}", status.known_schema_version)?;
        let cells: Vec<_> = status.tables.iter().map(cells).collect();
        if !cells.is_empty() {
            writeln!(out)?;
            table(&mut out, &["TABLE", "ROWS", "ON DISK", "DELETED AFTER", "STORAGE POLICY"], &cells)?;
        }
        // What is wrong with an address stands beside it.
        let told: Vec<_> = status.addresses.iter().filter_map(|address| address.error.as_ref()).collect();
        for amiss in status.amiss.iter().filter(|amiss| !told.contains(amiss)) {
            writeln!(out, "{}", clean(amiss))?;
        }
    }
    Ok(if status.amiss.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In one line, for `doctor`.
pub fn summary(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(warehouse) = config.warehouse()? else { return Ok(None) };
    let status = look(&warehouse)?;
    if status.amiss.is_empty() {
        let of: Vec<_> =
            status.addresses.iter().map(|it| format!("{} {}", it.url, it.version.as_deref().unwrap_or(""))).collect();
        return Ok(Some(format!("{}, schema version {}", of.join(", "), status.known_schema_version)));
    }
    anyhow::bail!("{}", status.amiss.join("; "))
}

fn look(warehouse: &Warehouse) -> anyhow::Result<Status> {
    blocking_on(async {
        let mut status = Status {
            addresses: Vec::new(),
            schema_version: None,
            known_schema_version: 0,
            tables: Vec::new(),
            amiss: Vec::new(),
        };
        let mut seen = None;
        for url in &warehouse.config().urls {
            let one = Warehouse::new(WarehouseConfig { urls: vec![url.clone()], ..warehouse.config().clone() });
            let asked = async {
                let one = one?;
                let version = one.ping().await?;
                Ok::<_, WarehouseError>((version, one))
            };
            let (version, error) = match asked.await {
                Ok((version, one)) => {
                    seen.get_or_insert(one);
                    (Some(version), None)
                }
                Err(error) => (None, Some(error.to_string())),
            };
            status.amiss.extend(error.clone());
            status.addresses.push(Address { url: url.clone(), version, error });
        }
        if let Some(one) = seen
            && let Err(error) = look_inside(&one, &mut status).await
        {
            status.amiss.push(error.to_string());
        }
        status
    })
}

async fn look_inside(warehouse: &Warehouse, status: &mut Status) -> Result<(), WarehouseError> {
    (status.schema_version, status.known_schema_version) = warehouse.schema_version().await?;
    if status.schema_version != Some(status.known_schema_version) {
        let (found, known) = (status.schema_version.unwrap_or(0), status.known_schema_version);
        let what = format!("the schema is at version {found}, and this program's is {known}");
        status.amiss.push(format!("{what}: the daemon, or `chaperone warehouse migrate`, brings it up to date"));
    }
    status.tables = warehouse.tables().await?;
    for (name, wanted) in &warehouse.config().tables {
        let Some(now) = status.tables.iter().find(|table| table.table == *name) else { continue };
        if let Some(days) = wanted.ttl_days
            && (now.other_ttl || days != now.ttl_days.unwrap_or(0))
        {
            status
                .amiss
                .push(format!("warehouse.tables.{name}.ttl_days is {days}, and ClickHouse's is {}", after(now)));
        }
        if let Some(policy) = &wanted.storage_policy
            && *policy != now.storage_policy
        {
            let now = &now.storage_policy;
            status.amiss.push(format!("warehouse.tables.{name}.storage_policy is {policy}, and ClickHouse's is {now}"));
        }
    }
    Ok(())
}

fn after(table: &TableState) -> String {
    match table.ttl_days {
        _ if table.other_ttl => "a TTL of somebody's own".to_owned(),
        Some(days) => format!("{days} days"),
        None => "never".to_owned(),
    }
}

fn cells(table: &TableState) -> Vec<String> {
    vec![table.table.clone(), table.rows.to_string(), size(table.bytes), after(table), table.storage_policy.clone()]
}
