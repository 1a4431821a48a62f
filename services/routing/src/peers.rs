//! Who is linked, what waits for them, and who gets a command, a turn or a notice.
//!
//! Each peer has one queue of frames, bounded in messages: a peer that does not read is
//! cut and its queue emptied, never buffered for ever. What is lost with it comes again:
//! inputs are repeated by the peer, commands by the pool's timers, turns and notices by
//! the pool until acknowledged.
//!
//! A command goes to the gateway that last announced its switch. With none, it waits here,
//! bounded in number and in time: after half a reservation the pool may soon give the
//! agent to somebody else, and a late deflect would put two calls on one agent.
//!
//! Rejected: one channel per kind of message (their order would be lost), and waiting for
//! room (one stuck gateway would hold up a whole pool).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::routing::v1::{self, LinkResponse, SwitchCommand};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, ReasonLabels};

/// Most messages of one frame: the contract's number.
pub(crate) const FRAME_MESSAGES_MAX: usize = 512;
/// Most switches that one gateway may announce.
const SWITCHES_MAX: usize = 4_096;

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Gateway,
    Callback,
}

/// One linked peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) serial: u64,
    pub(crate) id: String,
    pub(crate) role: Role,
    queue: Arc<FrameQueue>,
}

impl Peer {
    /// Queues a frame; a peer whose queue is full is cut.
    pub(crate) fn send(&self, frame: LinkResponse) {
        if !self.queue.push(frame) {
            tracing::warn!(
                peer = self.id,
                serial = self.serial,
                queued_messages_max = self.queue.messages_max,
                "peer does not read, disconnecting it"
            );
        }
    }

    /// Whether it has been cut, or its stream has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.queue.gone.is_cancelled()
    }
}

/// Frames that wait for one peer.
#[derive(Debug)]
pub(crate) struct FrameQueue {
    frames: Mutex<Queued>,
    filled: Notify,
    messages_max: usize,
    cut: AtomicBool,
    pub(crate) gone: CancellationToken,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queued {
    frames: VecDeque<LinkResponse>,
    messages: usize,
}

fn messages(frame: &LinkResponse) -> usize {
    frame.replies.len() + frame.commands.len() + frame.virtual_due.len() + frame.notices.len()
}

impl FrameQueue {
    pub(crate) fn new(messages_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            frames: Mutex::default(),
            filled: Notify::new(),
            messages_max,
            cut: AtomicBool::new(false),
            gone: CancellationToken::new(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false`: just now cut, because it is full.
    fn push(&self, frame: LinkResponse) -> bool {
        if self.gone.is_cancelled() {
            return true;
        }
        let size = messages(&frame);
        if size == 0 {
            return true;
        }
        let mut queued = self.lock();
        if queued.messages + size > self.messages_max {
            *queued = Queued::default();
            drop(queued);
            self.cut.store(true, Ordering::Relaxed);
            self.metrics.peers_cut.inc();
            self.gone.cancel();
            return false;
        }
        queued.messages += size;
        queued.frames.push_back(frame);
        drop(queued);
        self.filled.notify_one();
        true
    }

    /// The next frame, filled up from those behind it.
    pub(crate) fn pop(&self) -> Option<LinkResponse> {
        let mut queued = self.lock();
        let mut frame = queued.frames.pop_front()?;
        let mut size = messages(&frame);
        while let Some(next) = queued.frames.front() {
            let more = messages(next);
            if size + more > FRAME_MESSAGES_MAX {
                break;
            }
            size += more;
            let next = queued.frames.pop_front().expect("just seen");
            frame.replies.extend(next.replies);
            frame.commands.extend(next.commands);
            frame.virtual_due.extend(next.virtual_due);
            frame.notices.extend(next.notices);
        }
        queued.messages -= size;
        Some(frame)
    }

    /// Waits until there may be a frame.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// It was cut because it was full.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// A pool's messages that are not replies.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) commands: Vec<SwitchCommand>,
    pub(crate) virtual_due: Vec<v1::VirtualDue>,
    pub(crate) notices: Vec<v1::CallbackNotice>,
}

impl Messages {
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.virtual_due.is_empty() && self.notices.is_empty()
    }
}

/// Everybody who is linked.
pub(crate) struct Peers {
    state: Mutex<State>,
    pending_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    next_serial: u64,
    peers: BTreeMap<u64, Arc<Peer>>,
    /// Gateways that announced the switch, the last one last.
    switches: HashMap<String, Vec<u64>>,
    /// By pool.
    pending: BTreeMap<String, VecDeque<Pending>>,
    pending_commands: usize,
}

struct Pending {
    until: Instant,
    command: SwitchCommand,
}

impl Peers {
    pub(crate) fn new(pending_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            pending_max,
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Peers linked now.
    pub(crate) fn len(&self) -> usize {
        self.lock().peers.len()
    }

    /// A peer said hello.
    pub(crate) fn join(&self, id: String, role: Role, queue: Arc<FrameQueue>) -> Arc<Peer> {
        let mut state = self.lock();
        state.next_serial += 1;
        let peer = Arc::new(Peer {
            serial: state.next_serial,
            id,
            role,
            queue,
        });
        state.peers.insert(peer.serial, Arc::clone(&peer));
        self.metrics
            .peers
            .set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
        peer
    }

    /// Its stream ended.
    pub(crate) fn leave(&self, peer: &Peer) {
        peer.queue.gone.cancel();
        let mut state = self.lock();
        state.peers.remove(&peer.serial);
        state.switches.retain(|_, serials| {
            serials.retain(|serial| *serial != peer.serial);
            !serials.is_empty()
        });
        self.metrics
            .peers
            .set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
    }

    /// The switches whose command stream is attached to this gateway now; what waited for
    /// them is sent.
    pub(crate) fn attach(&self, peer: &Arc<Peer>, mut switches: Vec<String>) {
        switches.truncate(SWITCHES_MAX);
        let switches: HashSet<String> = switches.into_iter().collect();
        let mut sent = Vec::new();
        let mut state = self.lock();
        state.switches.retain(|switch, serials| {
            // One that was announced before and still is keeps its rank.
            serials.retain(|serial| *serial != peer.serial || switches.contains(switch));
            !serials.is_empty()
        });
        for switch in &switches {
            let serials = state.switches.entry(switch.clone()).or_default();
            if !serials.contains(&peer.serial) {
                serials.push(peer.serial);
            }
        }
        let now = Instant::now();
        let mut left = 0;
        for pending in state.pending.values_mut() {
            for waiting in std::mem::take(pending) {
                if waiting.until <= now {
                    self.dropped("too_old");
                } else if switches.contains(&waiting.command.switch_id) {
                    sent.push(waiting.command);
                } else {
                    left += 1;
                    pending.push_back(waiting);
                }
            }
        }
        state.pending_commands = left;
        self.metrics
            .commands_pending
            .set(i64::try_from(left).unwrap_or(i64::MAX));
        drop(state);
        for commands in chunks(sent) {
            peer.send(LinkResponse {
                commands,
                ..LinkResponse::default()
            });
        }
    }

    /// Sends a pool's messages to those they are for.
    pub(crate) fn dispatch(&self, pool: &str, messages: Messages, keep: Duration) {
        if messages.is_empty() {
            return;
        }
        let mut frames: BTreeMap<u64, (Arc<Peer>, Messages)> = BTreeMap::new();
        let mut state = self.lock();
        for command in messages.commands {
            match state.gateway_of(&command.switch_id) {
                Some(peer) => entry(&mut frames, peer).commands.push(command),
                None => self.pend(&mut state, pool, command, keep),
            }
        }
        for due in messages.virtual_due {
            if let Some(peer) = state.callback_for(&due.contact_id) {
                entry(&mut frames, peer).virtual_due.push(due);
            } else {
                // The pool tells it again.
                self.dropped("no_callback_peer");
            }
        }
        for notice in messages.notices {
            if let Some(peer) = state.callback_for(&notice.contact_id) {
                entry(&mut frames, peer).notices.push(notice);
            } else {
                self.dropped("no_callback_peer");
            }
        }
        drop(state);
        for (peer, messages) in frames.into_values() {
            for commands in chunks(messages.commands) {
                peer.send(LinkResponse {
                    commands,
                    ..LinkResponse::default()
                });
            }
            for virtual_due in chunks(messages.virtual_due) {
                peer.send(LinkResponse {
                    virtual_due,
                    ..LinkResponse::default()
                });
            }
            for notices in chunks(messages.notices) {
                peer.send(LinkResponse {
                    notices,
                    ..LinkResponse::default()
                });
            }
        }
    }

    /// The pool is not ours any more: its commands are its new owner's business.
    pub(crate) fn forget(&self, pool: &str) {
        let mut state = self.lock();
        if let Some(pending) = state.pending.remove(pool) {
            state.pending_commands -= pending.len();
        }
        self.show_pending(&state);
    }

    fn pend(&self, state: &mut State, pool: &str, command: SwitchCommand, keep: Duration) {
        let pending = state.pending.entry(pool.to_owned()).or_default();
        let now = Instant::now();
        let mut gone = 0;
        while pending.front().is_some_and(|waiting| waiting.until <= now) {
            pending.pop_front();
            self.dropped("too_old");
            gone += 1;
        }
        if pending.len() >= self.pending_max {
            pending.pop_front();
            self.dropped("too_many");
            gone += 1;
        }
        pending.push_back(Pending {
            until: now + keep,
            command,
        });
        state.pending_commands = state.pending_commands + 1 - gone;
        self.show_pending(state);
    }

    fn show_pending(&self, state: &State) {
        self.metrics
            .commands_pending
            .set(i64::try_from(state.pending_commands).unwrap_or(i64::MAX));
    }

    fn dropped(&self, reason: &'static str) {
        self.metrics
            .commands_dropped
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }
}

impl State {
    fn gateway_of(&self, switch: &str) -> Option<Arc<Peer>> {
        let serials = self.switches.get(switch)?;
        serials
            .iter()
            .rev()
            .find_map(|serial| self.peers.get(serial).filter(|peer| !peer.is_gone()))
            .cloned()
    }

    /// One callback replica a contact, the same as long as the same are linked
    /// (rendezvous hashing), so that repeats do not race each other.
    fn callback_for(&self, contact: &[u8]) -> Option<Arc<Peer>> {
        self.peers
            .values()
            .filter(|peer| peer.role == Role::Callback && !peer.is_gone())
            .max_by_key(|peer| fnv(contact, peer.id.as_bytes()))
            .cloned()
    }
}

fn entry(frames: &mut BTreeMap<u64, (Arc<Peer>, Messages)>, peer: Arc<Peer>) -> &mut Messages {
    &mut frames
        .entry(peer.serial)
        .or_insert_with(|| (peer, Messages::default()))
        .1
}

/// FNV-1a with a final mix: small, and the same in every process.
fn fnv(contact: &[u8], peer: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in contact.iter().chain(peer) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Frames' worth of messages each.
pub(crate) fn chunks<T>(mut messages: Vec<T>) -> Vec<Vec<T>> {
    let mut chunks = Vec::with_capacity(messages.len().div_ceil(FRAME_MESSAGES_MAX));
    while messages.len() > FRAME_MESSAGES_MAX {
        let rest = messages.split_off(FRAME_MESSAGES_MAX);
        chunks.push(std::mem::replace(&mut messages, rest));
    }
    if !messages.is_empty() {
        chunks.push(messages);
    }
    chunks
}

#[cfg(test)]
mod tests;
