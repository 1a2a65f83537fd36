//! What a tracker in a cluster decides: what it owes the others after an outage, when it fills an emptied engine redelivered, and
//! which batches are its own. Pure: the adapter asks, and so does the simulation.

use std::fmt;
use std::str::FromStr;

use crate::cluster::wire::Sender;
use crate::tracker::Time;

/// How long before the engine was lost what it took may be lost as well: a replica that takes over lags behind.
pub const REPLICA_LAG_SECS: u32 = 10;

/// Of how many hundredths of its own peers a node must find an engine fill_marker with, or it fills it as well.
const MIN_FILL_PERCENT: u64 = 90;

/// The place of an entry in a stream, which also says when it came there by the engine's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct EntryId {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Among those of one millisecond.
    pub number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, number) = text.split_once('-').ok_or(())?;
        Ok(Self {
            ms: ms.parse().map_err(drop)?,
            number: number.parse().map_err(drop)?,
        })
    }
}

/// What a node writes into an engine once it holds all that the node contains. It goes when the engine is emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Later than any that the node has seen: the engine's milliseconds, unless those went back.
    pub epoch: u64,
    /// How many peers the node knew.
    pub peers: u64,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {}", self.epoch, self.peers)
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, peers) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(drop)?,
            peers: peers.parse().map_err(drop)?,
        })
    }
}

/// How a node finds the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreState {
    /// As it was.
    Unchanged,
    /// Filled redelivered by another node.
    Refilled,
    /// Emptied, or fill_marker by a node that knew far less: to be fill_marker from this node's memory, if no other is about it.
    NeedsRefill {
        /// What came before then, in its milliseconds, is from before another stood in for it: nobody is to learn of peers that
        /// have left since. `None`: nothing is, if there is anything.
        outdated_ms: Option<u64>,
    },
}

/// Where a node stands towards the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resync {
    own: Sender,
    /// What was heard since then the others may not know.
    unsent_since: Option<Time>,
    /// What they are being told, from then on.
    resending_since: Option<Time>,
    /// What they were told last, from then on, and when the end of it was told: a replica may not have got it.
    told: Option<(Time, Time)>,
    /// The marker's, when last seen.
    epoch: Option<u64>,
    /// Since when the engine has been found wanting, in its milliseconds.
    wanting_ms: Option<u64>,
}

impl Resync {
    /// One that has told nothing yet: it owes all that it contains.
    pub fn new(own: Sender) -> Self {
        Self::resume(own, Some(Time(0)), None)
    }

    /// One that goes on where its former self stood.
    pub fn resume(own: Sender, unsent_since: Option<Time>, epoch: Option<u64>) -> Self {
        Self {
            own,
            unsent_since,
            resending_since: None,
            told: None,
            epoch,
            wanting_ms: None,
        }
    }

    /// For [`Resync::resume`].
    pub fn unsent_since(&self) -> Option<Time> {
        let both = self.unsent_since.into_iter().chain(self.resending_since);
        both.min()
    }

    /// For [`Resync::resume`].
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// The engine was lost; at `last` it had last taken what it was given. What was being told, or just had been, is owed redelivered.
    pub fn lost(&mut self, last: Time) {
        let taken = Time(last.0.saturating_sub(REPLICA_LAG_SECS));
        let told = self.told.take().filter(|(_, at)| *at >= taken);
        let since = [self.resending_since.take(), told.map(|(since, _)| since)];
        let since = since.into_iter().flatten().fold(taken, Time::min);
        self.dropped(since);
    }

    /// What was heard from `since` on was not told.
    pub fn dropped(&mut self, since: Time) {
        self.unsent_since = Some(self.unsent_since.map_or(since, |owed| owed.min(since)));
    }

    /// Takes what is owed, to tell it now: all that was heard since then. [`Resync::settled`] is the end of it.
    pub fn settle(&mut self) -> Option<Time> {
        let since = self.unsent_since.take()?;
        self.resending_since = Some(self.resending_since.map_or(since, |told| told.min(since)));
        Some(since)
    }

    /// Takes on to tell all.
    pub fn settle_all(&mut self) {
        (self.unsent_since, self.resending_since) = (None, Some(Time(0)));
    }

    /// What was to be told has been, by now.
    pub fn settled(&mut self, now: Time) {
        self.told = self.resending_since.take().map(|since| (since, now));
    }

    /// Looks at the marker in the engine at `now_ms` of it, knowing `peers` oneself.
    pub fn look(&mut self, now_ms: u64, marker: Option<Marker>, peers: u64) -> StoreState {
        let known = marker.is_some_and(|marker| self.epoch == Some(marker.epoch));
        // An engine is back that was replaced meanwhile, and has missed what its substitute was told.
        let earlier = |marker: &Marker| self.epoch.is_some_and(|seen| marker.epoch <= seen);
        let good = |marker: &Marker| {
            !earlier(marker) && marker.peers >= peers.saturating_mul(MIN_FILL_PERCENT) / 100
        };
        match marker.filter(|marker| known || good(marker)) {
            None => {
                let since_ms = *self.wanting_ms.get_or_insert(now_ms);
                let before_ms = since_ms.saturating_sub(1000 * u64::from(REPLICA_LAG_SECS));
                StoreState::NeedsRefill {
                    outdated_ms: marker.filter(earlier).map(|_| before_ms),
                }
            }
            Some(_) if known => {
                self.wanting_ms = None;
                StoreState::Unchanged
            }
            Some(Marker { epoch, .. }) => {
                // Who fill_marker it may have been cut off from its like before, and know less than this node. To tell what is known
                // does no harm.
                self.dropped(Time(0));
                (self.epoch, self.wanting_ms) = (Some(epoch), None);
                StoreState::Refilled
            }
        }
    }

    /// It has told all `peers` that it contains, at `now_ms` of the engine; gives the marker to say so.
    pub fn refilled(&mut self, now_ms: u64, peers: u64) -> Marker {
        let epoch = self.epoch.map_or(now_ms, |seen| now_ms.max(seen + 1));
        (self.epoch, self.wanting_ms) = (Some(epoch), None);
        Marker { epoch, peers }
    }

    /// Whether a batch is this node's own, of this life: what a former self told may be news.
    pub fn is_own(&self, sender: Sender) -> bool {
        sender == self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::download_counters::NodeId;

    const WANTING: StoreState = StoreState::NeedsRefill { outdated_ms: None };
    const OUTDATED: StoreState = StoreState::NeedsRefill {
        outdated_ms: Some(10_000),
    };

    fn own() -> Sender {
        Sender {
            node: NodeId(7),
            run: 1,
        }
    }

    fn marker(epoch: u64, peers: u64) -> Option<Marker> {
        Some(Marker { epoch, peers })
    }

    #[test]
    fn a_debt_goes_back_to_the_earliest_loss_and_is_paid_once() {
        let mut member = Resync::new(own());
        assert_eq!(member.settle(), Some(Time(0)), "all, at first");
        assert_eq!(member.settle(), None);
        assert_eq!(member.unsent_since(), Some(Time(0)), "until it is told");
        member.lost(Time(50));
        assert_eq!(member.settle(), Some(Time(0)), "as it was not");
        member.settled(Time(60));
        assert_eq!(member.unsent_since(), None);
        member.lost(Time(100));
        member.dropped(Time(95));
        assert_eq!(member.settle(), Some(Time(90)));
        member.settled(Time(110));
        member.lost(Time(119));
        assert_eq!(member.settle(), Some(Time(90)), "a replica may lag behind");
        member.settled(Time(120));
        member.lost(Time(131));
        assert_eq!(member.unsent_since(), Some(Time(121)));
        member.lost(Time(3));
        assert_eq!(member.unsent_since(), Some(Time(0)));
    }

    #[test]
    fn an_engine_that_lost_its_marker_is_filled_again_and_by_one_alone() {
        let mut one = Resync::resume(own(), None, None);
        let mut other = one.clone();
        assert_eq!(one.look(20_000, None, 100), WANTING);
        let fill_marker = Some(one.refilled(1, 100));
        assert_eq!(fill_marker, marker(1, 100));
        assert_eq!(one.look(20_000, fill_marker, 1000), StoreState::Unchanged);
        assert_eq!(one.settle(), None);
        assert_eq!(other.look(20_000, fill_marker, 111), StoreState::Refilled);
        assert_eq!(other.settle(), Some(Time(0)), "the other may know less");
        assert_eq!(other.look(20_000, fill_marker, 1000), StoreState::Unchanged);
        // By one that had just started.
        let little = other.look(20_000, marker(2, 10), 100);
        assert_eq!(little, WANTING, "what is there may be news");
        assert_eq!(other.look(20_000, marker(2, 90), 100), StoreState::Refilled);
        assert_eq!(other.settle(), Some(Time(0)));
    }

    #[test]
    fn an_engine_that_comes_back_with_what_it_had_is_filled_again() {
        let mut member = Resync::new(own());
        let first = member.refilled(1000, 100);
        assert_eq!(member.look(20_000, None, 100), WANTING, "a new one");
        let second = member.refilled(900, 100);
        assert_eq!(second.epoch, 1001, "its clock is behind");
        assert_eq!(member.look(20_000, Some(first), 100), OUTDATED);
        let later = member.look(90_000, Some(first), 100);
        assert_eq!(later, OUTDATED, "what is told to it since then stays");
        assert_eq!(
            member.look(91_000, Some(second), 100),
            StoreState::Unchanged
        );
        let redelivered = member.look(92_000, Some(first), 100);
        let outdated_ms = Some(82_000);
        assert_eq!(redelivered, StoreState::NeedsRefill { outdated_ms });
    }

    #[test]
    fn a_former_selfs_batches_are_not_its_own() {
        let member = Resync::new(own());
        assert!(member.is_own(own()));
        assert!(!member.is_own(Sender { run: 2, ..own() }));
        let node = NodeId(8);
        assert!(!member.is_own(Sender { node, ..own() }));
    }

    #[test]
    fn ids_and_markers_read_back() {
        for id in ["0-0", "1700000000000-3", "18446744073709551615-1"] {
            assert_eq!(id.parse::<EntryId>().unwrap().to_string(), id);
        }
        let (early, late) = ("9-9".parse::<EntryId>(), "10-0".parse::<EntryId>());
        assert!(early < late);
        for wrong in ["", "1", "1-", "-1", "a-1", "1-1-1"] {
            assert_eq!(wrong.parse::<EntryId>(), Err(()), "{wrong}");
        }
        let written = marker(0xabc, 12).unwrap();
        assert_eq!(written.to_string(), "0000000000000abc 12");
        assert_eq!(written.to_string().parse(), Ok(written));
        for wrong in ["", "1", "x 1", "1 x", "1 1 1"] {
            assert_eq!(wrong.parse::<Marker>(), Err(()), "{wrong}");
        }
    }
}
