//! The daemon: puts the rooms together in the right order, and takes them apart again.

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::AtomicUsize,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use chaperone_authority::CertificateAuthority;
use chaperone_aws::{Catalog, CredentialSource, NoTextMember, Sts, https_client};
use chaperone_capture::{
    Adopted, Capture, CaptureConfig, CommandEvent, Commands, FdStore, ListenPorts, Listeners, cgroup_id, cgroup_root,
    keep_no_longer,
};
use chaperone_console::{
    Actor, ControlRequest, ControlResponse, control, serve_approvals, serve_control, serve_metrics, serve_registrars,
};
use chaperone_identity::Sessions;
use chaperone_journal::Journal;
use chaperone_model::{AccessLevel, DaemonStarted, DaemonStopped, Event, NetnsCookie, SessionEnded};
use chaperone_policy::{ActionCatalog, NoSuchMember};
use chaperone_proxy::{
    ApprovalDesk, BudgetDesk, Components, CredentialBroker, DataPlane, Generation, Identities, Settings, Stops,
    Upstream, roots,
};
use chaperone_warehouse::{Shipper, ShipperOptions};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    approvals,
    config::{Config, ConfigError},
    console::Console,
    enrolment, in_force, pending_cgroups, placeholders, sandbox,
};

/// IAM's actions, as the policies ask for them.
pub struct KnownActions;

impl KnownActions {
    pub fn all() -> &'static BTreeMap<String, AccessLevel> {
        static ALL: OnceLock<BTreeMap<String, AccessLevel>> = OnceLock::new();
        ALL.get_or_init(|| Catalog::global().actions())
    }
}

impl ActionCatalog for KnownActions {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        Self::all().get(action).copied()
    }

    fn has_prefix(&self, prefix: &str) -> bool {
        let from = format!("{prefix}:");
        Self::all().range(from.clone()..).next().is_some_and(|(name, _)| name.starts_with(&from))
    }

    fn actions(&self) -> Vec<(String, AccessLevel)> {
        Self::all().iter().map(|(name, level)| (name.clone(), *level)).collect()
    }

    fn meant(&self, name: &str) -> Option<String> {
        // The name of an operation, where IAM calls it another one: s3:ListObjectsV2 needs s3:ListBucket.
        let (service, operation) = name.split_once(':')?;
        let needs = Catalog::global().actions_of(service, operation);
        (!needs.is_empty()).then(|| needs.join(" and "))
    }

    fn text_member(&self, action: &str, path: &str) -> Result<Vec<(String, String)>, NoSuchMember> {
        match Catalog::global().text_member(action, path) {
            Ok(found) => Ok(found.into_iter().map(|(service, name)| (service.to_owned(), name.to_owned())).collect()),
            Err(NoTextMember::Action) if self.level(action).is_some() => {
                Err(NoSuchMember::Unfit("is of no operation that is known".to_owned()))
            }
            Err(NoTextMember::Action) => Err(NoSuchMember::Action),
            Err(NoTextMember::Unfit(why)) => Err(NoSuchMember::Unfit(why)),
            Err(NoTextMember::Unknown(segment, known)) => {
                Err(NoSuchMember::Unknown { segment, known: known.into_iter().map(str::to_owned).collect() })
            }
        }
    }
}

/// Runs until told to stop. Everything that can be wrong with the configuration is found before anything is changed.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let mut enrolled = false;
    let ended = serve(path, &mut enrolled);
    if ended.is_err() && !enrolled {
        in_force::hold(path);
    }
    ended
}

/// … `enrolled` tells when the hooks know the agents: whatever goes wrong from there on, they are refused.
fn serve(path: &Path, enrolled: &mut bool) -> anyhow::Result<ExitCode> {
    // From here on they are this process's alone: if it can't start, agents are refused, and wait for nothing.
    let kept = FdStore::take().context("taking over what the service manager kept")?;
    let config = Config::read(path)?;
    sandbox::require_root()?;
    sandbox::keep_secrets_out_of_dumps()?;
    let cgroups = cgroup_root().map_err(|error| ConfigError(error.to_string()))?;
    let policies = config.policy.read()?;
    for warning in &policies.warnings {
        tracing::warn!(%warning, "policy");
    }
    approvals::check_groups(&policies, &config)?;
    let surfaces = approvals::Surfaces::prepare(&config)?;
    let agents = config.agents()?;
    config.bound_users()?;
    let proxies = config.captured_proxies()?;
    enrolment::check(&config, &agents)?;
    let authority = Arc::new(
        CertificateAuthority::open_or_create(&config.ca(), &config.domains())
            .map_err(|error| ConfigError(error.to_string()))?,
    );
    authority.check(&config.domains()).map_err(|error| ConfigError(error.to_string()))?;
    let placeholders = placeholders::open_or_create(&config.paths.state)?;
    let roots = roots(config.upstream.ca_file.as_deref(), authority.certificate())
        .map_err(|error| ConfigError(error.to_string()))?;

    let http_proxy = config.upstream.http_proxy().map_err(ConfigError)?;
    let warehouse = config.warehouse()?;

    let (journal, recovered) = Journal::open(config.journal()).map_err(|error| ConfigError(error.to_string()))?;
    tracing::info!(
        journal = %recovered.journal,
        torn = ?recovered.torn,
        interrupted = recovered.interrupted.len(),
        direct_io = recovered.direct_io,
        "the journal is open"
    );
    let capture = CaptureConfig {
        bpffs: config.paths.bpffs.clone(),
        cgroup_root: Some(cgroups.clone()),
        lsm: config.capture.lsm.into(),
        mask: Arc::new(config.mask()?),
    };
    let mut capture = Capture::attach(&capture).map_err(|error| ConfigError(error.to_string()))?;
    for (hook, reason) in capture.missing_hooks() {
        tracing::warn!(
            hook,
            reason,
            "not attached: agents can have packet and vsock sockets (`socket_create`), use connections that are handed to \
             them (`socket_sendmsg`), or have TUN devices (`device`)"
        );
    }
    // Before the self-test: a daemon that is started again when too many cgroups are enrolled is in one of those that are
    // refused on suspicion.
    exempt_self(&capture)?;
    // Nothing listens yet: if the hooks don't do what they should, agents are refused.
    enrolment::enroll(&capture, &config, &agents)?;
    *enrolled = true;
    in_force::replace_hooks_elsewhere(&config)?;
    in_force::remember(&config, &agents)?;
    self_test(&capture)?;
    let (home, others) = listen(&capture, kept, &config)?;
    let commands = capture.take_commands();
    let held = capture.take_held();

    let calls = Builder::new_multi_thread()
        .worker_threads(match config.proxy.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        })
        .thread_name("calls")
        .enable_all()
        .build()
        .context("starting the runtime for calls")?;
    // Shipping, console and metrics have a thread of their own, so that none of them ever delays a call.
    let control = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the runtime for the console")?;

    let credentials =
        calls.block_on(CredentialSource::default_chain(config.aws.account.as_deref(), &config.aws.region));
    let sts = Sts {
        region: config.aws.region.clone(),
        http: https_client(roots.pem())
            .map_err(|why| ConfigError(format!("the certificates to verify STS by: {why}")))?,
        endpoint: None,
    };
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let policy_version = policies.digest.clone();
    let shared = DataPlane::new(Components {
        authority: authority.clone(),
        generation: Generation::first(
            policies,
            CredentialBroker::new(config.rules(), credentials, Some(sts)),
            settings(&config),
        ),
        journal: journal.clone(),
        sessions: Sessions::new(&cgroups, agents).context("watching cgroups")?,
        containers: config.containers.containers(),
        identities: Identities::new(config.identities()?).map_err(|error| config.wrong("identity.issuers", error))?,
        approvals: ApprovalDesk::open(
            &config.paths.state.join("approvals"),
            config.approvals.settings(),
            journal.clone(),
        )
        .map_err(|error| ConfigError(error.to_string()))?,
        budgets: BudgetDesk::open(
            &config.paths.state.join("budgets.json"),
            config.budgets(),
            journal.clone(),
            &config.journal.dir,
        )
        .map_err(|error| ConfigError(error.to_string()))?,
        stops: Stops::open(&config.paths.state.join("stops.json"), &placeholders.1)
            .map_err(|error| ConfigError(error.to_string()))?,
        placeholders,
        upstream: Upstream::new(&roots, config.limits.clone()).by_proxy(http_proxy),
        proxies,
        origins: capture.origins(),
        limits: config.limits.clone(),
        cgroup_root: cgroups,
        host: host.clone(),
    });
    let started = Event::DaemonStarted(DaemonStarted {
        at: OffsetDateTime::now_utc(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host,
        policy_version,
    });
    calls.block_on(async {
        journal.append(&started, true).await.context("recording the start")?;
        // Their processes may live on; what they do from now on is in sessions of its own.
        for session in &recovered.sessions {
            let why = "the daemon that watched it stopped without an end".to_owned();
            let ended = Event::SessionEnded(SessionEnded { id: session.id, at: OffsetDateTime::now_utc(), why });
            journal.append(&ended, false).await.context("recording the end of a session")?;
        }
        anyhow::Ok(())
    })?;

    let shipper = warehouse.map(|warehouse| {
        Shipper::new(warehouse, ShipperOptions::default(), journal.dir(), journal.id(), journal.subscribe())
    });
    control.block_on(async { capture.forward_log() })?;
    let capture = Arc::new(capture);
    let messages = control.block_on(surfaces.serve(&config, &shared))?;
    let console = Arc::new(Console {
        capture: capture.clone(),
        shared: shared.clone(),
        config: Mutex::new(config.clone()),
        path: path.to_owned(),
        authority,
        counters: capture.counters(),
        started: OffsetDateTime::now_utc(),
        grants: AtomicUsize::new(0),
        shipping: shipper.as_ref().map(Shipper::status),
        messages,
    });
    let (stop_shipping, shipping_stops) = oneshot::channel::<()>();
    let shipping = control.block_on(async {
        tokio::spawn(serve_control(&config.paths.control, console.clone())?);
        tokio::spawn(serve_approvals(&config.paths.approvals, Arc::new(approvals::Desk(shared.clone())))?);
        let desk = approvals::Desk(shared.clone());
        let may = move |peer| desk.may_register(peer);
        tokio::spawn(serve_registrars(&config.paths.registrations, console.clone(), may)?);
        if let Some(address) = config.metrics.listen {
            tokio::spawn(serve_metrics(address, console.clone()).await?);
        }
        let stops = async {
            // An error is the sender's end, which is as good as its word.
            let _ = shipping_stops.await;
        };
        anyhow::Ok(shipper.map(|shipper| tokio::spawn(shipper.run(stops))))
    })?;

    calls.block_on(async {
        // If this daemon dies, the next one has them, too.
        others.iter().chain([&home]).for_each(keep);
        // From READY on, whoever manages the service sends signals.
        let signals = Signals::listen()?;
        // Agents are captured, and wait: for credentials, too, which take their time before the host has a network. The host
        // doesn't wait. Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        prefetch_credentials(&shared).await;
        let Listeners { v4, v6, .. } = home;
        let mut accepting = JoinSet::new();
        for listener in std::iter::once(v4).chain(v6) {
            let listener = TcpListener::from_std(listener).context("taking over a listener")?;
            accepting.spawn(shared.clone().accept(listener));
        }
        tokio::spawn(shared.clone().watch_sessions());
        tokio::spawn(shared.clone().watch_tokens());
        if let Some(appearing) = held {
            pending_cgroups::decide(appearing, capture.clone(), shared.clone())?;
        }
        let (unread, commands_unread) = oneshot::channel();
        if let Some(commands) = commands {
            let (namespaces, opened) = mpsc::unbounded_channel();
            for listeners in others {
                // It is received by the task below.
                let _ = namespaces.send(listeners);
            }
            let commands = read_commands(commands, capture.clone(), namespaces, unread)?;
            tokio::spawn(serve_namespaces(shared.clone(), capture.clone(), opened));
            let capture = capture.clone();
            tokio::spawn(shared.clone().record_commands(commands, move |lost| {
                if let Err(error) = capture.commands_lost_recorded(lost) {
                    tracing::error!(%error, "the next daemon will tell of the same lost commands again");
                }
            }));
        }
        tokio::spawn(enroll_what_was_left_out(console.clone()));
        let questions = shared.approvals.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                questions.tick().await;
            }
        });
        let budgets = shared.budgets.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(2));
            loop {
                tick.tick().await;
                let budgets = budgets.clone();
                if let Ok(Err(error)) = tokio::task::spawn_blocking(move || budgets.keep()).await {
                    tracing::error!(%error, "after a crash the record is read from where it could be kept last");
                }
            }
        });
        let (ticking, hooks) = (shared.clone(), capture.clone());
        tokio::spawn(async move {
            let (mut tick, mut told) = (tokio::time::interval(Duration::from_secs(5)), None);
            loop {
                tick.tick().await;
                ticking.tick();
                tell_of_hooks(&hooks, &mut told);
            }
        });
        let broken = tokio::select! {
            () = signals.wait_for_the_end(&console) => None,
            Ok(error) = commands_unread => Some(error),
            // Agents are refused without it; the next daemon has another.
            Some(_) = accepting.join_next() => Some(anyhow::anyhow!("a listener of the daemon's own was destroyed")),
        };
        tracing::info!("stopping: no new connections, waiting for calls under way");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        shared.drain().await;
        let stopped = Event::DaemonStopped(DaemonStopped { at: OffsetDateTime::now_utc() });
        journal.append(&stopped, true).await.context("recording the end")?;
        journal.close().await.context("closing the journal")?;
        match broken {
            // Nothing that agents do goes on unrecorded: they wait until the service manager starts the daemon anew.
            Some(error) => Err(error.context("agents' commands can't be recorded any more: the daemon ended")),
            None => Ok(()),
        }
    })?;
    // What isn't shipped now is shipped after the next start.
    drop(stop_shipping);
    if let Some(shipping) = shipping
        && let Err(error) = control.block_on(shipping)
    {
        tracing::error!(%error, "BUG: the shipper panicked");
    }
    control.shutdown_timeout(Duration::from_secs(1));
    calls.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// No agent is redirected by hooks that were not seen to work.
fn self_test(capture: &Capture) -> anyhow::Result<()> {
    let failed: Vec<_> = capture
        .self_test()
        .map_err(|error| ConfigError(format!("{:#}", anyhow::Error::from(error))))?
        .into_iter()
        .filter_map(|check| check.result.err().map(|found| format!("not so: {}: {found}", check.what)))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(ConfigError(format!("the self-test of the kernel hooks failed; {}", failed.join("; "))).into())
}

/// Takes over the listeners of the daemon before, with the connections that wait there, or opens them: from here on agents
/// are redirected. Those of the daemon's own network namespace, and of others.
fn listen(capture: &Capture, kept: FdStore, config: &Config) -> anyhow::Result<(Listeners, Vec<Listeners>)> {
    let [v4, v6] = config.proxy.ports;
    let ports = ListenPorts { v4, v6 };
    let Adopted { home, others, closed } = capture.adopt(kept, ports)?;
    for why in closed {
        tracing::warn!(why, "a socket that the service manager kept is closed");
    }
    let home = match home {
        Some(home) => {
            tracing::info!(others = others.len(), "took over the listeners of the daemon before");
            home
        }
        None => capture.listen(ports)?,
    };
    Ok((home, others))
}

fn keep(listeners: &Listeners) {
    if let Err(error) = listeners.keep() {
        tracing::warn!(
            %error,
            netns = listeners.netns.0,
            "the service manager can't be told to keep a listener: while this daemon is replaced by the next, agents are \
             refused there"
        );
    }
}

pub fn exempt_self(capture: &Capture) -> anyhow::Result<()> {
    let own = sandbox::own_cgroup()?;
    // Exempting the root would exempt everything that isn't enrolled, bound users too.
    if own != "/" {
        capture.exempt(cgroup_id(capture.cgroup_root().join(own.trim_start_matches('/')))?)?;
    }
    Ok(())
}

/// Cgroups that there was no room to enrol are enrolled once others are gone. Until then they are refused, and so is what
/// appeared after them.
async fn enroll_what_was_left_out(console: Arc<Console>) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        match console.capture.is_full() {
            Ok(false) => continue,
            Ok(true) => tracing::warn!(
                "too many cgroups are enrolled: what appears now reaches nothing that is guarded; end sessions, or name \
                 fewer cgroups by rules"
            ),
            Err(error) => tracing::error!(%error, "asking the hooks for room"),
        }
        let console = console.clone();
        let enrolled = tokio::task::spawn_blocking(move || {
            let config = console.config.lock().clone();
            enrolment::enroll(&console.capture, &config, &config.agents()?)
        });
        match enrolled.await {
            Ok(Ok(())) => tracing::info!("there is room for all cgroups that the rules name again"),
            Ok(Err(error)) => tracing::warn!("no room for all cgroups that the rules name: {error:#}"),
            Err(error) => tracing::error!(%error, "BUG: enrolling panicked"),
        }
    }
}

/// Says when something becomes wrong with the hooks, or right again.
fn tell_of_hooks(capture: &Capture, told: &mut Option<String>) {
    let trouble = capture.trouble();
    if trouble == *told {
        return;
    }
    if let Some(trouble) = &trouble {
        tracing::error!(trouble, "the kernel hooks are not as they were attached");
    } else {
        tracing::info!("the kernel hooks are in force again");
    }
    *told = trouble;
}

/// How many commands may wait for the journal, before they wait in the hooks' buffer, and are lost when that is full.
const COMMANDS_WAITING: usize = 1024;

/// How often commands are looked for whose end the hooks missed without counting it.
const LOOK_FOR_GONE: Duration = Duration::from_mins(1);

/// How often it is told at most that there is no listener in a namespace.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// How many network namespaces may wait for listeners.
const NAMESPACES_WAITING: usize = 1024;

/// Commands are read in a thread of its own, which waits for nothing of the agents'. It hears first of the namespaces that
/// their processes are in, where a connection waits for a listener.
fn read_commands(
    mut commands: Commands,
    capture: Arc<Capture>,
    namespaces: mpsc::UnboundedSender<Listeners>,
    unread: oneshot::Sender<anyhow::Error>,
) -> anyhow::Result<mpsc::Receiver<CommandEvent>> {
    let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
    let inhabited = listen_in_namespaces(capture.clone(), namespaces)?;
    let mut read = move || -> anyhow::Result<()> {
        let mut look_at = Instant::now() + LOOK_FOR_GONE;
        while !sender.is_closed() {
            let mut events = commands.read().context("reading agents' commands")?;
            if events.iter().any(|event| matches!(event, CommandEvent::Missed(_))) {
                look_at = Instant::now();
            }
            if events.is_empty() && Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_FOR_GONE;
                events = capture.commands_gone().context("looking for commands that are gone")?;
            }
            if events.is_empty() {
                commands.wait(Duration::from_secs(1)).context("waiting for agents' commands")?;
            }
            for event in events {
                if let CommandEvent::Namespace { pid } = event {
                    // With so many before it, it isn't waited for: whoever connects is told of again.
                    if let Err(TrySendError::Disconnected(_)) = inhabited.try_send(pid) {
                        anyhow::bail!("BUG: the thread that listens in namespaces ended");
                    }
                } else if sender.blocking_send(event).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let run = move || {
        if let Err(error) = read() {
            tracing::error!(error = format!("{error:#}"), "agents' commands can't be recorded any more: stopping");
            // Nobody waits for it when the daemon stops by itself.
            drop(unread.send(error));
        }
    };
    std::thread::Builder::new().name("commands".to_owned()).spawn(run).context("starting the commands' thread")?;
    Ok(receiver)
}

/// Opens the listeners in the network namespaces of these processes, in a thread of its own.
fn listen_in_namespaces(
    capture: Arc<Capture>,
    namespaces: mpsc::UnboundedSender<Listeners>,
) -> anyhow::Result<SyncSender<u32>> {
    let (sender, inhabited) = sync_channel(NAMESPACES_WAITING);
    let listen = move || {
        // An agent can have this fail as often as it connects.
        let (mut told, mut untold) = (None::<Instant>, 0_u64);
        for pid in inhabited {
            match capture.listen_for(pid) {
                Ok(Some(listeners)) => {
                    keep(&listeners);
                    // Without a receiver, the daemon stops.
                    drop(namespaces.send(listeners));
                }
                Ok(None) => {}
                Err(_) if told.is_some_and(|told| told.elapsed() < TELL_AGAIN) => untold += 1,
                Err(error) => {
                    tracing::error!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        untold,
                        "no listener in an agent's network namespace: its connections are refused"
                    );
                    (told, untold) = (Some(Instant::now()), 0);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("namespaces".to_owned());
    thread.spawn(listen).context("starting the thread that listens in namespaces")?;
    Ok(sender)
}

/// Accepts in agents' network namespaces, for as long as agents' processes are in them.
async fn serve_namespaces(
    shared: Arc<DataPlane>,
    capture: Arc<Capture>,
    mut opened: mpsc::UnboundedReceiver<Listeners>,
) -> anyhow::Result<()> {
    let mut accepting = BTreeMap::<u64, JoinSet<()>>::new();
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            listeners = opened.recv() => {
                let Some(Listeners { v4, v6, netns }) = listeners else { return Ok(()) };
                tracing::info!(netns = netns.0, "listening in an agent's network namespace");
                let tasks = accepting.entry(netns.0).or_default();
                for listener in std::iter::once(v4).chain(v6) {
                    let listener = TcpListener::from_std(listener).context("taking over a listener")?;
                    tasks.spawn(shared.clone().accept(listener));
                }
            }
            _ = tick.tick(), if !accepting.is_empty() => {
                // A listener that was destroyed. Its place is made free for another one, which the next connection gets.
                let destroyed = accepting.iter_mut().filter_map(|(netns, tasks)| tasks.try_join_next().map(|_| *netns));
                for netns in destroyed.collect::<Vec<_>>() {
                    close(NetnsCookie(netns), &mut accepting, &capture).await;
                }
                let looking = capture.clone();
                let abandoned = match tokio::task::spawn_blocking(move || looking.abandoned()).await? {
                    Ok(abandoned) => abandoned,
                    Err(error) => {
                        tracing::warn!(%error, "network namespaces that agents left are kept");
                        continue;
                    }
                };
                for netns in abandoned {
                    close(netns, &mut accepting, &capture).await;
                    tracing::info!(netns = netns.0, "no agent is in this network namespace any more");
                }
            }
        }
    }
}

/// Closes the listeners in a network namespace.
async fn close(netns: NetnsCookie, accepting: &mut BTreeMap<u64, JoinSet<()>>, capture: &Capture) {
    if let Some(mut tasks) = accepting.remove(&netns.0) {
        // The listeners are closed with their tasks; what they accepted goes on.
        tasks.shutdown().await;
    }
    capture.forget(netns);
    if let Err(error) = keep_no_longer(netns) {
        tracing::warn!(%error, netns = netns.0, "the service manager can't be told to close a listener");
    }
}

/// What of the configuration a reload may change, besides policies and roles.
pub fn settings(config: &Config) -> Settings {
    Settings {
        inspect: config.proxy.inspect.clone(),
        region: config.aws.region.clone(),
        role: config.aws.role.clone(),
        masking: config.masking.settings().expect("BUG: the configuration was checked when it was read"),
    }
}

/// The first call shouldn't wait for them, and the account should be known. Being without is no reason not to start:
/// calls are refused until there are some.
async fn prefetch_credentials(shared: &DataPlane) {
    let generation = shared.generation();
    let own = generation.lending.own();
    match tokio::time::timeout(Duration::from_secs(5), own.get()).await {
        Ok(Ok(_)) => tracing::info!(account = own.account().as_deref(), "credentials are there"),
        Ok(Err(error)) => tracing::warn!(%error, "no credentials yet: calls are refused until there are"),
        Err(_) => tracing::warn!("no credentials after 5 s: calls are refused until there are"),
    }
}

/// The signals that the daemon knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    /// Those that come from now on are kept until somebody asks.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads when told to, until the daemon is told to end.
    async fn wait_for_the_end(mut self, console: &Arc<Console>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => {
                    match control(&**console, &Actor::of_signal(), ControlRequest::Reload).await {
                        Ok(ControlResponse::Reloaded(said)) => tracing::info!("{said}"),
                        Ok(other) => tracing::error!("BUG: reloading was answered by {other:?}"),
                        Err(error) => tracing::error!("not reloaded, what was in force stays: {error}"),
                    }
                }
            }
        }
    }
}
