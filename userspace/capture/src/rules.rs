//! Which cgroups are enrolled when they appear: patterns of their paths, as an automaton that the kernel can run.
//!
//! Of some, such as a container's, the path doesn't tell whose they are. These are *held*: enrolled until
//! [`Capture::release`] or [`Capture::confirm`]. What they are is written down by their engine before they appear, so that
//! finding out is a matter of milliseconds, and in them nothing is faster than the kernel.

use std::{collections::HashMap, fs, path::Path};

use chaperone_ebpf_abi::{ENROLLED, HELD, MAX_CGROUP_PATH, MAX_RULE_STATES, RuleState};
use chaperone_model::CgroupId;
use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    util::{primitives::StateID, start, syntax},
};

use crate::{Capture, CaptureError, Counter, PreexistingConnection, cgroup_id, maps::RuleRecord};

/// The states of one set of rules: half of the room, so that one set can be put in another's place at once. The first
/// place is that of the state that leads nowhere.
const HALF: usize = MAX_RULE_STATES / 2 - 1;
/// What building the automaton may take, in bytes.
const BUILDING: usize = 4 << 20;

/// There are too many rules, or too many `*` in them.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the rules that enrol cgroups are too many, or have too many `*`, for the kernel hooks' table of {HALF} states: use \
     fewer, or shorter ones"
)]
pub struct TooManyRules;

/// The paths of cgroups, below the cgroup v2 root, that are enrolled when they appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupRules {
    /// The first one is the first state; numbers are those of the place in here and one more, 0 leads nowhere.
    states: Vec<RuleState>,
}

/// Cgroups that are held when they appear.
#[derive(Clone, Copy, Debug)]
pub struct PendingPatterns<'a> {
    /// Those, as a regular expression for a whole path. Cgroups below one of them are its own affair.
    pub held: &'a str,
    /// Cgroups below which none is held, likewise: where others than root make cgroups, and name them as they like.
    pub never_below: &'a str,
}

impl CgroupRules {
    /// Each pattern is a regular expression for a whole path, such as `/agents\.slice/[^/]*`.
    ///
    /// # Panics
    ///
    /// If one isn't a regular expression: they are made by us, of what was checked.
    pub fn new(patterns: &[String]) -> Result<Self, TooManyRules> {
        Self::with_held(patterns, None)
    }

    /// As [`new`](Self::new), and some cgroups are held: those that no pattern names, nor one that they are below of.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn with_held(patterns: &[String], held: Option<PendingPatterns<'_>>) -> Result<Self, TooManyRules> {
        let named = if patterns.is_empty() { None } else { Some(Paths::new(patterns)?) };
        let held = match held {
            Some(held) => Some(Paths::new(&[held.held.to_owned(), held.never_below.to_owned()])?),
            None => None,
        };
        let start = (named.as_ref().map(|paths| paths.start), held.as_ref().map(|paths| paths.start));
        if start == (None, None) {
            return Ok(Self::default());
        }
        // Both at once, breadth first: a pair of states has its place when it is first led to.
        let mut places = HashMap::from([(start, 1_u16)]);
        let (mut queue, mut states) = (vec![start], Vec::new());
        while let Some((in_named, in_held)) = queue.get(states.len()).copied() {
            let is_named = Paths::matched(named.as_ref(), in_named).is_some();
            let match_of_held = Paths::matched(held.as_ref(), in_held);
            let mut next = [0; 256];
            for (byte, next) in (0..=u8::MAX).zip(&mut next) {
                let apart = byte == b'/' && (is_named || match_of_held.is_some());
                let to = (
                    Paths::next(named.as_ref(), in_named, byte),
                    Paths::next(held.as_ref(), in_held, byte).filter(|_| !apart),
                );
                if to == (None, None) {
                    continue;
                }
                let place = u16::try_from(places.len() + 1).map_err(|_| TooManyRules)?;
                *next = *places.entry(to).or_insert_with(|| {
                    queue.push(to);
                    place
                });
            }
            let enrols = match match_of_held {
                _ if is_named => ENROLLED,
                Some(0) => ENROLLED | HELD,
                _ => 0,
            };
            states.push(RuleState { next, enrols });
            if queue.len() > HALF {
                return Err(TooManyRules);
            }
        }
        Ok(Self { states })
    }

    /// Whether this is a pattern that [`new`](Self::new) takes: of one that was read back from a file.
    pub fn is_pattern(text: &str) -> bool {
        let config = dense::Config::new().start_kind(StartKind::Anchored).dfa_size_limit(Some(BUILDING));
        let config = config.determinize_size_limit(Some(BUILDING));
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let built = dense::Builder::new().configure(config).syntax(syntax).build(&format!("^(?:{text})$"));
        built.map_or_else(|error| error.is_size_limit_exceeded(), |_| true)
    }

    /// Whether the cgroup with this path is enrolled when it appears, as the hooks decide it, and not only held.
    pub fn name(&self, path: &str) -> bool {
        self.flags(path) == ENROLLED
    }

    /// Whether the cgroup with this path is held when it appears.
    pub fn hold(&self, path: &str) -> bool {
        self.flags(path) & HELD != 0
    }

    fn flags(&self, path: &str) -> u32 {
        let mut state = usize::from(!self.states.is_empty());
        for byte in path.bytes().take(MAX_CGROUP_PATH - 1) {
            if state == 0 {
                return 0;
            }
            state = self.states[state - 1].next[usize::from(byte)].into();
        }
        if state == 0 { 0 } else { self.states[state - 1].enrols }
    }
}

/// An automaton of whole paths.
struct Paths {
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
}

impl Paths {
    fn new(patterns: &[String]) -> Result<Self, TooManyRules> {
        let whole: Vec<_> = patterns.iter().map(|pattern| format!("^(?:{pattern})$")).collect();
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(BUILDING))
            .determinize_size_limit(Some(BUILDING));
        let automaton = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .build_many(&whole)
            .map_err(|error| {
                assert!(error.is_size_limit_exceeded(), "BUG: {whole:?}: {error}");
                TooManyRules
            })?;
        let start = automaton
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .expect("BUG: it was built to start anchored");
        Ok(Self { automaton, start })
    }

    /// `None` if no path goes on so.
    fn next(paths: Option<&Self>, from: Option<StateID>, byte: u8) -> Option<StateID> {
        let to = paths?.automaton.next_state(from?, byte);
        (!is_dead(&paths?.automaton, to)).then_some(to)
    }

    /// The first of the patterns for a path that ends here.
    fn matched(paths: Option<&Self>, at: Option<StateID>) -> Option<usize> {
        let automaton = &paths?.automaton;
        // Matches are told one byte late.
        let end = automaton.next_eoi_state(at?);
        automaton.is_match_state(end).then(|| automaton.match_pattern(end, 0).as_usize())
    }
}

fn is_dead(automaton: &dense::DFA<Vec<u32>>, state: StateID) -> bool {
    automaton.is_dead_state(state) || automaton.is_quit_state(state)
}

impl Capture {
    /// Enrols the cgroups that the rules name: from now on when they appear, before a process can be in them, also while
    /// no daemon runs; and those that are there, whose earlier connections are destroyed and told. Others are withdrawn,
    /// save those that are exempt.
    pub fn enroll_by(&self, rules: &CgroupRules) -> Result<Vec<PreexistingConnection>, CaptureError> {
        self.enroll_by_and(rules, || Ok(Vec::new()))
    }

    /// As [`enroll_by`](Self::enroll_by); `held` is to enrol or hold those of the cgroups that the rules hold, before the
    /// hooks believe that there was room for all.
    pub fn enroll_by_and<E: From<CaptureError>>(
        &self,
        rules: &CgroupRules,
        held: impl FnOnce() -> Result<Vec<PreexistingConnection>, E>,
    ) -> Result<Vec<PreexistingConnection>, E> {
        let unenrolled = self.counters().get(Counter::Unenrolled)?;
        self.load_rules(rules)?;
        // What appears from here on is enrolled by the hooks.
        let (mut found, mut earlier) = (Vec::new(), Vec::new());
        named(self.cgroup_root(), "", rules, &mut found);
        for path in &found {
            // One that is gone by now needs no enrolment.
            let Ok(id) = cgroup_id(self.cgroup_root().join(path.trim_start_matches('/'))) else { continue };
            match self.enroll(id) {
                Err(CaptureError::CgroupGone { .. }) => {}
                enrolled => earlier.extend(enrolled?),
            }
        }
        for id in self.enrolled()? {
            match crate::cgroup_path(self.cgroup_root(), id) {
                // What is held, or was once, is for others to decide.
                Ok(path) if rules.name(&path) || rules.hold(&path) => {}
                // Of one that is gone, the hooks forget when its sockets are gone, too.
                Err(CaptureError::CgroupGone { .. }) => {}
                Ok(path) => {
                    tracing::info!(cgroup = path, "withdrawn: no rule names it any more");
                    self.withdraw(id)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        earlier.extend(held()?);
        self.none_is_left_out(unenrolled)?;
        Ok(earlier)
    }

    /// Whether a cgroup that a rule names appeared and could not be enrolled, because too many are. From then on, processes
    /// in cgroups that appear are refused, until [`enroll_by`](Self::enroll_by) finds room for all that the rules name.
    pub fn is_full(&self) -> Result<bool, CaptureError> {
        let first = self.unenrolled.lock().get(&0, 0);
        Ok(first.map_err(CaptureError::map("asking whether a cgroup could not be enrolled"))? != 0)
    }

    /// All that the rules name is enrolled, unless the hooks have counted more since: what they refused on suspicion goes
    /// on.
    fn none_is_left_out(&self, counted: u64) -> Result<(), CaptureError> {
        let failed = || CaptureError::map("telling the hooks that all cgroups are enrolled");
        let mut map = self.unenrolled.lock();
        let first = map.get(&0, 0).map_err(failed())?;
        if first == 0 || self.counters().get(Counter::Unenrolled)? != counted {
            return Ok(());
        }
        map.set(0, 0, 0).map_err(failed())?;
        // The hook counts after it has written its number, which this may have overwritten.
        if self.counters().get(Counter::Unenrolled)? != counted {
            map.set(0, first, 0).map_err(failed())?;
        }
        Ok(())
    }

    /// Into the half that isn't in use, which is put in use then.
    fn load_rules(&self, rules: &CgroupRules) -> Result<(), CaptureError> {
        let failed = || CaptureError::map("giving the hooks the rules of enrolment");
        let mut tables = self.rules.lock();
        let before = tables.start.get(&0, 0).map_err(failed())?;
        let base = if before == 0 || before as usize > HALF { 0 } else { HALF };
        let place = |state: u16| if state == 0 { 0 } else { state + u16::try_from(base).unwrap_or_default() };
        for (index, state) in rules.states.iter().enumerate() {
            let record = RuleRecord(RuleState { next: state.next.map(place), enrols: state.enrols });
            let index = u32::try_from(base + 1 + index).unwrap_or_default();
            tables.states.set(index, record, 0).map_err(failed())?;
        }
        let start = if rules.states.is_empty() { 0 } else { place(1) };
        tables.start.set(0, u32::from(start), 0).map_err(failed())
    }
}

/// The paths below `folder` that are named; not those below them, which are enrolled with them.
fn named(folder: &Path, path: &str, rules: &CgroupRules, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if rules.name(&path) {
            into.push(path);
        } else {
            named(&entry.path(), &path, rules, into);
        }
    }
}

/// Every cgroup below the root, by its path, parents first, at most `limit`.
pub fn cgroup_tree(root: &Path, limit: usize) -> Vec<(String, CgroupId)> {
    let mut found = Vec::new();
    let mut queue = vec![(root.to_owned(), String::new())];
    while let Some((folder, path)) = queue.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if found.len() == limit {
                return found;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(id) = cgroup_id(entry.path())
            {
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                found.push((path.clone(), id));
                queue.push((entry.path(), path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_whole() {
        let rules = CgroupRules::new(&[
            r"/agents\x2eslice".to_owned(),
            r"(?:/[^/]*\x2eslice)*/agent\x2d[^/]*\x2eservice".to_owned(),
        ])
        .unwrap();
        for path in
            ["/agents.slice", "/agent-1.service", "/system.slice/agent-1.service", "/a.slice/a-b.slice/agent-x.service"]
        {
            assert!(rules.name(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/agents.slice/a.service",
            "/agents.slicer",
            "/agents_slice",
            "/system.slice/agent-1.service/sub",
            "/user.slice/user@1.service/agent-1.service",
            "/system.slice/x/agent-1.service",
            "/système.slice/agent-1.service\n",
        ] {
            assert!(!rules.name(path), "{path}");
        }
        assert!(rules.name("/syst\u{e8}me.slice/agent-1.service"));
        assert!(!CgroupRules::default().name("/a"));
    }

    #[test]
    fn what_is_held_is_held_by_itself() {
        let held = PendingPatterns { held: "(?:/[^/]+)*/c-[0-9a-f]{64}", never_below: "(?:/[^/]+)*/user@[^/]*" };
        let rules = CgroupRules::with_held(&["/agents".to_owned(), "/a/[^/]*x".to_owned()], Some(held)).unwrap();
        let id = "0123456789abcdef".repeat(4);
        for path in [format!("/c-{id}"), format!("/b/d/c-{id}"), format!("/a/c-{id}"), format!("/agent/c-{id}")] {
            assert!(rules.hold(&path) && !rules.name(&path), "{path}");
        }
        for path in [
            format!("/c-{id}0"),
            format!("/c-{id}/x"),
            // Not by what a container names its own cgroups, nor where the others' word doesn't count.
            format!("/c-{id}/c-{id}"),
            format!("/b/user@1000.service/d/c-{id}"),
            // Enrolled already, with the cgroup that it is in.
            format!("/agents/c-{id}"),
            format!("/a/bx/c-{id}"),
        ] {
            assert!(!rules.hold(&path) && !rules.name(&path), "{path}");
        }
        assert!(rules.name("/agents") && rules.name("/a/x") && !rules.name("/a/b"));
        let alone = CgroupRules::with_held(&[], Some(held)).unwrap();
        assert!(alone.hold(&format!("/c-{id}")) && !alone.name("/agents"));
    }

    #[test]
    fn too_many_rules_are_refused_and_not_cut() {
        let many: Vec<_> = (0..400).map(|number| format!("/agents/a{number}/[^/]*b[^/]*c{number}")).collect();
        assert_eq!(CgroupRules::new(&many), Err(TooManyRules));
        let exploding = format!("/[^/]*a{}", "[^/]".repeat(40));
        assert_eq!(CgroupRules::new(&[exploding]), Err(TooManyRules));
    }
}
