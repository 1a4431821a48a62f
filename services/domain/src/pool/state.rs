//! What a pool holds in memory: the records, and the indexes that follow from them.
//!
//! | structure | key | for |
//! |---|---|---|
//! | [`Lane`] | queue x language | position, counts, expected wait |
//! | [`Desk`] | skill x language | who is ready, by proficiency; who heads each class in line |
//! | timers | (when, whose) | every deadline: one entry an owner, derived from the record |
//!
//! An agent stands at one desk for each (skill, language): it joins as many sets as it has
//! skills, whatever the number of queues. A caller looks at the ten proficiency levels of
//! one desk. Rejected: one ready set a queue, in which an agent of a skill that two hundred
//! queues need would be entered two hundred times on each change of state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lookup::{Key, Lookup};
use super::order::Order;
use super::record::{AgentRecord, EndedContact, OpenContact};
use crate::{AgentId, BootId, CallerId, ContactId, TimeMs};

/// Proficiency levels.
pub(super) const LEVELS: usize = 10;

/// A contact in memory.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) id: ContactId,
    pub(super) record: OpenContact,
    pub(super) line: u32,
    pub(super) topic: u32,
    pub(super) queue: u16,
    pub(super) language: u16,
    pub(super) indexed: Indexed,
    pub(super) changed: bool,
}

/// Where a contact is entered now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Indexed {
    /// In the order of this lane; as a virtual entry?
    pub(super) lane: Option<(u32, bool)>,
    /// Among the virtual entries of this lane whose turn has not come.
    pub(super) turn: Option<u32>,
    /// In line at this desk, in this class.
    pub(super) desk: Option<(u32, Class)>,
    /// Takes one of the caller's places on this line.
    pub(super) caller: Option<(u32, CallerId)>,
    /// Its timer.
    pub(super) wake: Option<TimeMs>,
}

/// Contacts of one class keep their order for ever: earlier is never worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) proficiency_min: u8,
    pub(super) start: u32,
    pub(super) acceleration: u32,
}

/// An agent in memory.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) record: AgentRecord,
    /// (desk, proficiency).
    pub(super) desks: Vec<(u32, u8)>,
    /// Entered as ready under this key.
    pub(super) ready: Option<(TimeMs, u64)>,
    /// Counted as staff at its desks.
    pub(super) staffed: bool,
    /// In the list of agents to be served.
    pub(super) freed: bool,
    pub(super) wake: Option<TimeMs>,
    pub(super) class: AgentClass,
    pub(super) changed: bool,
}

/// What an agent does, for counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AgentClass {
    #[default]
    NotReady,
    Ready,
    WrappingUp,
    Held,
    Reserved,
    Talking,
}

/// Agents in each class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgentCounts(pub(super) [u32; 6]);

impl AgentCounts {
    pub(super) fn of(&self, class: AgentClass) -> u32 {
        self.0[class as usize]
    }
}

/// A queue's callers of one language.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: u16,
    pub(super) desk: u32,
    /// All who wait, live and virtual.
    pub(super) order: Order,
    pub(super) waiting_virtual: u32,
    /// Virtual entries whose turn has not come.
    pub(super) turns: BTreeSet<(TimeMs, ContactId, u32)>,
    /// Agents reserved for, talking to or wrapping up its contacts.
    pub(super) busy: u32,
}

/// Those who have one skill and speak one language, and those who need them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Ready agents by proficiency: (idle since, sequence, agent).
    pub(super) ready: [BTreeSet<(TimeMs, u64, u32)>; LEVELS],
    /// Agents who would take calls, ready or busy, by proficiency.
    pub(super) staffed: [u32; LEVELS],
    /// In line by class: (arrival, contact, index). No class without anyone.
    pub(super) waiting: BTreeMap<Class, BTreeSet<(TimeMs, ContactId, u32)>>,
}

impl Desk {
    pub(super) fn staff(&self, proficiency_min: u8) -> u32 {
        self.staffed[usize::from(proficiency_min) - 1..]
            .iter()
            .sum()
    }

    pub(super) fn ready_count(&self, proficiency_min: u8) -> usize {
        self.ready[usize::from(proficiency_min) - 1..]
            .iter()
            .map(BTreeSet::len)
            .sum()
    }
}

/// Whose timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Contact(u32),
    Agent(u32),
    /// Turns of virtual entries are looked at again.
    Turns,
    /// Ended contacts are forgotten.
    Forget,
}

/// An ended contact in memory.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) record: EndedContact,
    pub(super) changed: bool,
}

/// A snapshot that a switch is sending.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) boot: BootId,
    pub(super) begun_at: TimeMs,
    pub(super) contacts: BTreeSet<ContactId>,
    pub(super) agents: BTreeSet<AgentId>,
}

/// Indexes that are stable for the life of the process, given out by name.
#[derive(Debug, Default)]
pub(super) struct Languages {
    names: Vec<Arc<str>>,
    by_name: BTreeMap<Arc<str>, u16>,
}

/// Languages a pool tells apart; the 350 of the interpreters' line and some variants.
pub(super) const LANGUAGES_MAX: usize = 1_024;

impl Languages {
    pub(super) fn get(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// The index of a language; `None` when there are too many.
    pub(super) fn intern(&mut self, name: &str) -> Option<u16> {
        if let Some(index) = self.get(name) {
            return Some(index);
        }
        if self.names.len() >= LANGUAGES_MAX {
            return None;
        }
        let index = u16::try_from(self.names.len()).expect("LANGUAGES_MAX is below 2^16");
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.by_name.insert(name, index);
        Some(index)
    }

    pub(super) fn name(&self, index: u16) -> &Arc<str> {
        &self.names[usize::from(index)]
    }
}

/// An item that is looked up by its id.
pub(super) trait Named {
    /// The hash of its id.
    fn hash(&self) -> u64;
}

impl Named for Contact {
    fn hash(&self) -> u64 {
        Key::hash(&self.id)
    }
}

impl Named for Agent {
    fn hash(&self) -> u64 {
        self.id.as_str().hash()
    }
}

/// A vector with holes, which are filled again, and a table of its ids.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
    lookup: Lookup,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
            lookup: Lookup::default(),
        }
    }
}

fn hash_in<T: Named>(items: &[Option<T>]) -> impl Fn(u32) -> u64 + '_ {
    |index| items[index as usize].as_ref().map_or(0, Named::hash)
}

impl<T: Named> Slab<T> {
    /// Takes an item in; none of its id may be there.
    pub(super) fn insert(&mut self, item: T) -> u32 {
        let hash = item.hash();
        let index = match self.free.pop() {
            Some(index) => {
                self.items[index as usize] = Some(item);
                index
            }
            None => {
                self.items.push(Some(item));
                u32::try_from(self.items.len() - 1).expect("policy's limits are below 2^32")
            }
        };
        self.lookup.insert(hash, index, hash_in(&self.items));
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let hash = self.items.get(index as usize)?.as_ref()?.hash();
        self.lookup.remove(hash, index, hash_in(&self.items));
        self.free.push(index);
        self.items[index as usize].take()
    }
}

impl Slab<Contact> {
    /// The contact of this id.
    pub(super) fn find(&self, id: ContactId) -> Option<u32> {
        self.lookup.find(id.hash(), |index| {
            self.items[index as usize]
                .as_ref()
                .is_some_and(|item| item.id == id)
        })
    }
}

impl Slab<Agent> {
    /// The agent of this id.
    pub(super) fn find(&self, id: &AgentId) -> Option<u32> {
        let is = |index: u32| {
            self.items[index as usize]
                .as_ref()
                .is_some_and(|item| item.id == *id)
        };
        self.lookup.find(id.as_str().hash(), is)
    }
}

impl<T> Slab<T> {
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.items.get(index as usize)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0_u32..)
            .zip(&self.items)
            .filter_map(|(index, item)| Some((index, item.as_ref()?)))
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.items[index as usize]
            .as_ref()
            .expect("indexes are given out by the slab and dropped with the item")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.items[index as usize]
            .as_mut()
            .expect("indexes are given out by the slab and dropped with the item")
    }
}
