//! What the data path works with: everything that connections and calls share.

use std::{collections::BTreeSet, net::SocketAddr, os::unix::net::UnixDatagram, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use chaperone_authority::CertificateAuthority;
use chaperone_aws::{Catalog, Metadata, Placeholder, PlaceholderKey, Signer, VendedCredentials};
use chaperone_capture::{Origins, netns_cookie};
use chaperone_identity::{Containers, Resolved, Sessions};
use chaperone_journal::Journal;
use chaperone_model::NetnsCookie;
use chaperone_policy::PolicyVersion;
use rustls::ServerConfig;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    approvals::ApprovalDesk,
    body::request::Outgoing,
    budgets::BudgetDesk,
    connection::{
        container_lookup::ContainerLookup,
        presented::Presented,
        quota::{BEYOND, Quotas},
        reach::Reach,
    },
    generation::{Generation, Generations, Settings},
    identities::{Identities, IdentityState},
    limits::Limits,
    metrics::{Metrics, Shared},
    stops::Stops,
    upstream::{
        clusters::Clusters,
        credential_broker::{Rule, SigningIdentity},
        pool::{Upstream, pem},
    },
};

/// What the data path keeps for a session.
#[derive(Debug)]
pub struct SessionContext {
    /// The credentials that the session's processes get.
    pub placeholder: Placeholder,
    /// What its processes were given in answers, and what each of it stands for.
    pub vended: VendedCredentials,
    /// What stands for secrets that were masked.
    pub masking: crate::Placeholders,
    /// What the session's calls are made by; newer rules replace it.
    pub lent: ArcSwap<SigningIdentity>,
    /// Who the agent is, as the policies see it; a token replaces it.
    pub standing: ArcSwap<IdentityState>,
    /// Held while a token is taken.
    pub(crate) identifying: Mutex<()>,
    /// The session's id as text.
    pub id: String,
    /// Set once the session's beginning is on disk.
    pub recorded: OnceCell<()>,
}

/// All that the data path works with.
pub struct DataPlane {
    /// The catalog of AWS.
    pub catalog: &'static Catalog,
    /// Makes and checks signatures.
    pub signer: Signer,
    /// The record.
    pub journal: Journal,
    /// The sessions.
    pub sessions: Sessions<SessionContext>,
    /// Containers on this host.
    pub containers: Containers,
    /// Who agents are.
    pub identities: Identities,
    /// Questions to people.
    pub approvals: Arc<ApprovalDesk>,
    /// How much agents may do.
    pub budgets: Arc<BudgetDesk>,
    /// Who is stopped.
    pub stops: Arc<Stops>,
    /// The real AWS.
    pub upstream: Upstream<Outgoing>,
    /// Origins of accepted connections.
    pub origins: Origins,
    /// The metadata services' stand-in.
    pub metadata: Metadata,
    /// The bounds.
    pub limits: Limits,
    /// Counts.
    pub metrics: Metrics,
    /// Where cgroup v2 is mounted.
    pub cgroup_root: PathBuf,
    /// The host's name.
    pub host: String,
    pub(crate) generations: Generations,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) quotas: Quotas,
    pub(crate) reach: Reach,
    pub(crate) presented: Presented,
    /// What is known of EKS clusters.
    pub(crate) clusters: Clusters,
    /// The own CA's certificate, in PEM.
    pub(crate) own_authority: String,
    pub(crate) proxies: BTreeSet<SocketAddr>,
    pub(crate) descriptions: ContainerLookup,
    /// The daemon's own network namespace, if the system tells: others are entered to reach what is in them.
    pub(crate) home: Option<NetnsCookie>,
    pub(crate) placeholders: (PlaceholderKey, String),
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What [`DataPlane`] is made of.
pub struct Components {
    /// Issues the leaves.
    pub authority: Arc<CertificateAuthority>,
    /// What is in force first: policies, roles, settings.
    pub generation: Generation,
    /// The record.
    pub journal: Journal,
    /// The sessions.
    pub sessions: Sessions<SessionContext>,
    /// Containers on this host.
    pub containers: Containers,
    /// What sessions' placeholders are derived from, with the boot's own name.
    pub placeholders: (PlaceholderKey, String),
    /// Who agents are.
    pub identities: Identities,
    /// Questions to people.
    pub approvals: Arc<ApprovalDesk>,
    /// How much agents may do.
    pub budgets: Arc<BudgetDesk>,
    /// Who is stopped.
    pub stops: Arc<Stops>,
    /// The real AWS.
    pub upstream: Upstream<Outgoing>,
    /// Origins of accepted connections.
    pub origins: Origins,
    /// The bounds.
    pub limits: Limits,
    /// Proxies that agents dial, which are captured.
    pub proxies: BTreeSet<SocketAddr>,
    /// Where cgroup v2 is mounted.
    pub cgroup_root: PathBuf,
    /// The host's name.
    pub host: String,
}

impl DataPlane {
    /// Puts the data path together. Nothing is accepted yet.
    pub fn new(parts: Components) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own_authority = pem(parts.authority.certificate());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("BUG: the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(parts.authority);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        match rustls::crypto::aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => tls.ticketer = ticketer,
            // Resumption by the session cache still works.
            Err(error) => tracing::warn!(%error, "no session tickets"),
        }
        // A second ticket is for clients that open connections in parallel; SDKs resume one by one.
        tls.send_tls13_tickets = 1;
        let metrics = Metrics::default();
        let quotas = Quotas::new(&parts.limits, metrics.over_share.clone());
        Arc::new(Self {
            catalog: Catalog::global(),
            signer: Signer::new(),
            generations: Generations::new(parts.generation),
            journal: parts.journal,
            sessions: parts.sessions,
            identities: parts.identities,
            approvals: parts.approvals,
            budgets: parts.budgets,
            stops: parts.stops,
            upstream: parts.upstream,
            origins: parts.origins,
            metadata: Metadata::new(),
            metrics,
            descriptions: ContainerLookup::new(parts.containers.clone()),
            containers: parts.containers,
            cgroup_root: parts.cgroup_root,
            host: parts.host,
            tls: Arc::new(tls),
            connections: Arc::new(Semaphore::new(
                parts.limits.connections.saturating_add(BEYOND).min(Semaphore::MAX_PERMITS),
            )),
            quotas,
            reach: Reach::default(),
            presented: Presented::default(),
            clusters: Clusters::default(),
            own_authority,
            proxies: parts.proxies,
            home: UnixDatagram::unbound().and_then(netns_cookie).ok(),
            limits: parts.limits,
            placeholders: parts.placeholders,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// What is in force now. Whoever needs more than one thing of it pins it once.
    pub fn generation(&self) -> Arc<Generation> {
        self.generations.pin()
    }

    /// Puts other policies, roles and settings in force together, for calls whose heads are read from now on.
    pub fn replace_generation(&self, policies: PolicyVersion, rules: Vec<Rule>, settings: Settings) {
        self.generations.replace(policies, rules, settings);
    }

    /// Agents that were over a share of theirs in the last ten minutes: which, of what, how often.
    pub fn over_share(&self) -> Vec<(String, Shared, u64)> {
        self.quotas.over_share()
    }

    /// Memory that agents' requests hold now, in bytes.
    pub fn memory_used(&self) -> usize {
        self.quotas.memory_used()
    }

    /// Now and then: what has no event of its own.
    pub fn tick(self: &Arc<Self>) {
        self.upstream.sweep();
        self.generation().lending.own().keep_fresh();
        for open in self.sessions.open() {
            open.own.lent.load().credentials.keep_fresh();
        }
        for ended in self.sessions.sweep() {
            self.end_session(ended, "its cgroup is empty");
        }
    }

    /// Accepts no more, and waits for what is under way, at most for `limits.drain_timeout`.
    pub async fn drain(self: &Arc<Self>) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.limits.drain_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections were still busy after limits.drain_timeout");
        }
        for ended in self.sessions.close() {
            self.end_session(ended, "the daemon stopped");
        }
    }

    /// What a session's call of this generation is made by.
    pub(crate) fn signing_identity(
        &self,
        generation: &Generation,
        session: &Resolved<SessionContext>,
    ) -> Arc<SigningIdentity> {
        let lent = session.own.lent.load();
        if lent.is_by(&generation.lending) {
            return Arc::clone(&lent);
        }
        let standing = session.own.standing.load_full();
        let lent = generation.lending.to_identified(&session.session, standing.identity());
        // A call that was there before the reload leaves the next ones what is theirs.
        if generation.number == self.generation().number {
            session.own.lent.store(lent.clone());
        }
        lent
    }
}
