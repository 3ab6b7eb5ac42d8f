//! `cargo xtask demo`: the main job, shown with real clients, and each claim checked.

mod people;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use self::people::People;
use crate::{clients, dashboards, lab, place, setup, warehouse};

/// Arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub struct Options {
    /// Leave the lab running, to look around in.
    #[arg(long)]
    keep: bool,
    /// Add a real coding agent, which does the same by its shell tool. Its model is played by a script on loopback.
    #[arg(long, value_enum, value_name = "NAME")]
    agent: Option<Agent>,
    /// At the end, fill ClickHouse with a month of 50 agents that nobody saw (the tenant `generated`) beside the demo's own
    /// sessions, and answer the questions of docs/queries.md.
    #[arg(long)]
    dashboards: bool,
    /// … and after it serve Superset's dashboards over such a month, until it is interrupted. 1.5 GB, the first time.
    #[arg(long, requires = "dashboards")]
    superset: bool,
}

/// A coding agent that the demo can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Agent {
    /// opencode, from npm.
    Opencode,
}

/// How long ClickHouse may be behind the journal.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it. An error says what was expected and is missing.
pub fn run(options: &Options) -> Result<()> {
    let root = place::root();
    let began = Instant::now();
    section("Setting up");
    let target = place::target()?;
    place::room(&target, if target.join("lab/deps").exists() { 1 } else { 6 }, "building the demo")?;
    place::room(&std::env::temp_dir(), 1, "the demo's lab")?;
    let opencode = set_up(options, &target)?;
    let temporary = std::env::temp_dir().join(format!("chaperone-demo-{}", std::process::id()));
    let policies = temporary.with_extension("policies");
    fs::create_dir_all(&policies).context("making a folder for the policies")?;
    fs::write(policies.join("default.cedar"), lab::config::DEFAULT_POLICY).context("writing the default policy")?;
    fs::copy(root.join("xtask/demo/policy.cedar"), policies.join("demo.cedar")).context("copying the policy")?;
    let provider = temporary.with_extension("provider");
    let started = People::prepare(provider.clone()).and_then(|people| {
        let kept = options.keep.then_some(temporary);
        let lab = lab::Options::demo(policies.clone(), people.config(), people.files(), kept);
        Ok((lab::Running::start(&lab)?, people))
    });
    for folder in [policies, provider].iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let (running, people) = started?;
    println!("moto and s3s-fs as AWS, ClickHouse and the daemon run in namespaces of their own.");
    let demo = Demo { dir: running.lab.dir.clone(), began, kept: options.keep, opencode };
    let shown = demo.show(&root, &people).and_then(|()| if options.dashboards { demo.dashboards() } else { Ok(()) });
    if !options.keep {
        running.lab.down(false)?;
    }
    shown.and_then(|()| if options.superset { dashboards::serve() } else { Ok(()) })
}

/// Makes the machine ready. Where nothing is built yet, npm and the coding agent come over the network while the compiler
/// has the processors.
fn set_up(options: &Options, target: &Path) -> Result<Option<PathBuf>> {
    let opencode = || options.agent.map(|Agent::Opencode| setup::opencode()).transpose();
    if target.join("lab/chaperone").exists() {
        return opencode();
    }
    std::thread::scope(|scope| {
        let fetched = scope.spawn(|| {
            clients::oidc_provider()?;
            opencode()
        });
        let built = setup::lab();
        let fetched = fetched.join().unwrap_or_else(|_| anyhow::bail!("BUG: the set-up of npm panicked"));
        built.and(fetched)
    })
}

struct Demo {
    dir: PathBuf,
    began: Instant,
    kept: bool,
    /// The coding agent's program, if it takes part.
    opencode: Option<PathBuf>,
}

impl Demo {
    fn show(&self, root: &Path, people: &People) -> Result<()> {
        section("An agent with AWS CLI v1: STS and S3");
        self.agent(&["sh", &file(root, "cli-v1.sh")])?;
        section("An agent with AWS CLI v2: DynamoDB and EC2");
        self.agent(&["sh", &file(root, "cli-v2.sh")])?;
        section("An agent with boto3: EC2, S3, and a secret that it must not read");
        let said = self.agent(&["python3", &file(root, "agent.py")])?;
        ensure!(
            said.contains("AccessDenied") && said.contains("default-no-secrets"),
            "the agent should have been told AccessDenied by the policy default-no-secrets, and was told:\n{said}"
        );
        ensure!(!said.contains("battery staple"), "the agent read the secret");

        if let Some(program) = &self.opencode {
            section("A coding agent: opencode, by its shell tool");
            self.opencode(root, program)?;
        }

        section("An agent of Alice's, who logs in: Bob is asked before things are destroyed, and a budget is used up");
        self.people(root, people)?;

        let calls = self.journal()?;
        self.shipped(&calls)?;
        section("Sessions, from ClickHouse");
        self.print(
            "SELECT agent, groups, cgroup, calls, denied, request_bytes AS sent, response_bytes AS got, \
                    dateDiff('millisecond', started, ended) AS ms FROM sessions ORDER BY started",
        )?;
        section("Who they are by their tokens, from ClickHouse");
        self.print(
            "SELECT id AS session, agent, issuer, subject, identity_groups AS groups, sponsor, identity_expires AS until \
             FROM sessions WHERE subject != '' ORDER BY started",
        )?;
        let identity = self.query(
            "SELECT subject, arrayStringConcat(identity_groups, ' '), sponsor FROM sessions WHERE subject != ''",
        )?;
        ensure!(
            identity.trim() == "alice\tcorp:builders\talice@example.com",
            "one session should be alice's, of the group corp:builders, and it is: {identity}"
        );
        section("Calls, from ClickHouse");
        self.print("SELECT formatDateTime(started, '%H:%i:%S.%f') AS at, agent, pid, \
                    arrayStringConcat(arrayMap(a -> replaceRegexpOne(a, '^.*/', ''), arraySlice(argv, 1, 4)), ' ') AS process, \
                    arrayStringConcat(actions, ' ') AS action, arrayStringConcat(resources, ' ') AS resource, \
                    decision, status, round(duration_us / 1000, 1) AS ms, \
                    request_bytes AS sent, response_bytes AS got FROM calls FINAL ORDER BY calls.started")?;
        if self.opencode.is_some() {
            section("What the coding agent ran, and what that called, from ClickHouse");
            self.print(
                "SELECT arrayStringConcat(arrayMap(a -> replaceRegexpOne(a, '^/.*/', ''), argv), ' ') AS command, pid, \
                        arrayStringConcat(groupArray(concat(actions[1], ' → ', toString(decision), ' ', toString(status))), ', ') AS calls \
                 FROM (SELECT * FROM calls FINAL WHERE session IN (SELECT id FROM sessions WHERE cgroup LIKE '%opencode%') \
                 ORDER BY started) GROUP BY argv, pid ORDER BY min(started)",
            )?;
        }
        section("What the agents executed, and what each command called, from ClickHouse");
        self.print(
            "SELECT formatDateTime(m.started, '%H:%i:%S.%f') AS at, m.pid AS pid, m.parent_pid AS parent, \
                    multiIf(m.ending = 'code', toString(m.code), m.ending = 'signal', concat('signal ', toString(m.code)), \
                            ifNull(m.ending, '-')) AS exit, \
                    substring(replaceRegexpAll(arrayStringConcat(arrayMap(a -> replaceRegexpOne(a, '^/.*/', ''), m.argv), ' '), \
                              '\\\\s+', ' '), 1, 70) AS command, \
                    substring(ifNull(m.exe_sha256, ''), 1, 8) AS sha256, c.calls AS calls \
             FROM commands AS m JOIN (SELECT command, arrayStringConcat(groupArray(actions[1]), ' ') AS calls \
                  FROM (SELECT * FROM calls FINAL ORDER BY started) GROUP BY command) AS c ON c.command = m.id \
             ORDER BY m.started",
        )?;
        section("One exchange, whole");
        self.exchange(&calls)?;
        section("Verification");
        let verified = self.operator(&["chaperone", "verify"])?;
        print!("{verified}");
        let verified: Value = serde_json::from_str(&self.operator(&["chaperone", "verify", "--json"])?)
            .context("reading what `chaperone verify --json` says")?;
        ensure!(verified["clean"] == true, "the journal doesn't verify: {verified}");
        let breaks = self.query("SELECT count() FROM chain_breaks")?;
        ensure!(breaks.trim() == "0", "ClickHouse finds {} breaks in the chain", breaks.trim());
        println!("ClickHouse checks the same chain by itself: 0 breaks");

        section("Checked");
        self.check(&calls)?;
        println!("\nAll of it was there, after {} s.", self.began.elapsed().as_secs());
        if self.kept {
            let dir = self.dir.display();
            println!(
                "\nThe lab goes on. Look around:\n  cargo xtask lab exec {dir} -- chaperone calls\n  cargo xtask lab agent \
                 {dir} -- aws s3 ls --region eu-west-1\n  cargo xtask lab exec {dir} -- chaperone tail\n  cargo xtask lab \
                 down {dir}"
            );
        }
        Ok(())
    }

    /// A month that was made up, and what the questions answer on it.
    fn dashboards(&self) -> Result<()> {
        section("A month of 50 agents, made up: the tenant `generated`");
        let (url, database) = self.clickhouse()?;
        let address = url.trim_start_matches("http://");
        let program = std::env::current_exe().context("finding this program")?;
        let mut fill = vec![program.to_str().context("this program's path isn't UTF-8")?];
        fill.extend(warehouse::Options::month(address, &database));
        print!("{}", self.operator(&fill)?);
        for (asked, sql) in warehouse::questions()? {
            section(&asked);
            self.print(&sql)?;
        }
        let tenants = self.query("SELECT tenant, count() FROM calls GROUP BY tenant ORDER BY tenant FORMAT TSV")?;
        let rows: Vec<_> = tenants.lines().filter_map(|line| line.split_once('\t')).collect();
        ensure!(
            rows.iter().any(|(tenant, count)| *tenant == "generated" && *count == "300000") && rows.len() == 2,
            "beside the demo's own calls there should be 300000 generated ones, and there are: {tenants}"
        );
        println!(
            "\nThe same in Grafana: dashboards/grafana, with this ClickHouse ({url}, database {database}) as its source."
        );
        if self.kept {
            println!(
                "It goes on with the lab, in the lab's namespaces: `cargo xtask lab exec {} -- …`",
                self.dir.display()
            );
        }
        Ok(())
    }

    /// The agent's own loop, shell tool and processes are real; what its model says is in `opencode.sh`.
    fn opencode(&self, root: &Path, program: &Path) -> Result<()> {
        let mut model = own(&["lab", "exec"])?
            .arg(&self.dir)
            .args(["--", "python3", &file(root, "model.py"), &file(root, "opencode.sh")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the model's stand-in")?;
        let mut port = String::new();
        let said = model.stdout.take().context("BUG: the model's stand-in has no stdout")?;
        BufReader::new(said).read_line(&mut port).context("reading the port of the model's stand-in")?;
        let config = serde_json::json!({
            "autoupdate": false,
            "share": "disabled",
            "permission": { "bash": "allow" },
            "model": "scripted/scripted",
            "small_model": "scripted/scripted",
            "provider": { "scripted": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "a script",
                "options": { "baseURL": format!("http://127.0.0.1:{}/v1", port.trim()), "apiKey": "none" },
                "models": { "scripted": { "name": "scripted" } },
            } },
        });
        let path = self.dir.join("opencode.json");
        fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        let environment = [
            format!("--env=OPENCODE_CONFIG={}", path.display()),
            "--env=OPENCODE_DISABLE_AUTOUPDATE=1".to_owned(),
            "--env=OPENCODE_DISABLE_MODELS_FETCH=1".to_owned(),
        ];
        let options: Vec<&str> =
            ["--name", "opencode"].into_iter().chain(environment.iter().map(String::as_str)).collect();
        let program = program.to_string_lossy();
        let said = self.agent_with(&options, &[&program, "run", "Look after the orders and the notes on AWS."]);
        drop(model.stdin.take()); // ends it
        model.wait().context("waiting for the model's stand-in to end")?;
        let said = said?;
        ensure!(said.contains("remember the milk"), "the coding agent did not get its note back:\n{said}");
        ensure!(said.contains("AccessDenied"), "the coding agent should have been denied the secret:\n{said}");
        ensure!(!said.contains("battery staple"), "the coding agent read the secret");
        Ok(())
    }

    /// Runs a client as an agent and passes on what it says.
    fn agent(&self, command: &[&str]) -> Result<String> {
        self.agent_with(&[], command)
    }

    fn agent_with(&self, options: &[&str], command: &[&str]) -> Result<String> {
        let mut child = own(&["lab", "agent"])?;
        child.args(options);
        // Its files stay in its home.
        let script = "cd && exec \"$0\" \"$@\" 2>&1";
        child.arg(&self.dir).args(["--", "sh", "-c", script]).args(command);
        let output = child.stdin(Stdio::null()).output().context("running an agent")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{said}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the agent failed ({}); what it said is above", output.status);
        Ok(said)
    }

    fn operator(&self, command: &[&str]) -> Result<String> {
        let mut child = own(&["lab", "exec"])?;
        child.arg(&self.dir).arg("--").args(command);
        let output = child.stdin(Stdio::null()).output().with_context(|| format!("running {}", command.join(" ")))?;
        ensure!(
            output.status.success(),
            "`{}` ended with {}: {}{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn query(&self, sql: &str) -> Result<String> {
        let script = place::root().join("xtask/python/query.py");
        let (url, database) = self.clickhouse()?;
        self.operator(&["python3", &script.to_string_lossy(), &url, &database, sql])
    }

    /// Where ClickHouse is, and the database.
    fn clickhouse(&self) -> Result<(String, String)> {
        let path = self.dir.join("clickhouse.json");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let address: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let part = |name: &str| address[name].as_str().unwrap_or_default().to_owned();
        Ok((part("url"), part("database")))
    }

    fn print(&self, sql: &str) -> Result<()> {
        print!("{}", self.query(&format!("{sql} FORMAT PrettyCompactNoEscapes SETTINGS output_format_pretty_single_large_number_tip_threshold = 0, output_format_pretty_max_value_width = 200"))?);
        Ok(())
    }

    /// Every call, as the journal has it.
    fn journal(&self) -> Result<Vec<Value>> {
        self.operator(&["chaperone", "calls", "--json"])?
            .lines()
            .map(|line| serde_json::from_str(line).context("reading `chaperone calls --json`"))
            .collect()
    }

    /// Waits until ClickHouse has what the journal has, and says if it has something else.
    fn shipped(&self, calls: &[Value]) -> Result<()> {
        let sum = |name: &str| calls.iter().filter_map(|call| call[name].as_u64()).sum::<u64>();
        let wanted = format!("{}\t{}\t{}", calls.len(), sum("request_bytes"), sum("response_bytes"));
        let sql = "SELECT count(), sum(request_bytes), sum(response_bytes) FROM calls FINAL";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.query(sql);
            match found {
                Ok(found) if found.trim() == wanted => return Ok(()),
                found if Instant::now() > deadline => {
                    let found = found.unwrap_or_else(|error| format!("{error:#}"));
                    anyhow::bail!("calls, bytes sent, bytes got: the journal has {wanted}, ClickHouse {}", found.trim())
                }
                // Asking takes a tenth of a second by itself.
                _ => {}
            }
        }
    }

    fn exchange(&self, calls: &[Value]) -> Result<()> {
        let call = calls.iter().find(|call| call["operation"] == "GetItem").context("no GetItem was recorded")?;
        let id = call["id"].as_str().context("a call without an id")?;
        print!("{}", self.query(&format!("SELECT * FROM calls FINAL WHERE id = '{id}' FORMAT PrettyJSONEachRow"))?);
        let bodies = self.query(&format!(
            "SELECT p.direction AS direction, arrayStringConcat(groupArray(c.data)) AS body \
             FROM (SELECT * FROM body_parts FINAL WHERE call = '{id}' ORDER BY direction, offset) AS p \
             JOIN (SELECT sha256, data FROM body_chunks FINAL) AS c ON c.sha256 = p.sha256 \
             GROUP BY direction ORDER BY direction FORMAT JSONEachRow"
        ))?;
        print!("{bodies}");
        ensure!(
            bodies.contains("request") && bodies.contains("tea"),
            "ClickHouse should have both bodies of call {id}, and has: {bodies}"
        );
        println!("\nThe same from the journal, with the heads (`chaperone show {id}`):\n");
        print!("{}", self.operator(&["chaperone", "show", id])?);
        Ok(())
    }

    fn check(&self, calls: &[Value]) -> Result<()> {
        let path = self.dir.join("upstream.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let upstream: Vec<Value> =
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("reading upstream.jsonl")?;
        let key = fs::read_to_string(self.dir.join("secrets/key")).context("reading the lab's key")?;
        let key = key.lines().next().unwrap_or_default();
        for line in &upstream {
            ensure!(line["access_key_id"] == key, "the fake AWS got a request that the real key did not sign: {line}");
        }
        println!("✓ all {} requests that AWS got were signed by the real key", upstream.len());

        let denied: Vec<_> = calls.iter().filter(|call| call["decision"] == "deny").collect();
        let mut wanted = vec!["DeleteTable", "GetSecretValue", "RunInstances"];
        wanted.extend(self.opencode.is_some().then_some("GetSecretValue")); // the coding agent's
        wanted.sort_unstable();
        let agents = 4 + usize::from(self.opencode.is_some());
        let mut operations: Vec<_> = denied.iter().map(|call| call["operation"].as_str().unwrap_or_default()).collect();
        operations.sort_unstable();
        ensure!(operations == wanted, "{wanted:?} should have been denied, and these were: {denied:?}");
        let deleted = calls.iter().find(|call| call["operation"] == "DeleteObject").context("nothing was deleted")?;
        let message = deleted["message"].as_str().unwrap_or_default();
        ensure!(message.contains("approved by bob"), "the record should say that bob approved: {deleted}");
        println!("✓ one call went out because bob approved it, after the agent had waited; its record says so");
        let hosts = |rows: &mut dyn Iterator<Item = &Value>| {
            let mut count = BTreeMap::<String, usize>::new();
            rows.for_each(|row| *count.entry(row["host"].as_str().unwrap_or_default().to_owned()).or_default() += 1);
            count
        };
        let allowed = hosts(&mut calls.iter().filter(|call| call["decision"] == "allow"));
        let arrived = hosts(&mut upstream.iter());
        ensure!(allowed == arrived, "allowed calls by host are {allowed:?}, but AWS got {arrived:?}");
        println!("✓ AWS got the {} calls that were allowed, and nothing of what was denied", upstream.len());

        let services: BTreeSet<_> = calls.iter().filter_map(|call| call["service"].as_str()).collect();
        for service in ["dynamodb", "ec2", "s3", "secretsmanager", "sts"] {
            ensure!(services.contains(service), "no call to {service} was recorded, only to {services:?}");
        }
        let sessions: BTreeSet<_> = calls.iter().filter_map(|call| call["session"].as_str()).collect();
        ensure!(sessions.len() == agents, "{agents} agents should have made as many sessions, not {}", sessions.len());
        println!(
            "✓ {} calls to {} services in {} sessions, each in ClickHouse once",
            calls.len(),
            services.len(),
            sessions.len()
        );

        for name in ["id", "session", "agent", "account", "region", "request_sha256", "response_sha256", "started"] {
            let without = calls.iter().find(|call| call[name].is_null() && call["decision"] == "allow");
            ensure!(without.is_none(), "a call has no {name}: {without:?}");
        }
        for program in ["bin/aws", "/usr/bin/aws", "agent.py"] {
            let by = |call: &&Value| {
                call["argv"].as_array().is_some_and(|argv| {
                    argv.iter().any(|word| word.as_str().is_some_and(|word| word.ends_with(program)))
                })
            };
            ensure!(calls.iter().any(|call| by(&call)), "no call is recorded of the process {program}");
        }
        println!("✓ every call has its agent, process, account, region and both bodies' digests");
        Ok(())
    }
}

/// This program again.
fn own(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(arguments);
    Ok(command)
}

fn file(root: &Path, name: &str) -> String {
    root.join("xtask/demo").join(name).display().to_string()
}

fn section(title: &str) {
    println!("\n== {title} ==");
}
