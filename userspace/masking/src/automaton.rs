//! Aho and Corasick's automaton over secrets, in memory that is overwritten when it is let go: a crate's own would leave
//! what it is made of in freed memory.
//!
//! It is a trie with failure links; the root and the nodes below it, where a search nearly always is, have a table each.

use std::collections::VecDeque;

use zeroize::Zeroize;

/// Where one of the texts stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The number that came with the text.
    pub(crate) value: u16,
}

const ROOT: u32 = 0;

/// Finds texts in another one: the one that begins first, of those the longest, and none over another.
pub(crate) struct Automaton {
    nodes: Vec<Node>,
    tables: Vec<[u32; 256]>,
}

impl Drop for Automaton {
    fn drop(&mut self) {
        self.nodes.zeroize();
        self.tables.zeroize();
    }
}

#[derive(Clone, Copy, Default)]
struct Node {
    byte: u8,
    /// One of the texts ends here or in what [`fail`](Self::fail) leads to: how long is the longest, and its number.
    length: u32,
    value: u16,
    depth: u32,
    child: u32,
    sibling: u32,
    fail: u32,
    /// Its table, if it is right below the root.
    table: u16,
}

impl Zeroize for Node {
    fn zeroize(&mut self) {
        self.byte.zeroize();
        for link in [&mut self.child, &mut self.sibling, &mut self.fail, &mut self.length, &mut self.depth] {
            link.zeroize();
        }
    }
}

impl Automaton {
    /// Of these texts, none of which is empty.
    pub(crate) fn new<'a>(texts: impl Iterator<Item = (&'a [u8], u16)> + Clone) -> Self {
        // Nothing must be moved while it grows, and leave what it was behind.
        let most = texts.clone().map(|(text, _)| text.len()).sum::<usize>() + 1;
        let mut first = [false; 256];
        texts.clone().for_each(|(text, _)| first[usize::from(text[0])] = true);
        let tables = first.iter().filter(|is| **is).count() + 1;
        let mut this = Self { nodes: Vec::with_capacity(most), tables: Vec::with_capacity(tables) };
        this.nodes.push(Node::default());
        for (text, value) in texts {
            this.add(text, value);
        }
        this.link();
        this
    }

    fn add(&mut self, text: &[u8], value: u16) {
        let mut at = ROOT;
        for &byte in text {
            at = self.child(at, byte).unwrap_or_else(|| {
                let new = u32::try_from(self.nodes.len()).expect("BUG: more texts than a vault may hold");
                let parent = &mut self.nodes[at as usize];
                let node = Node { byte, depth: parent.depth + 1, sibling: parent.child, ..Node::default() };
                parent.child = new;
                self.nodes.push(node);
                new
            });
        }
        let node = &mut self.nodes[at as usize];
        (node.length, node.value) = (node.depth, value);
    }

    /// Sets the failure links, each node's after those of all that are shorter, and the tables.
    fn link(&mut self) {
        let mut root = [ROOT; 256];
        let mut queue = VecDeque::new();
        let mut next = self.first(ROOT);
        while let Some(child) = next {
            root[usize::from(self.nodes[child as usize].byte)] = child;
            queue.push_back(child);
            next = self.after(child);
        }
        self.tables.push(root);
        while let Some(at) = queue.pop_front() {
            let node = self.nodes[at as usize];
            if node.depth == 1 {
                let mut table = root;
                let mut next = self.first(at);
                while let Some(child) = next {
                    table[usize::from(self.nodes[child as usize].byte)] = child;
                    next = self.after(child);
                }
                self.nodes[at as usize].table = u16::try_from(self.tables.len()).unwrap_or(0);
                self.tables.push(table);
                table.zeroize();
            }
            let mut next = self.first(at);
            while let Some(child) = next {
                queue.push_back(child);
                let byte = self.nodes[child as usize].byte;
                let fail = self.next(node.fail, byte);
                let fail = if fail == child { ROOT } else { fail };
                let ends = self.nodes[fail as usize];
                let node = &mut self.nodes[child as usize];
                node.fail = fail;
                if node.length == 0 {
                    (node.length, node.value) = (ends.length, ends.value);
                }
                next = self.after(child);
            }
        }
        root.zeroize();
    }

    /// The first node below one; the others are its siblings.
    fn first(&self, at: u32) -> Option<u32> {
        let child = self.nodes[at as usize].child;
        (child != ROOT).then_some(child)
    }

    fn after(&self, child: u32) -> Option<u32> {
        let sibling = self.nodes[child as usize].sibling;
        (sibling != ROOT).then_some(sibling)
    }

    fn child(&self, at: u32, byte: u8) -> Option<u32> {
        let mut child = self.nodes[at as usize].child;
        while child != ROOT && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        (child != ROOT).then_some(child)
    }

    /// The longest end of what was read that one of the texts begins with.
    #[inline]
    fn next(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            let node = &self.nodes[at as usize];
            if node.depth <= 1 {
                return self.tables[usize::from(node.table)][usize::from(byte)];
            }
            if let Some(child) = self.child(at, byte) {
                return child;
            }
            at = node.fail;
        }
    }

    /// Whether one of them is in a text.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        let mut at = ROOT;
        text.iter().any(|byte| {
            at = self.next(at, *byte);
            at != ROOT && self.nodes[at as usize].length > 0
        })
    }

    /// Finds all of them; gives from where on there may be one, or a longer one, when more follows.
    pub(crate) fn find(&self, text: &[u8], mut found: impl FnMut(Found)) -> usize {
        let (mut state, mut at) = (ROOT, 0);
        let mut best: Option<Found> = None;
        let mut open = text.len();
        loop {
            if at < text.len() {
                state = self.next(state, text[at]);
                at += 1;
                if state == ROOT && best.is_none() {
                    continue;
                }
            } else if best.is_none() {
                return open.min(text.len() - self.pending(state));
            }
            let node = &self.nodes[state as usize];
            let length = node.length as usize;
            if length > 0 {
                let start = at - length;
                let better = best.is_none_or(|it| start < it.start || start == it.start && at > it.end);
                if better {
                    best = Some(Found { start, end: at, value: node.value });
                }
            }
            // Once what goes on begins behind its beginning, no longer one can come.
            if let Some(it) = best
                && (at == text.len() || at - node.depth as usize > it.start)
            {
                let pending = at - self.pending(state);
                if at == text.len() && pending <= it.start {
                    open = open.min(pending);
                }
                found(it);
                (state, at, best) = (ROOT, it.end, None);
            }
        }
    }

    /// How much of what was read may go on to be one.
    fn pending(&self, mut at: u32) -> usize {
        while at != ROOT && self.nodes[at as usize].child == ROOT {
            at = self.nodes[at as usize].fail;
        }
        self.nodes[at as usize].depth as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(texts: &[&[u8]], text: &[u8]) -> (Vec<Found>, usize) {
        let texts = texts.iter().enumerate().map(|(at, it)| (*it, u16::try_from(at).unwrap()));
        let mut found = Vec::new();
        let automaton = Automaton::new(texts);
        let pending = automaton.find(text, |it| found.push(it));
        assert_eq!(automaton.is_in(text), !found.is_empty());
        (found, pending)
    }

    proptest! {
        /// As the field's usual crate finds them.
        #[test]
        fn it_finds_what_another_finds(
            texts in prop::collection::vec("[ab]{1,6}|[abc]{2,4}", 1..12),
            text in "[abc]{0,60}",
        ) {
            let mut texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            texts.sort_unstable();
            texts.dedup();
            let (found, pending) = all(&texts, text.as_bytes());
            let other = aho_corasick::AhoCorasick::builder()
                .match_kind(aho_corasick::MatchKind::LeftmostLongest)
                .build(&texts)
                .unwrap();
            let expected: Vec<(usize, usize, usize)> =
                other.find_iter(&text).map(|it| (it.start(), it.end(), it.pattern().as_usize())).collect();
            let got: Vec<_> = found.iter().map(|it| (it.start, it.end, usize::from(it.value))).collect();
            // What may go on to be a longer one is met again.
            let decided = |all: &[(usize, usize, usize)]| -> Vec<(usize, usize, usize)> {
                all.iter().copied().filter(|it| it.0 < pending).collect()
            };
            prop_assert_eq!(decided(&got), decided(&expected));
            prop_assert_eq!(got.first(), expected.first());
            let tail = &text.as_bytes()[pending..];
            prop_assert!(tail.is_empty() || texts.iter().any(|it| it.len() > tail.len() && it.starts_with(tail)));
        }
    }

    #[test]
    fn the_longest_of_those_that_begin_first_counts() {
        let found = |start, end, value| Found { start, end, value };
        assert_eq!(
            all(&[b"abcd", b"bc", b"abcdef"], b"xabcde abcdef bc"),
            (vec![found(1, 5, 0), found(7, 13, 2), found(14, 16, 1)], 16)
        );
        assert_eq!(all(&[b"hunter2-hunter2"], b"hunter2-hunter2-hunter"), (vec![found(0, 15, 0)], 16));
        assert_eq!(all(&[b"abcd", b"abcdef"], b"..abcde").1, 2);
    }
}
