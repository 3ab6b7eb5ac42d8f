//! Which members of an answer are masked: a graph over their names on the wire, as the models' shapes give them.
//! Shapes recurse, and so may the graph.

use std::{collections::BTreeMap, sync::Arc};

use smallvec::SmallVec;

/// The longest name of a member, in bytes. Longer ones (keys of maps) are matched by [`SelectorBuilder::any`] alone.
pub(crate) const MAX_NAME: usize = 1024;
/// More nodes than any operation's answer has.
const MAX_NODES: usize = 1 << 20;

/// What a masked value must still be for its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A text of any sort.
    Text,
    /// Bytes: in JSON and XML they are base64.
    Blob,
    /// A time.
    Timestamp,
    /// Yes or no.
    Boolean,
    /// A number.
    Number,
}

/// That a value is masked, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The position of its name among the selector's rules.
    pub(crate) rule: u16,
    /// What stays in its place.
    pub(crate) kind: Kind,
    /// It stays where a member beside it, which came before, says so.
    pub(crate) spared: bool,
}

#[derive(Debug, Default)]
struct Node {
    mask: Option<Mask>,
    members: Vec<(Box<str>, u32)>,
    any: Option<u32>,
    /// The member whose text spares those beside it, and the texts that do.
    spares: Option<(Box<str>, Vec<Box<str>>)>,
}

/// Members to be masked. Cheap to walk, and shared between calls.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    graph: Arc<Graph>,
    root: u32,
}

#[derive(Debug, Default)]
struct Graph {
    nodes: Vec<Node>,
    rules: Vec<Box<str>>,
}

/// A place in the selectors, while an answer is read: every node that the names so far lead to.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    nodes: SmallVec<[(u8, u32); 2]>,
    /// What is below a masked member is masked.
    pub(crate) mask: Option<(u8, Mask)>,
}

/// What is selected in an answer: by the model and by policies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selected {
    graphs: SmallVec<[Arc<Selector>; 2]>,
    /// Where an answer begins, where that isn't their root.
    from: Option<Place>,
}

impl Selected {
    pub(crate) fn new(graphs: Vec<Arc<Selector>>) -> Self {
        Self { graphs: graphs.into_iter().collect(), from: None }
    }

    /// Where an answer begins.
    pub(crate) fn root(&self) -> Place {
        if let Some(from) = &self.from {
            return from.clone();
        }
        let of = |at: usize| u8::try_from(at).ok().filter(|_| !self.graphs[at].graph.nodes.is_empty());
        let nodes = (0..self.graphs.len()).filter_map(|at| Some((of(at)?, self.graphs[at].root))).collect();
        Place { nodes, mask: None }.with_own(self)
    }

    /// The member of a structure or map.
    pub(crate) fn member(&self, place: &Place, name: &[u8]) -> Place {
        self.step(place, |node| {
            let found = node.members.binary_search_by(|(it, _)| it.as_bytes().cmp(name));
            [found.ok().map(|at| node.members[at].1), node.any]
        })
    }

    /// An element of a list.
    pub(crate) fn element(&self, place: &Place) -> Place {
        self.step(place, |node| [node.any, None])
    }

    fn step(&self, place: &Place, to: impl Fn(&Node) -> [Option<u32>; 2]) -> Place {
        let mut next = Place { nodes: SmallVec::new(), mask: place.mask };
        for &(selector, node) in &place.nodes {
            for node in to(&self.graphs[usize::from(selector)].graph.nodes[node as usize]).into_iter().flatten() {
                if !next.nodes.contains(&(selector, node)) {
                    next.nodes.push((selector, node));
                }
            }
        }
        next.with_own(self)
    }

    /// Whether a member of this name has a text that could spare those beside it.
    pub(crate) fn may_spare(&self, place: &Place, name: &[u8]) -> bool {
        place.nodes.iter().any(|&(selector, node)| {
            let spares = &self.graphs[usize::from(selector)].graph.nodes[node as usize].spares;
            spares.as_ref().is_some_and(|(member, _)| member.as_bytes() == name)
        })
    }

    /// Whether it does.
    pub(crate) fn spares(&self, place: &Place, name: &[u8], text: &[u8]) -> bool {
        place.nodes.iter().any(|&(selector, node)| {
            let spares = &self.graphs[usize::from(selector)].graph.nodes[node as usize].spares;
            spares.as_ref().is_some_and(|(member, texts)| {
                member.as_bytes() == name && texts.iter().any(|it| it.as_bytes() == text)
            })
        })
    }

    /// What is selected below a member of the root.
    pub(crate) fn below(&self, name: &[u8]) -> Self {
        let root = self.member(&self.root(), name);
        Self { graphs: self.graphs.clone(), from: Some(root) }
    }

    /// The name of a rule.
    pub(crate) fn rule(&self, (selector, mask): (u8, Mask)) -> &str {
        &self.graphs[usize::from(selector)].graph.rules[usize::from(mask.rule)]
    }
}

impl Place {
    /// Whether nothing is selected here or below.
    pub(crate) fn is_nothing(&self) -> bool {
        self.nodes.is_empty() && self.mask.is_none()
    }

    fn with_own(mut self, selected: &Selected) -> Self {
        let own = |&(selector, node): &(u8, u32)| {
            let mask = selected.graphs[usize::from(selector)].graph.nodes[node as usize].mask?;
            Some((selector, mask))
        };
        self.mask = self.nodes.iter().find_map(own).or(self.mask);
        self
    }
}

impl Selector {
    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.graph.nodes.iter().all(|node| node.mask.is_none())
    }

    /// The same graph from another node on.
    #[must_use]
    pub fn rooted(&self, root: u32) -> Self {
        Self { graph: self.graph.clone(), root }
    }
}

impl From<SelectorBuilder> for Selector {
    fn from(builder: SelectorBuilder) -> Self {
        builder.build()
    }
}

/// Why a path selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A segment can't be read.
    #[error(
        "the path `{0}` can't be read: write members' names with dots between them, `*` for any, `[]` for elements"
    )]
    Path(String),
    /// There are too many.
    #[error("more than {MAX_NODES} members are selected")]
    TooMany,
}

#[derive(Clone, Debug, Default)]
struct Draft {
    mask: Option<Mask>,
    members: BTreeMap<Box<str>, u32>,
    any: Option<u32>,
    spares: Option<(Box<str>, Vec<Box<str>>)>,
}

/// Puts a [`Selector`] together.
#[derive(Clone, Debug)]
pub struct SelectorBuilder {
    nodes: Vec<Draft>,
    rules: Vec<Box<str>>,
}

impl Default for SelectorBuilder {
    fn default() -> Self {
        Self { nodes: vec![Draft::default()], rules: Vec::new() }
    }
}

impl SelectorBuilder {
    /// The node of the whole answer.
    pub const ROOT: u32 = 0;

    /// A node that nothing leads to yet.
    pub fn node(&mut self) -> Result<u32, SelectorError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(SelectorError::TooMany);
        }
        self.nodes.push(Draft::default());
        u32::try_from(self.nodes.len() - 1).map_err(|_| SelectorError::TooMany)
    }

    /// Masks a node, and what is below it.
    pub fn mask(&mut self, node: u32, rule: &str, kind: Kind) {
        let known = self.rules.iter().position(|it| **it == *rule);
        let rule = known.unwrap_or_else(|| {
            self.rules.push(rule.into());
            self.rules.len() - 1
        });
        let rule = u16::try_from(rule).unwrap_or(u16::MAX);
        self.nodes[node as usize].mask = Some(Mask { rule, kind, spared: false });
    }

    /// Where this member of a structure has one of these texts, and comes before them, those beside it that are
    /// [`spared`](Self::spared) stay.
    pub fn spares(&mut self, structure: u32, member: &str, texts: &[&str]) {
        let texts = texts.iter().map(|it| (*it).into()).collect();
        self.nodes[structure as usize].spares = Some((member.into(), texts));
    }

    /// Lets a masked node be spared.
    pub fn spared(&mut self, node: u32) {
        if let Some(mask) = &mut self.nodes[node as usize].mask {
            mask.spared = true;
        }
    }

    /// Leads from a structure to its member.
    pub fn member(&mut self, from: u32, name: &str, to: u32) {
        self.nodes[from as usize].members.insert(name.into(), to);
    }

    /// Leads from a list to its elements, or from a map to its values.
    pub fn any(&mut self, from: u32, to: u32) {
        self.nodes[from as usize].any = Some(to);
    }

    /// Selects a path such as `Environment.Variables.*` or `Items[].Secret`. With `xml`, elements that only wrap others
    /// (`member`, `item`, `entry`, `value`) and the two outermost are passed over.
    pub fn path(&mut self, path: &str, rule: &str, kind: Kind, xml: bool) -> Result<(), SelectorError> {
        let wrong = || SelectorError::Path(path.to_owned());
        if path.is_empty() || path.len() > MAX_NAME {
            return Err(wrong());
        }
        let mut at = vec![Self::ROOT];
        if xml {
            let outer = self.step_any(Self::ROOT)?;
            at = vec![outer, self.step_any(outer)?];
            for node in at.clone() {
                self.wrapped(node);
            }
        }
        for segment in path.split('.') {
            let (name, mut elements) = (segment.trim_end_matches("[]"), segment.matches("[]").count());
            if name.contains(['[', ']']) || name.is_empty() && elements == 0 {
                return Err(wrong());
            }
            if xml {
                elements = 0;
            }
            if !name.is_empty() {
                at = at.iter().map(|&from| self.step(from, name)).collect::<Result<_, _>>()?;
            }
            for _ in 0..elements {
                at = at.iter().map(|&from| self.step_any(from)).collect::<Result<_, _>>()?;
            }
            if xml {
                for node in at.clone() {
                    self.wrapped(node);
                }
            }
        }
        for node in at {
            self.mask(node, rule, kind);
        }
        Ok(())
    }

    fn wrapped(&mut self, node: u32) {
        for name in ["member", "item", "entry", "value", "Value"] {
            self.nodes[node as usize].members.entry(name.into()).or_insert(node);
        }
    }

    fn step(&mut self, from: u32, name: &str) -> Result<u32, SelectorError> {
        if name == "*" {
            return self.step_any(from);
        }
        if let Some(to) = self.nodes[from as usize].members.get(name) {
            return Ok(*to);
        }
        let to = self.node()?;
        self.member(from, name, to);
        Ok(to)
    }

    fn step_any(&mut self, from: u32) -> Result<u32, SelectorError> {
        if let Some(to) = self.nodes[from as usize].any {
            return Ok(to);
        }
        let to = self.node()?;
        self.any(from, to);
        Ok(to)
    }

    /// What has been put together. A named member and `any` beside it don't exclude each other: both are followed.
    #[must_use]
    pub fn build(self) -> Selector {
        let nodes = self
            .nodes
            .into_iter()
            .map(|Draft { mask, members, any, spares }| Node {
                mask,
                members: members.into_iter().collect(),
                any,
                spares,
            })
            .collect();
        Selector { graph: Arc::new(Graph { nodes, rules: self.rules }), root: Self::ROOT }
    }
}
