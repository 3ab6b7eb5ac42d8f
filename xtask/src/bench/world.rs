//! The stage: private network and mount namespaces, the upstream, the proxies, each in a cgroup of its own.
//!
//! Proxies share one CPU, load and upstream another. Everything runs at a raised priority, so that what else the machine
//! does is felt less. All of it ends with [`World`]: a cgroup is killed as a whole, and the BPF filesystem that the
//! hooks are pinned in is the mount namespace's own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    unistd::Pid,
};

use super::{
    Proxy,
    sign::{self, Body, Credentials, REGION, Signed},
    sink,
};
use crate::{
    place,
    setup::{self, run},
};

/// The name that is asked for everything.
pub(super) const HOST: &str = "bench.s3.eu-west-1.amazonaws.com";
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// With those of the shipped default there are ten: what a team would have.
const POLICIES: &str = r#"permit (principal, action == Action::"s3:PutObject", resource);
forbid (principal, action == Action::"s3:DeleteBucket", resource);
forbid (principal, action, resource) when { context.level == "Write" && context.exe == "/usr/bin/false" };
forbid (principal in Group::"interns", action in Action::"Write", resource);
permit (principal in Group::"developers", action == Action::"dynamodb:PutItem", resource);
permit (principal in Group::"developers", action in Action::"Tagging", resource);
"#;

/// A cgroup of the v2 hierarchy, removed with all that runs in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    realtime: bool,
}

impl Cgroup {
    fn new(path: PathBuf, realtime: bool) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        Ok(Self { path, realtime })
    }

    /// A command that moves into this cgroup and onto this CPU before it becomes `program`, with nothing in its
    /// environment.
    pub(super) fn command(&self, cpu: usize, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("/bin/sh");
        let priority = if self.realtime { "chrt --rr 1" } else { "nice -n -10" };
        command
            .args(["-c", &format!(r#"echo $$ > "$0/cgroup.procs" && exec {priority} taskset -c "$@""#)])
            .arg(&self.path)
            .arg(cpu.to_string())
            .arg(program.as_ref())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/nonexistent");
        command
    }

    /// Microseconds of CPU that everything in it has used, user and system.
    pub(super) fn cpu_us(&self) -> Result<u64> {
        let path = self.path.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
        usage.with_context(|| format!("{} has no usage_usec", path.display()))
    }

    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let path = self.path.join("cgroup.procs");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Resident memory now, and at most since [`Self::forget_peak`], in bytes.
    pub(super) fn resident(&self) -> Result<(u64, u64)> {
        let mut sums = (0, 0);
        for pid in self.processes()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kib = |key: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|rest| rest.trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
            };
            sums.0 += kib("VmRSS:") * 1024;
            sums.1 += kib("VmHWM:") * 1024;
        }
        Ok(sums)
    }

    /// Lets the peak begin anew.
    pub(super) fn forget_peak(&self) -> Result<()> {
        for pid in self.processes()? {
            fs::write(format!("/proc/{pid}/clear_refs"), "5").context("resetting the peak of resident memory")?;
        }
        Ok(())
    }
}

/// Kills everything below a cgroup and removes it.
fn remove_tree(tree: &Path) {
    let _ = fs::write(tree.join("cgroup.kill"), "1");
    // Killed processes leave a moment later; each `rmdir` that is refused yields to them.
    for _ in 0..10_000 {
        let below = fs::read_dir(tree).into_iter().flatten().flatten().filter(|it| it.path().is_dir());
        for folder in below {
            for inner in fs::read_dir(folder.path()).into_iter().flatten().flatten().filter(|it| it.path().is_dir()) {
                let _ = fs::remove_dir(inner.path());
            }
            let _ = fs::remove_dir(folder.path());
        }
        if fs::remove_dir(tree).is_ok() || !tree.exists() {
            return;
        }
        std::thread::yield_now();
    }
}

/// Everything that runs.
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) large_bytes: u64,
    pub(super) load_cpu: usize,
    cgroups: BTreeMap<Proxy, Cgroup>,
    load: Cgroup,
    agent: Option<Agent>,
    daemon: PathBuf,
    tree: PathBuf,
    /// Signs where nothing checks.
    anybody: Credentials,
}

/// An enrolled cgroup; somebody stays in it, so that its session goes on.
struct Agent {
    cgroup: Cgroup,
    credentials: Credentials,
    keeper: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.keeper.kill();
            let _ = agent.keeper.wait();
        }
        remove_tree(&self.tree);
        let _ = nix::mount::umount2(&self.dir.join("www"), nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Builds the daemon; its path.
pub(super) fn build(profile: &str) -> Result<PathBuf> {
    eprintln!("bench: building chaperone (profile {profile})");
    // The lab's is built with the fakes: alone it would be built with other features of what they share, all anew.
    let packages: &[&str] = match profile {
        "lab" => &["--package", "chaperone", "--package", "chaperone-fakes"],
        _ => &["--package", "chaperone"],
    };
    run(place::cargo().args(["build", "--quiet", "--locked", "--profile", profile]).args(packages))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(place::target()?.join(folder).join("chaperone"))
}

impl World {
    /// Moves this process into namespaces of its own and starts everything there.
    pub(super) fn start(daemon: PathBuf, proxies: &[Proxy], large_bytes: u64, realtime: bool) -> Result<Self> {
        let base = place::target()?.join("bench");
        let mitmproxy = base.join("mitmproxy");
        setup::bench(proxies.contains(&Proxy::Mitmproxy).then_some(&mitmproxy))?;
        let (proxy_cpu, load_cpu) = two_cpus()?;
        let dir = base.join(format!("run-{}", std::process::id()));
        for folder in ["www", "journal", "state", "policies", "perf"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("making {}", dir.display()))?;
        }
        let tree = cgroup_tree()?;
        let mut world = Self {
            large_bytes,
            load_cpu,
            cgroups: BTreeMap::new(),
            load: Cgroup::new(tree.join("load"), realtime)?,
            agent: None,
            daemon,
            tree,
            anybody: serde_json::from_str(r#"{"AccessKeyId":"ASIABENCH","SecretAccessKey":"bench","Token":"bench"}"#)?,
            dir,
        };
        world.enter_namespaces()?;
        world.make_certificates()?;
        world.start_upstream()?;
        for proxy in proxies {
            eprintln!("bench: starting {proxy}");
            let cgroup = Cgroup::new(world.tree.join(proxy.to_string()), realtime)?;
            match proxy {
                Proxy::Direct => continue,
                Proxy::Nginx => world.start_nginx(&cgroup, proxy_cpu)?,
                Proxy::Mitmproxy => world.start_mitmproxy(&cgroup, proxy_cpu, &mitmproxy)?,
                Proxy::Chaperone => world.start_chaperone(&cgroup, proxy_cpu)?,
            }
            world.cgroups.insert(*proxy, cgroup);
        }
        Ok(world)
    }

    fn enter_namespaces(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("making namespaces")?;
        let none: Option<&str> = None;
        place::private_mounts()?;
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)
            .context("mounting the BPF filesystem")?;
        // Sparse files here cost no memory, and reading them costs the same each time.
        mount(Some("tmpfs"), &self.dir.join("www"), Some("tmpfs"), MsFlags::empty(), none).context("mounting tmpfs")?;
        let hosts = self.write("hosts", &format!("127.0.0.1 localhost\n{UPSTREAM} {HOST}\n"))?;
        mount(Some(&hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).context("mounting over /etc/hosts")?;
        run(Command::new("ip").args(["link", "set", "lo", "up"]))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn log(&self, name: &str) -> Result<Stdio> {
        let path = self.dir.join(name);
        Ok(File::create(&path).with_context(|| format!("creating {}", path.display()))?.into())
    }

    fn make_certificates(&self) -> Result<()> {
        let extensions = self.write("extensions", &format!("subjectAltName=DNS:{HOST}\n"))?;
        let p256 = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let openssl = |arguments: &[&str]| {
            run(Command::new("openssl")
                .args(arguments)
                .current_dir(&self.dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null()))
        };
        let mut ca = vec!["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=bench"];
        ca.extend(p256);
        openssl(&ca)?;
        let mut request = vec!["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=upstream"];
        request.extend(p256);
        openssl(&request)?;
        let extensions = extensions.to_string_lossy();
        openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "server.crt",
            "-days",
            "2",
            "-extfile",
            &extensions,
        ])?;
        let pem = ["server.key", "server.crt"].map(|name| fs::read_to_string(self.dir.join(name)).unwrap_or_default());
        self.write("server.pem", &pem.concat()).map(|_| ())
    }

    fn start_upstream(&self) -> Result<()> {
        self.write("www/small", &"x".repeat(1024))?;
        for (name, bytes) in [("large", self.large_bytes), ("warm", 64 << 20)] {
            let path = self.dir.join("www").join(name);
            File::create(&path).and_then(|file| file.set_len(bytes)).context("making the large files")?;
        }
        let sink = self.dir.join("sink.sock");
        sink::start(&sink)?;
        let server = format!(
            "root {}/www; listen {UPSTREAM}:443 ssl backlog=4096; open_file_cache max=10;
             add_header x-amz-request-id 79104EXAMPLEB723; add_header x-amz-id-2 IOWQ4fDEXAMPLEQM; etag on;
             location = /small {{ return 200 '{}'; add_header ETag '\"0f343b0931126a20f133d67c2b018a3b\"';
                add_header x-amz-request-id 79104EXAMPLEB723; add_header x-amz-id-2 IOWQ4fDEXAMPLEQM; }}
             location = /up {{ proxy_pass http://unix:{}:/; proxy_http_version 1.1; proxy_request_buffering off; }}",
            self.dir.display(),
            "x".repeat(1024),
            sink.display()
        );
        self.nginx("upstream", "", &server, &self.load, self.load_cpu)
    }

    fn start_nginx(&self, cgroup: &Cgroup, cpu: usize) -> Result<()> {
        let upstream = format!(
            "upstream aws {{ server {HOST}:443; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 600; }}"
        );
        let server = format!(
            "listen {UPSTREAM}:8443 ssl backlog=4096;
             location / {{
                proxy_pass https://aws; proxy_http_version 1.1; proxy_set_header Connection '';
                proxy_set_header Host {HOST}; proxy_request_buffering off; proxy_max_temp_file_size 0;
                proxy_ssl_verify on; proxy_ssl_trusted_certificate {}/ca.crt; proxy_ssl_verify_depth 2;
                proxy_ssl_server_name on; proxy_ssl_name {HOST}; proxy_ssl_protocols TLSv1.2 TLSv1.3;
             }}",
            self.dir.display()
        );
        self.nginx("nginx", &upstream, &server, cgroup, cpu)
    }

    /// Starts nginx with one worker; it returns when it listens.
    fn nginx(&self, name: &str, http: &str, server: &str, cgroup: &Cgroup, cpu: usize) -> Result<()> {
        let dir = self.dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{name}-{kind};\n"))
            .concat();
        let text = format!(
            "user root; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.log warn;
             events {{ worker_connections 4096; }}
             http {{
                access_log off; sendfile on; tcp_nodelay on; client_max_body_size 0; default_type binary/octet-stream;
                keepalive_requests 1000000000; keepalive_timeout 600; {temporary} {http}
                server {{
                    ssl_certificate {dir}/server.crt; ssl_certificate_key {dir}/server.key;
                    ssl_protocols TLSv1.2 TLSv1.3; {server}
                }}
             }}"
        );
        let configuration = self.write(&format!("{name}.conf"), &text)?;
        let mut command = cgroup.command(cpu, "nginx");
        command.arg("-c").arg(configuration).stderr(self.log(&format!("{name}.err"))?);
        run(&mut command).with_context(|| self.tail(&format!("{name}.err")))
    }

    fn start_mitmproxy(&self, cgroup: &Cgroup, cpu: usize, venv: &Path) -> Result<()> {
        let script = self.write("ready.py", "def running():\n    print('ready', flush=True)\n")?;
        let mut command = cgroup.command(cpu, venv.join("bin/mitmdump"));
        command
            .args(["--quiet", "--mode", &format!("reverse:https://{HOST}:443"), "--listen-host"])
            .args([&UPSTREAM.to_string(), "--listen-port", "9443", "--set", "stream_large_bodies=1m"])
            .arg("--set")
            .arg(format!("ssl_verify_upstream_trusted_ca={}/ca.crt", self.dir.display()))
            .arg("--set")
            .arg(format!("confdir={}/mitmproxy", self.dir.display()))
            .arg("--certs")
            .arg(format!("*={}/server.pem", self.dir.display()))
            .arg("-s")
            .arg(script)
            .stdout(Stdio::piped())
            .stderr(self.log("mitmproxy.log")?);
        let mut child = command.spawn().context("starting mitmproxy")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("BUG: mitmproxy has no output")?;
        BufReader::new(stdout).read_line(&mut line).context("reading from mitmproxy")?;
        ensure!(line.trim() == "ready", "mitmproxy didn't start: {}", self.tail("mitmproxy.log"));
        Ok(())
    }

    fn start_chaperone(&mut self, cgroup: &Cgroup, cpu: usize) -> Result<()> {
        let agents = Cgroup::new(self.tree.join("agents"), cgroup.realtime)?;
        let agent = Cgroup::new(agents.path.join("one"), cgroup.realtime)?;
        let name = self.tree.file_name().unwrap_or_default().to_string_lossy();
        let dir = self.dir.display();
        let shipped = Command::new(&self.daemon).args(["policy", "default"]).output().context("starting chaperone")?;
        ensure!(shipped.status.success(), "`chaperone policy default` failed");
        self.write("policies/default.cedar", &String::from_utf8(shipped.stdout)?)?;
        self.write("policies/bench.cedar", POLICIES)?;
        let config = self.write(
            "config.toml",
            &format!(
                "[[agents]]\nname = \"coder\"\ngroups = [\"developers\"]\ncgroups = [\"/{name}/agents/*\"]\n\
                 [paths]\nstate = \"{dir}/state\"\ncontrol = \"{dir}/control.sock\"\nbpffs = \"/sys/fs/bpf/{name}\"\n\
                 [capture]\nlsm = \"optional\"\n[journal]\ndir = \"{dir}/journal\"\n[policy]\npath = \"{dir}/policies\"\n\
                 [upstream]\nca_file = \"{dir}/ca.crt\"\n[aws]\nregion = \"{REGION}\"\naccount = \"123456789012\"\n"
            ),
        )?;
        let ready = UnixDatagram::bind(self.dir.join("ready.sock")).context("listening for the daemon's readiness")?;
        ready.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut command = cgroup.command(cpu, &self.daemon);
        command
            .args(["daemon", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", self.dir.join("ready.sock"))
            .env("AWS_ACCESS_KEY_ID", "AKIAREALREALREALREAL")
            .env("AWS_SECRET_ACCESS_KEY", "only the daemon has it")
            .stderr(self.log("daemon.log")?)
            .spawn()
            .context("starting the daemon")?;
        // Before, it asks for its listeners to be kept.
        let mut message = [0; 256];
        while !message.starts_with(b"READY=1") {
            message.fill(0);
            ready.recv(&mut message).with_context(|| self.tail("daemon.log"))?;
        }
        // It stays until the end; its session with it.
        let keeper = agent.command(self.load_cpu, "sleep").arg("infinity").spawn().context("starting sleep")?;
        let credentials = self.placeholder(&agent)?;
        self.agent = Some(Agent { cgroup: agent, credentials, keeper });
        Ok(())
    }

    /// The session's placeholder key, as every SDK gets it.
    fn placeholder(&self, agent: &Cgroup) -> Result<Credentials> {
        let metadata = "http://169.254.169.254/latest";
        let ask = |arguments: &[&str]| -> Result<String> {
            let mut command = agent.command(self.load_cpu, "curl");
            let output = command.args(["-sSf", "-m", "10"]).args(arguments).output().context("starting curl")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "metadata: {said}{}", self.tail("daemon.log"));
            Ok(String::from_utf8(output.stdout)?)
        };
        let life = "X-aws-ec2-metadata-token-ttl-seconds: 600";
        let token = ask(&["-X", "PUT", "-H", life, &format!("{metadata}/api/token")])?;
        let token = format!("X-aws-ec2-metadata-token: {token}");
        let roles = format!("{metadata}/meta-data/iam/security-credentials/");
        let role = ask(&["-H", &token, &roles])?;
        serde_json::from_str(&ask(&["-H", &token, &format!("{roles}{role}")])?).context("parsing the credentials")
    }

    /// A request as an agent behind `proxy` would send it.
    pub(super) fn signed(&self, proxy: Proxy, method: &'static str, path: &'static str) -> Result<Signed> {
        let credentials = self.credentials(proxy);
        sign::sign(credentials, method, HOST, path, if method == "PUT" { Body::Unsigned } else { Body::Empty })
    }

    /// An upload of so many zeroes in signed chunks: its head, the file with its body, and that file's size.
    pub(super) fn chunked(&self, proxy: Proxy, bytes: u64) -> Result<(Signed, PathBuf, u64)> {
        let credentials = self.credentials(proxy);
        let signed = sign::sign(credentials, "PUT", HOST, "/up", Body::Chunks(bytes))?;
        let path = self.dir.join("chunked");
        let size = sign::write_chunks(&signed, bytes, &path)?;
        Ok((signed, path, size))
    }

    fn credentials(&self, proxy: Proxy) -> &Credentials {
        match (&self.agent, proxy) {
            (Some(agent), Proxy::Chaperone) => &agent.credentials,
            _ => &self.anybody,
        }
    }

    /// A command of the load's.
    pub(super) fn client(&self, proxy: Proxy, program: &str) -> Command {
        let cgroup = match (&self.agent, proxy) {
            (Some(agent), Proxy::Chaperone) => &agent.cgroup,
            _ => &self.load,
        };
        cgroup.command(self.load_cpu, program)
    }

    /// Where `proxy` listens. Chaperone is behind the upstream's own address.
    pub(super) fn url(proxy: Proxy, path: &str) -> String {
        let port = match proxy {
            Proxy::Direct | Proxy::Chaperone => 443,
            Proxy::Nginx => 8443,
            Proxy::Mitmproxy => 9443,
        };
        format!("https://{HOST}:{port}{path}")
    }

    /// The CA that a client of `proxy` trusts.
    pub(super) fn ca(&self, proxy: Proxy) -> PathBuf {
        self.dir.join(if proxy == Proxy::Chaperone { "state/ca/ca.crt" } else { "ca.crt" })
    }

    pub(super) fn cgroup(&self, proxy: Proxy) -> Option<&Cgroup> {
        self.cgroups.get(&proxy)
    }

    /// How many records are durable in the daemon's journal.
    pub(super) fn records(&self) -> Result<u64> {
        let output = self
            .load
            .command(self.load_cpu, &self.daemon)
            .args(["status", "--json", "--config"])
            .arg(self.dir.join("config.toml"))
            .output()
            .context("starting chaperone")?;
        let status: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("parsing the daemon's status")?;
        status.pointer("/journal/committed").and_then(serde_json::Value::as_u64).context("the journal's state")
    }

    /// Makes room: what was recorded so far is of no use to anybody. The two newest segments are in use.
    pub(super) fn forget_journal(&self) -> Result<()> {
        let entries = fs::read_dir(self.dir.join("journal")).context("listing the journal")?;
        let mut segments: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .collect();
        segments.sort();
        for path in segments.iter().rev().skip(2) {
            fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether all went well to the end.
    pub(super) fn finish(self) -> Result<()> {
        for (proxy, cgroup) in &self.cgroups {
            if cgroup.processes()?.is_empty() {
                bail!("{proxy} died: {}", self.tail("daemon.log"));
            }
        }
        Ok(())
    }

    pub(super) fn tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{name}: {}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

/// A CPU for the proxies and one for everything else. This process goes to the second.
fn two_cpus() -> Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for this process's CPUs")?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).take(2).collect();
    let [proxy, load] = cpus[..] else {
        bail!("the bench needs two CPUs: one for the proxy, one for load and upstream");
    };
    let mut set = CpuSet::new();
    set.set(load)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("moving to one CPU")?;
    Ok((proxy, load))
}

/// This run's part of the cgroup tree; what a killed run left behind is removed.
fn cgroup_tree() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let line = mounts.lines().rev().find(|line| line.contains(" - cgroup2 "));
    let root = line.and_then(|line| line.split(' ').nth(4)).context("cgroup v2 is not mounted")?;
    for entry in fs::read_dir(root).context("listing cgroups")?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("bench-"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path());
        }
    }
    Ok(Path::new(root).join(format!("bench-{}", std::process::id())))
}
