//! The routes of one host pattern: an equal path, else the longest prefix that ends at a segment boundary; among the
//! routes of one path the one with the most conditions, else the first of the file.

use std::collections::HashMap;
use std::sync::Arc;

use super::Query;
use crate::model::policy::{Condition, PathPattern};

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Site<T> {
    exact: HashMap<Box<str>, Vec<Rule<T>>>,
    /// By prefix without a trailing slash: `/` is the empty text.
    prefix: HashMap<Box<str>, Vec<Rule<T>>>,
    prefix_lengths: Lengths,
}

/// One route of one host and path.
#[derive(Debug, Clone)]
pub(super) struct Rule<T> {
    /// Empty: all methods.
    pub methods: Box<[Arc<str>]>,
    /// `None`: all listeners.
    pub listener: Option<u32>,
    /// What else a request must have.
    pub also: Box<[Condition]>,
    pub target: T,
}

impl<T> Default for Site<T> {
    fn default() -> Site<T> {
        Site { exact: HashMap::new(), prefix: HashMap::new(), prefix_lengths: Lengths::default() }
    }
}

impl<T: Copy> Site<T> {
    /// Adds a route; of two with as many conditions the one added first wins.
    pub fn add(&mut self, path: &PathPattern, rule: Rule<T>) {
        let rules = match path {
            PathPattern::Exact(path) => self.exact.entry((**path).into()).or_default(),
            PathPattern::Prefix(path) => {
                let prefix = path.strip_suffix('/').unwrap_or(path);
                self.prefix_lengths.add(prefix.len());
                self.prefix.entry(prefix.into()).or_default()
            }
        };
        let at = rules.partition_point(|earlier| earlier.conditions() >= rule.conditions());
        rules.insert(at, rule);
    }

    pub fn find(&self, query: &Query<'_>) -> Option<T> {
        let first = |rules: &Vec<Rule<T>>| rules.iter().find(|rule| rule.matches(query)).map(|rule| rule.target);
        if let Some(found) = self.exact.get(query.path).and_then(first) {
            return Some(found);
        }
        // Only lengths that some prefix has are looked up, so a long path costs no more than a short one.
        let path = query.path.as_bytes();
        let boundary = |length: usize| length == 0 || path.get(length).is_none_or(|b| *b == b'/');
        let prefixes = self.prefix_lengths.up_to(path.len()).filter(|length| boundary(*length));
        prefixes.filter_map(|length| self.prefix.get(query.path.get(..length)?)).find_map(first)
    }
}

impl<T> Rule<T> {
    fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty()) + usize::from(self.listener.is_some()) + self.also.len()
    }

    fn matches(&self, query: &Query<'_>) -> bool {
        self.listener.is_none_or(|listener| listener == query.listener)
            && (self.methods.is_empty() || self.methods.iter().any(|method| **method == *query.method))
            && self.also.iter().all(query.holds)
    }
}

/// The different lengths of some texts, longest first.
#[derive(Debug, Default, Clone)]
pub(super) struct Lengths(Vec<usize>);

impl Lengths {
    pub fn add(&mut self, length: usize) {
        let at = self.0.partition_point(|longer| *longer > length);
        if self.0.get(at) != Some(&length) {
            self.0.insert(at, length);
        }
    }

    /// The lengths up to `limit`, longest first.
    pub fn up_to(&self, limit: usize) -> impl Iterator<Item = usize> {
        self.0[self.0.partition_point(|length| *length > limit)..].iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_distinct_and_come_longest_first() {
        let mut lengths = Lengths::default();
        [3, 0, 7, 3, 5, 0].into_iter().for_each(|length| lengths.add(length));
        assert_eq!(lengths.up_to(6).collect::<Vec<_>>(), [5, 3, 0]);
        assert_eq!(lengths.up_to(7).collect::<Vec<_>>(), [7, 5, 3, 0]);
    }
}
