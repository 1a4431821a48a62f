//! A map that forgets the oldest: bounded memory of things that are nice to know.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map of at most `most` entries; the oldest insertion goes first.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Clone, V> Memory<K, V> {
    /// An empty memory; `most` is at least 1.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            map: HashMap::new(),
            order: VecDeque::new(),
            most: most.max(1),
        }
    }

    /// Remembers; a known key keeps its age.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
        }
    }

    /// What is remembered.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// What is remembered, to change it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// Entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = Memory::new(2);
        memory.insert(1, 'a');
        memory.insert(2, 'b');
        memory.insert(1, 'c');
        memory.insert(3, 'd');
        assert_eq!(
            (memory.get(&1), memory.get(&2), memory.get(&3)),
            (None, Some(&'b'), Some(&'d'))
        );
        assert_eq!(memory.len(), 2);
    }
}
