//! A line of waiting contacts that knows everyone's position: an order-statistics treap.
//!
//! Keys are (arrival, contact); insert, remove and rank are O(log n) expected. The heap
//! order comes from a hash of the contact, so the shape depends on nothing but the
//! content. Rejected: `BTreeSet::range(..).count()`, which walks everyone ahead; a Fenwick
//! tree over arrivals, which must be rebuilt as time goes on; a sorted vector, which moves
//! half a long line at each departure from its middle.

use crate::{ContactId, TimeMs};

/// A place in line: who came earlier goes first; the contact settles ties.
pub(super) type Place = (TimeMs, ContactId);

const NIL: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node {
    place: Place,
    heap: u64,
    left: u32,
    right: u32,
    size: u32,
}

/// Waiting contacts in order of arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Option<u32>,
}

/// SplitMix64's finaliser over both halves of the id.
fn heap_of(contact: ContactId) -> u64 {
    let mut x = (contact.0 as u64) ^ ((contact.0 >> 64) as u64).rotate_left(32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Order {
    /// How many are in line.
    pub(super) fn len(&self) -> u32 {
        self.size(self.root.unwrap_or(NIL))
    }

    /// Who came first.
    pub(super) fn first(&self) -> Option<Place> {
        let mut at = self.root?;
        while self.node(at).left != NIL {
            at = self.node(at).left;
        }
        Some(self.node(at).place)
    }

    /// How many are ahead of this place, whether it is in line or not.
    pub(super) fn ahead(&self, place: Place) -> u32 {
        let mut at = self.root.unwrap_or(NIL);
        let mut ahead = 0;
        while at != NIL {
            let node = self.node(at);
            if node.place < place {
                ahead += self.size(node.left) + 1;
                at = node.right;
            } else {
                at = node.left;
            }
        }
        ahead
    }

    /// Puts a place in line. It must not be there.
    pub(super) fn insert(&mut self, place: Place) {
        let node = Node {
            place,
            heap: heap_of(place.1),
            left: NIL,
            right: NIL,
            size: 1,
        };
        let new = match self.free.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("a pool's waiting_max is below 2^32")
            }
        };
        let (left, right) = self.split(self.root.unwrap_or(NIL), place);
        let left = self.merge(left, new);
        let root = self.merge(left, right);
        self.root = Some(root);
    }

    /// Takes a place out of line; false if it was not there.
    pub(super) fn remove(&mut self, place: Place) -> bool {
        if !self.contains(place) {
            return false;
        }
        // Walk down, shrinking the sizes on the path, and put the node's children in its stead.
        let mut at = self.root.unwrap_or(NIL);
        let mut parent = NIL;
        while self.node(at).place != place {
            self.node_mut(at).size -= 1;
            parent = at;
            at = if place < self.node(at).place {
                self.node(at).left
            } else {
                self.node(at).right
            };
        }
        let joined = self.merge(self.node(at).left, self.node(at).right);
        if parent == NIL {
            self.root = (joined != NIL).then_some(joined);
        } else if self.node(parent).left == at {
            self.node_mut(parent).left = joined;
        } else {
            self.node_mut(parent).right = joined;
        }
        self.free.push(at);
        true
    }

    fn contains(&self, place: Place) -> bool {
        let mut at = self.root.unwrap_or(NIL);
        while at != NIL {
            let node = self.node(at);
            if node.place == place {
                return true;
            }
            at = if place < node.place {
                node.left
            } else {
                node.right
            };
        }
        false
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    fn size(&self, index: u32) -> u32 {
        if index == NIL {
            0
        } else {
            self.node(index).size
        }
    }

    fn resize(&mut self, index: u32) {
        let size = 1 + self.size(self.node(index).left) + self.size(self.node(index).right);
        self.node_mut(index).size = size;
    }

    /// Those before `place`, and the rest. Recursion is as deep as the tree: logarithmic.
    fn split(&mut self, at: u32, place: Place) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        if self.node(at).place < place {
            let (left, right) = self.split(self.node(at).right, place);
            self.node_mut(at).right = left;
            self.resize(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.node(at).left, place);
            self.node_mut(at).left = right;
            self.resize(at);
            (left, at)
        }
    }

    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        if self.node(left).heap > self.node(right).heap {
            let joined = self.merge(self.node(left).right, right);
            self.node_mut(left).right = joined;
            self.resize(left);
            left
        } else {
            let joined = self.merge(left, self.node(right).left);
            self.node_mut(right).left = joined;
            self.resize(right);
            right
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_agree_with_a_sorted_vector_under_random_changes() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut order = Order::default();
        let mut plain: Vec<Place> = Vec::new();
        for step in 0..20_000_u64 {
            let place = (TimeMs(next(500)), ContactId(u128::from(next(40))));
            match plain.binary_search(&place) {
                Ok(position) if next(2) == 0 => {
                    assert!(order.remove(place), "step {step}");
                    plain.remove(position);
                }
                Ok(position) => assert_eq!(order.ahead(place) as usize, position, "step {step}"),
                Err(position) => {
                    assert!(!order.remove(place), "step {step}");
                    assert_eq!(order.ahead(place) as usize, position, "step {step}");
                    order.insert(place);
                    plain.insert(position, place);
                }
            }
            assert_eq!(order.len() as usize, plain.len(), "step {step}");
            assert_eq!(order.first(), plain.first().copied(), "step {step}");
        }
    }
}
