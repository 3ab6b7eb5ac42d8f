//! REST routing: from method and path to operations.

use foldhash::HashMap;

/// The routes of one service, a tree of path segments by method.
#[derive(Default)]
pub(crate) struct Routes {
    methods: HashMap<&'static str, Node>,
}

#[derive(Default)]
struct Node {
    literals: HashMap<&'static str, Node>,
    label: Option<Box<Node>>,
    greedy: Vec<Greedy>,
    here: Vec<u16>,
}

/// A label that takes one segment or more, up to a tail of other segments.
struct Greedy {
    tail: Vec<&'static str>,
    operation: [u16; 1],
}

/// How specific a path was matched: smaller is better, segment by segment.
type Rank = Vec<u8>;

impl Routes {
    /// Of operations' methods and paths, in their order.
    pub fn new(operations: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let mut routes = Self::default();
        for (position, (method, uri)) in operations.enumerate() {
            let position = u16::try_from(position).expect("BUG: a service of 65,536 operations");
            let mut node = routes.methods.entry(method).or_default();
            let mut uri = segments(uri);
            loop {
                match uri.next() {
                    None => {
                        node.here.push(position);
                        break;
                    }
                    Some(segment) if segment.ends_with("+}") => {
                        node.greedy.push(Greedy { tail: uri.collect(), operation: [position] });
                        break;
                    }
                    Some(segment) if segment.starts_with('{') => node = node.label.get_or_insert_default(),
                    Some(segment) => node = node.literals.entry(segment).or_default(),
                }
            }
        }
        routes
    }

    /// The operations that `method` on this path can be, most specific path only; the caller tells them further apart.
    pub fn matches(&self, method: &str, path: &str) -> Vec<u16> {
        let mut found = Vec::new();
        if let Some(node) = self.methods.get(method) {
            let parts: Vec<_> = segments(path).collect();
            node.walk(&parts, &mut Vec::new(), &mut found);
        }
        let Some(best) = found.iter().map(|(rank, _)| rank).min().cloned() else { return Vec::new() };
        found.into_iter().filter(|(rank, _)| *rank == best).flat_map(|(_, here)| here).copied().collect()
    }
}

impl Node {
    fn walk<'a>(&'a self, parts: &[&str], rank: &mut Rank, found: &mut Vec<(Rank, &'a [u16])>) {
        let Some((first, rest)) = parts.split_first() else {
            if !self.here.is_empty() {
                found.push((rank.clone(), &self.here));
            }
            return;
        };
        if let Some(next) = self.literals.get(&*percent_encoding::percent_decode_str(first).decode_utf8_lossy()) {
            rank.push(0);
            next.walk(rest, rank, found);
            rank.pop();
        }
        if let Some(next) = &self.label {
            rank.push(1);
            next.walk(rest, rank, found);
            rank.pop();
        }
        for Greedy { tail, operation } in &self.greedy {
            let Some(at) = parts.len().checked_sub(tail.len()).filter(|at| *at > 0) else { continue };
            if tail.iter().zip(&parts[at..]).all(|(segment, part)| segment.starts_with('{') || segment == part) {
                rank.push(u8::MAX - u8::try_from(tail.len()).unwrap_or(u8::MAX - 2).min(u8::MAX - 2));
                found.push((rank.clone(), operation));
                rank.pop();
            }
        }
    }
}

/// The segments of a path; a slash at the end makes no difference.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').filter(move |segment| !path.is_empty() || !segment.is_empty())
}
