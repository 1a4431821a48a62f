//! Timers that carry something.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::Us;

/// A heap of timers; those of one moment come in the order in which they were set.
#[derive(Debug)]
pub(super) struct Heap<T> {
    items: BinaryHeap<Item<T>>,
    sequence: u64,
}

#[derive(Debug)]
struct Item<T> {
    at: Us,
    sequence: u64,
    timer: T,
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Self {
            items: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Item<T> {}
impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Item<T> {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> Heap<T> {
    pub(super) fn push(&mut self, at: Us, timer: T) {
        self.sequence += 1;
        self.items.push(Item {
            at,
            sequence: self.sequence,
            timer,
        });
    }

    pub(super) fn pop_due(&mut self, now: Us) -> Option<T> {
        if self.items.peek()?.at > now {
            return None;
        }
        self.items.pop().map(|item| item.timer)
    }

    pub(super) fn next_deadline(&self) -> Option<Us> {
        self.items.peek().map(|item| item.at)
    }
}
