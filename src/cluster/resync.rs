//! Decides which peers a node sends again after an outage, when the node refills the store, and which batches are its own.
//! This module does no I/O: the writer and the reader call it.

use std::fmt;
use std::str::FromStr;

use crate::cluster::wire::BatchSender;
use crate::tracker::types::Time;

/// Writes that the store accepted this long before it was lost may be lost too: a replica that takes over lags behind.
pub const REPLICA_LAG_SECS: u32 = 10;

/// A store holding fewer than this percentage of our own peer count is considered incomplete; this node then refills it.
const MIN_FILL_PERCENT: u64 = 90;

/// A marker in the store: the streams hold every peer of the node that wrote it. The marker is lost when the store is
/// emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FillMarker {
    /// Store time in milliseconds at which the refill ended; later than any epoch that the node has seen, even if the
    /// store's clock went back.
    pub epoch: u64,
    /// Number of peers that the node sent.
    pub peers: u64,
}

impl fmt::Display for FillMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.epoch, self.peers)
    }
}

impl FromStr for FillMarker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, peers) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(drop)?,
            peers: peers.parse().map_err(drop)?,
        })
    }
}

/// The state in which a node finds the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreState {
    /// The marker is the same as before.
    Unchanged,
    /// Another node has refilled the store.
    Refilled,
    /// The store was emptied, was filled by a node that knew far fewer peers, or is an earlier store that has come back.
    /// This node must refill it from memory, unless another node already does.
    NeedsRefill {
        /// Entries older than this (store clock) predate a failover and are trimmed before refilling: peers in them may
        /// have left since. `None`: nothing is trimmed.
        outdated_ms: Option<u64>,
    },
}

/// A node's knowledge of which of its peers the other nodes share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resync {
    own: BatchSender,
    /// The other nodes may not know the peers that were updated since this time.
    unsent_since: Option<Time>,
    /// The peers that were updated since this time are being sent again now.
    resending_since: Option<Time>,
    /// The last resend that is complete.
    last_resend: Option<CompletedResend>,
    /// Epoch of the marker last seen.
    epoch: Option<u64>,
    /// Store time in milliseconds at which the store was first found incomplete.
    incomplete_since_ms: Option<u64>,
}

/// A resend that is complete. A replica that lags behind may not have received its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CompletedResend {
    /// The peers that were updated since this time were sent.
    since: Time,
    /// When the resend ended.
    ended: Time,
}

impl Resync {
    /// Returns the state of a node that has sent nothing yet: all its peers are unsent.
    pub fn new(own: BatchSender) -> Self {
        Self::resume(own, Some(Time(0)), None)
    }

    /// Returns the state of a node that continues after a restart.
    pub fn resume(own: BatchSender, unsent_since: Option<Time>, epoch: Option<u64>) -> Self {
        Self {
            own,
            unsent_since,
            resending_since: None,
            last_resend: None,
            epoch,
            incomplete_since_ms: None,
        }
    }

    /// Returns the time since which peers are unsent or being sent again, for [`Resync::resume`].
    pub fn unsent_since(&self) -> Option<Time> {
        let both = self.unsent_since.into_iter().chain(self.resending_since);
        both.min()
    }

    /// Returns the epoch last seen, for [`Resync::resume`].
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Records that the connection was lost; the store last accepted writes at `last_success`. A resend that was not
    /// complete, or only just complete, is unsent again.
    pub fn connection_lost(&mut self, last_success: Time) {
        let safe = Time(last_success.0.saturating_sub(REPLICA_LAG_SECS));
        let recent = self.last_resend.take().filter(|done| done.ended >= safe);
        let since = [self.resending_since.take(), recent.map(|done| done.since)];
        let since = since.into_iter().flatten().fold(safe, Time::min);
        self.mark_unsent(since);
    }

    /// Records that the peers that were updated from `since` on were not sent.
    pub fn mark_unsent(&mut self, since: Time) {
        self.unsent_since = Some(self.unsent_since.map_or(since, |unsent| unsent.min(since)));
    }

    /// Starts a resend of the unsent peers, and returns the time since which they were updated. [`Resync::finish_resend`]
    /// ends the resend. Returns `None` if nothing is unsent.
    pub fn start_resend(&mut self) -> Option<Time> {
        let since = self.unsent_since.take()?;
        self.resending_since = Some(self.resending_since.map_or(since, |other| other.min(since)));
        Some(since)
    }

    /// Starts a resend of all peers.
    pub fn start_full_resend(&mut self) {
        (self.unsent_since, self.resending_since) = (None, Some(Time(0)));
    }

    /// Records that the resend is complete.
    pub fn finish_resend(&mut self, now: Time) {
        let since = self.resending_since.take();
        self.last_resend = since.map(|since| CompletedResend { since, ended: now });
    }

    /// Compares the store's marker with the knowledge of this node. `now_ms` is the store's time, `peers` this node's
    /// number of peers.
    pub fn check_marker(
        &mut self,
        now_ms: u64,
        marker: Option<FillMarker>,
        peers: u64,
    ) -> StoreState {
        let known = marker.is_some_and(|marker| self.epoch == Some(marker.epoch));
        // An earlier epoch: a store that had been replaced is back. It lacks all that was sent to its replacement.
        let earlier = |marker: &FillMarker| self.epoch.is_some_and(|seen| marker.epoch <= seen);
        let good = |marker: &FillMarker| {
            !earlier(marker) && marker.peers >= peers.saturating_mul(MIN_FILL_PERCENT) / 100
        };
        match marker.filter(|marker| known || good(marker)) {
            None => {
                let since_ms = *self.incomplete_since_ms.get_or_insert(now_ms);
                let before_ms = since_ms.saturating_sub(1000 * u64::from(REPLICA_LAG_SECS));
                StoreState::NeedsRefill {
                    outdated_ms: marker.filter(earlier).map(|_| before_ms),
                }
            }
            Some(_) if known => {
                self.incomplete_since_ms = None;
                StoreState::Unchanged
            }
            Some(FillMarker { epoch, .. }) => {
                // The node that filled the store may have been disconnected from the others before, and know less than this
                // node. Sending peers that are already known does no harm.
                self.mark_unsent(Time(0));
                (self.epoch, self.incomplete_since_ms) = (Some(epoch), None);
                StoreState::Refilled
            }
        }
    }

    /// Records that this node has sent all its `peers`, at `now_ms` in store time. Returns the marker to store.
    pub fn finish_refill(&mut self, now_ms: u64, peers: u64) -> FillMarker {
        let epoch = self.epoch.map_or(now_ms, |seen| now_ms.max(seen + 1));
        (self.epoch, self.incomplete_since_ms) = (Some(epoch), None);
        FillMarker { epoch, peers }
    }

    /// Returns whether this run of the node sent a batch. Batches of an earlier run may hold updates that this run lacks.
    pub fn is_own(&self, sender: BatchSender) -> bool {
        sender == self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::download_counters::NodeId;

    const INCOMPLETE: StoreState = StoreState::NeedsRefill { outdated_ms: None };
    const OUTDATED: StoreState = StoreState::NeedsRefill {
        outdated_ms: Some(10_000),
    };

    fn own() -> BatchSender {
        BatchSender {
            node: NodeId(7),
            run: 1,
        }
    }

    fn marker(epoch: u64, peers: u64) -> Option<FillMarker> {
        Some(FillMarker { epoch, peers })
    }

    #[test]
    fn resend_covers_the_earliest_loss_and_happens_once() {
        let mut resync = Resync::new(own());
        assert_eq!(resync.start_resend(), Some(Time(0)), "all peers at first");
        assert_eq!(resync.start_resend(), None);
        assert_eq!(resync.unsent_since(), Some(Time(0)), "until it is complete");
        resync.connection_lost(Time(50));
        assert_eq!(resync.start_resend(), Some(Time(0)), "it was not complete");
        resync.finish_resend(Time(60));
        assert_eq!(resync.unsent_since(), None);
        resync.connection_lost(Time(100));
        resync.mark_unsent(Time(95));
        assert_eq!(resync.start_resend(), Some(Time(90)));
        resync.finish_resend(Time(110));
        resync.connection_lost(Time(119));
        let since = resync.start_resend();
        assert_eq!(since, Some(Time(90)), "a replica may lag behind");
        resync.finish_resend(Time(120));
        resync.connection_lost(Time(131));
        assert_eq!(resync.unsent_since(), Some(Time(121)));
        resync.connection_lost(Time(3));
        assert_eq!(resync.unsent_since(), Some(Time(0)));
    }

    #[test]
    fn store_without_a_good_marker_is_refilled_by_a_single_node() {
        let mut first = Resync::resume(own(), None, None);
        let mut second = first.clone();
        assert_eq!(first.check_marker(20_000, None, 100), INCOMPLETE);
        let stored = Some(first.finish_refill(1, 100));
        assert_eq!(stored, marker(1, 100));
        let check = |node: &mut Resync, marker, peers| node.check_marker(20_000, marker, peers);
        assert_eq!(check(&mut first, stored, 1000), StoreState::Unchanged);
        assert_eq!(first.start_resend(), None);
        assert_eq!(check(&mut second, stored, 111), StoreState::Refilled);
        let since = second.start_resend();
        assert_eq!(since, Some(Time(0)), "the first node may know less");
        assert_eq!(check(&mut second, stored, 1000), StoreState::Unchanged);
        // A node that had just started filled the store.
        let state = check(&mut second, marker(2, 10), 100);
        assert_eq!(state, INCOMPLETE, "its entries may be new: none is trimmed");
        let state = check(&mut second, marker(2, 90), 100);
        assert_eq!(state, StoreState::Refilled);
        assert_eq!(second.start_resend(), Some(Time(0)));
    }

    #[test]
    fn earlier_store_that_comes_back_is_trimmed_and_refilled() {
        let mut resync = Resync::new(own());
        let first = resync.finish_refill(1000, 100);
        let state = resync.check_marker(20_000, None, 100);
        assert_eq!(state, INCOMPLETE, "a new store");
        let second = resync.finish_refill(900, 100);
        assert_eq!(second.epoch, 1001, "the new store's clock is behind");
        assert_eq!(resync.check_marker(20_000, Some(first), 100), OUTDATED);
        let later = resync.check_marker(90_000, Some(first), 100);
        assert_eq!(later, OUTDATED, "entries written since then are kept");
        assert_eq!(
            resync.check_marker(91_000, Some(second), 100),
            StoreState::Unchanged
        );
        let again = resync.check_marker(92_000, Some(first), 100);
        let outdated_ms = Some(82_000);
        assert_eq!(again, StoreState::NeedsRefill { outdated_ms });
    }

    #[test]
    fn batches_of_an_earlier_run_are_not_own() {
        let resync = Resync::new(own());
        assert!(resync.is_own(own()));
        assert!(!resync.is_own(BatchSender { run: 2, ..own() }));
        let node = NodeId(8);
        assert!(!resync.is_own(BatchSender { node, ..own() }));
    }

    #[test]
    fn markers_round_trip() {
        let written = marker(0xabc, 12).unwrap();
        assert_eq!(written.to_string(), "0000000000000abc 12");
        assert_eq!(written.to_string().parse(), Ok(written));
        for wrong in ["", "1", "x 1", "1 x", "1 1 1"] {
            assert_eq!(wrong.parse::<FillMarker>(), Err(()), "{wrong}");
        }
    }
}
