//! From an id to its place in a slab: an open-addressing table of slab indexes.
//!
//! It keeps 32 bits of hash and the index; the ids themselves stay in the slab, where one
//! comparison confirms a hit. A lookup touches one or two cache lines whatever the size,
//! where a B-tree over 48,000 agent names followed a pointer at each of 16 comparisons.
//! Never iterated, so the order of its content cannot leak into decisions. The hash is
//! fixed: contact ids are keyed hashes already and agents are staff, so nobody outside can
//! choose ids that collide.

use crate::ContactId;

/// What can be looked up.
pub(super) trait Key {
    fn hash(&self) -> u64;
}

impl Key for ContactId {
    fn hash(&self) -> u64 {
        mix((self.0 as u64) ^ ((self.0 >> 64) as u64).rotate_left(29))
    }
}

impl Key for str {
    fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for chunk in self.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash ^ u64::from_le_bytes(word)).wrapping_add(chunk.len() as u64);
        }
        hash
    }
}

/// SplitMix64's finaliser.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    index: u32,
}

/// The table: linear probing, at most seven eighths full, no tombstones.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    slots: Vec<Slot>,
    used: usize,
}

impl Lookup {
    /// The index under which `is` holds, among those entered under this hash.
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(hash, is)
            .map(|position| self.slots[position].index)
    }

    fn position(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let short = (hash >> 32) as u32;
        let mut position = hash as usize & mask;
        loop {
            let slot = self.slots[position];
            if slot.index == EMPTY {
                return None;
            }
            if slot.hash == short && is(slot.index) {
                return Some(position);
            }
            position = (position + 1) & mask;
        }
    }

    /// Enters an index, which must not be there. `hash_of` gives the hash of those inside.
    pub(super) fn insert(&mut self, hash: u64, index: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            let grown = (self.slots.len() * 2).max(16);
            let old = std::mem::replace(
                &mut self.slots,
                vec![
                    Slot {
                        hash: 0,
                        index: EMPTY
                    };
                    grown
                ],
            );
            for slot in old.into_iter().filter(|slot| slot.index != EMPTY) {
                self.place(hash_of(slot.index), slot.index);
            }
        }
        self.place(hash, index);
        self.used += 1;
    }

    fn place(&mut self, hash: u64, index: u32) {
        let mask = self.slots.len() - 1;
        let mut position = hash as usize & mask;
        while self.slots[position].index != EMPTY {
            position = (position + 1) & mask;
        }
        self.slots[position] = Slot {
            hash: (hash >> 32) as u32,
            index,
        };
    }

    /// Takes an index out. Those behind it move up, so that no gap cuts them off.
    pub(super) fn remove(&mut self, hash: u64, index: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mut gap) = self.position(hash, |other| other == index) else {
            return;
        };
        let mask = self.slots.len() - 1;
        let mut next = (gap + 1) & mask;
        while self.slots[next].index != EMPTY {
            let home = hash_of(self.slots[next].index) as usize & mask;
            // It may move up if its home does not lie behind the gap.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.slots[gap] = self.slots[next];
                gap = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[gap].index = EMPTY;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_table_agrees_with_a_map_under_random_changes_and_colliding_hashes() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let mut table = Lookup::default();
        let mut plain: BTreeMap<u32, ()> = BTreeMap::new();
        // Few distinct homes: long runs of neighbours.
        let hash_of = |index: u32| u64::from(index % 7) | (u64::from(index) << 33);
        for step in 0..50_000 {
            let index = u32::try_from(next(300)).expect("small");
            let found = table.find(hash_of(index), |other| other == index);
            assert_eq!(found.is_some(), plain.contains_key(&index), "step {step}");
            if found.is_some() {
                table.remove(hash_of(index), index, hash_of);
                plain.remove(&index);
            } else {
                table.insert(hash_of(index), index, hash_of);
                plain.insert(index, ());
            }
        }
    }
}
