//! The part of the demo with people in it: one logs in, and is the sponsor of an agent's session; another approves.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Demo, PATIENCE, file, own};
use crate::{clients, setup};

/// Where the provider is, in the lab's own network.
const PORT: &str = "8449";
/// The approver: a user of the lab, who is neither root nor the person that logs in.
const BOB: u32 = 4001;
/// How long the agent waits before Bob looks: as people take their time.
const THINKING: Duration = Duration::from_secs(4);

/// What has to be in place before the lab is started.
pub struct People {
    /// The provider's program.
    program: PathBuf,
    /// A folder with its certificate, and the daemon's configuration that believes it.
    folder: PathBuf,
}

impl People {
    /// Installs the provider, and makes its certificate in this new folder.
    pub fn prepare(folder: PathBuf) -> Result<Self> {
        let program = clients::oidc_provider()?.join("provider.mjs");
        let python = setup::lab_python()?;
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let script = crate::place::root().join("tests/system/scripts/provider_certificate.py");
        setup::run(std::process::Command::new(python).arg(script).arg(&folder))?;
        let config = format!(
            "[[identity.issuers]]\nname = \"corp\"\nissuer = \"https://127.0.0.1:{PORT}\"\nca_file = \
             \"${{LAB}}/authority.crt\"\nclient_id = \"chaperone-cli\"\naudiences = [\"chaperone-cli\"]\nscopes = \
             [\"offline_access\"]\ngroups = \"groups\"\nsponsor = \"email\"\n\n[approvals]\ninterim = \
             1\n[approvals.groups]\noperations = [\"bob\"]\n\n[[budgets]]\nname = \"instances\"\ncount = \
             \"calls\"\nactions = [\"ec2:RunInstances\"]\nlimit = 1\nwindow = 86400\n"
        );
        let path = folder.join("people.toml");
        fs::write(&path, config).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { program, folder })
    }

    /// The daemon's configuration, to be laid over the lab's.
    pub fn config(&self) -> PathBuf {
        self.folder.join("people.toml")
    }

    /// What is to lie in the lab's folder.
    pub fn files(&self) -> Vec<PathBuf> {
        ["authority.crt", "provider.crt", "provider.key"].map(|name| self.folder.join(name)).to_vec()
    }
}

/// The provider, which runs in the lab for as long as this is there.
struct Provider {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Provider {
    fn start(demo: &Demo, program: &Path) -> Result<Self> {
        let at = |name: &str| demo.dir.join(name).display().to_string();
        let mut child = own(&["lab", "exec"])?
            .arg(&demo.dir)
            .args(["--", "node", &program.display().to_string(), PORT, &at("provider.crt"), &at("provider.key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It warns that it is one for tests.
            .stderr(Stdio::null())
            .spawn()
            .context("starting the OpenID provider")?;
        let said = BufReader::new(child.stdout.take().context("BUG: the provider has no stdout")?);
        let mut provider = Self { child, said };
        provider.act(&json!(["start", ["one"]]))?;
        Ok(provider)
    }

    /// Has it do something, and gives what came of it.
    fn act(&mut self, what: &Value) -> Result<Value> {
        let input = self.child.stdin.as_mut().context("BUG: the provider has no stdin")?;
        writeln!(input, "{what}").context("talking to the OpenID provider")?;
        // The library talks, too.
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            let read = self.said.read_line(&mut line).context("listening to the OpenID provider")?;
            ensure!(read != 0, "the OpenID provider ended; it was told {what}");
        }
        let answer: Value = serde_json::from_str(&line).context("reading what the OpenID provider says")?;
        ensure!(answer.get("failed").is_none(), "the OpenID provider was told {what}, and failed: {answer}");
        Ok(answer["ok"].clone())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // ends it
        let _ = self.child.wait();
    }
}

impl Demo {
    /// Alice logs in and starts an agent, which destroys things; Bob is asked.
    pub(super) fn people(&self, root: &Path, people: &People) -> Result<()> {
        let mut provider = Provider::start(self, &people.program)?;
        // The lab's own /etc. The daemon asks it who has connected.
        self.operator(&["sh", "-c", &format!("echo 'bob:x:{BOB}:{BOB}:Bob:/:/bin/sh' >> /etc/passwd")])?;
        let script = file(root, "clean-up.sh");
        let mut agent = own(&["lab", "exec"])?
            .arg(&self.dir)
            .args(["--", "sh", "-c", "exec chaperone run --login -- sh \"$0\" 2>&1", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the agent of the person who logs in")?;
        let mut said = BufReader::new(agent.stdout.take().context("BUG: the agent has no stdout")?);
        let shown = self.answers(&mut provider, &mut said);
        if shown.is_err() {
            let _ = agent.kill();
        }
        let status = agent.wait().context("waiting for the agent to end")?;
        let said = shown?;
        ensure!(status.success(), "the agent failed ({status}); what it said is above");
        for wanted in ["delete: s3://demo-reports/", "bob denied it: the orders are not counted yet", "is used up"] {
            ensure!(said.contains(wanted), "the agent should have been told `{wanted}`, and was told:\n{said}");
        }
        Ok(())
    }

    /// What people do while the agent runs; gives what the agent said.
    fn answers(&self, provider: &mut Provider, said: &mut BufReader<ChildStdout>) -> Result<String> {
        let line = line_with(said, "enter the code")?;
        let after = |word: &str| {
            let rest = line.split_once(word).and_then(|(_, rest)| rest.split(' ').next());
            rest.map(str::to_owned).with_context(|| format!("`{word}` and what is after it are not in: {line}"))
        };
        let (url, code) = (after("open ")?, after("enter the code ")?);
        let page = provider.act(&json!(["enter", url, code, "alice"]))?;
        ensure!(page["status"] == 200, "alice could not log in: {page}");
        println!("(Alice does so in her browser, which a script plays.)");
        line_with(said, "is logged in")?;
        thread::scope(|scope| {
            let listening = scope.spawn(|| {
                let mut all = String::new();
                let mut begins = 0;
                while said.read_line(&mut all).context("reading what the agent says")? != 0 {
                    print!("{}", &all[begins..]);
                    begins = all.len();
                }
                Ok(all)
            });
            let answered = self
                .answer_as_bob(&["approve"])
                .and_then(|()| self.answer_as_bob(&["deny", "--reason", "the orders are not counted yet"]));
            // A call that nobody answers would be waited for.
            if answered.is_err() {
                let _ = self.operator(&["chaperone", "stop", "coder", "--kill", "--reason", "the demo failed"]);
            }
            let all = listening.join().unwrap_or_else(|_| bail!("BUG: listening to the agent panicked"));
            answered.and(all)
        })
    }

    /// Waits for a question, lets the agent wait a while, and answers.
    fn answer_as_bob(&self, answer: &[&str]) -> Result<()> {
        let began = Instant::now();
        let waited = |asked: u64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(Duration::from_millis(asked))
        };
        let (question, asked) = loop {
            // Asking takes a tenth of a second by itself.
            let all = self.operator(&["chaperone", "approvals", "list", "--json"])?;
            let first = all.lines().next().map(serde_json::from_str::<Value>).transpose();
            if let Some(question) = first.context("reading `chaperone approvals list --json`")? {
                let asked = question["at"].as_u64().context("a question without a time")?;
                if waited(asked) > THINKING {
                    break (question, asked);
                }
            }
            ensure!(began.elapsed() < PATIENCE, "no call waits for approval");
        };
        let id = question["id"].as_str().context("a question without an id")?;
        println!("bob$ chaperone approvals list");
        print!("{}", self.as_bob(&["list"])?);
        let [verb, reason @ ..] = answer else { bail!("BUG: no answer") };
        let shown: Vec<String> = reason
            .iter()
            .map(|word| if word.contains(' ') { format!(" '{word}'") } else { format!(" {word}") })
            .collect();
        println!("bob$ chaperone approvals {verb} {id}{}", shown.concat());
        print!("{}", self.as_bob(&[&[*verb, id], reason].concat())?);
        println!("(The agent has waited {:.1} s.)", waited(asked).as_secs_f64());
        Ok(())
    }

    /// `chaperone approvals …` by Bob. He may not be allowed into the folder where the program is.
    fn as_bob(&self, command: &[&str]) -> Result<String> {
        let script = format!(
            "exec 3<\"$(command -v chaperone)\"; exec setpriv --reuid {BOB} --regid {BOB} --clear-groups \
             /proc/self/fd/3 approvals \"$@\""
        );
        self.operator(&[&["sh", "-c", &script, "sh"], command].concat())
    }
}

/// Shows what is said until a line has this in it, and gives that line.
fn line_with(said: &mut BufReader<ChildStdout>, wanted: &str) -> Result<String> {
    loop {
        let mut line = String::new();
        let read = said.read_line(&mut line).context("reading what the agent says")?;
        ensure!(read != 0, "the agent ended before it said `{wanted}`; what it said is above");
        print!("{line}");
        if line.contains(wanted) {
            return Ok(line);
        }
    }
}
