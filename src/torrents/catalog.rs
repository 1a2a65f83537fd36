//! The catalog of torrents: an entry for each torrent that a `.torrent` file lists, and the operator's allow and deny
//! lists.
//!
//! An announce does not read the catalog. Each method that changes the catalog returns the ids whose admission changed, and
//! the caller applies these changes to the tracker, which decides on announces.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::tracker::settings::Notice;
use crate::tracker::types::{Admission, InfoHash, Time, Torrent};

/// A torrent that a file lists, or listed until recently. A hybrid torrent has a single entry, which is found under both
/// its ids.
#[derive(Clone, Debug)]
pub struct CatalogEntry {
    pub torrent: Torrent,
    /// The files that list the torrent. If empty, the torrent is tracked until [`CatalogEntry::expires_at`].
    pub files: BTreeSet<PathBuf>,
    pub added: Time,
    /// When the torrent stops being tracked, if its last file was removed.
    pub expires_at: Option<Time>,
}

/// An id and its new admission. The deny list takes precedence over files and the allow list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdmissionChange {
    pub id: InfoHash,
    pub admission: Admission,
}

/// Which torrents are tracked, and the texts for their clients.
#[derive(Debug, Default)]
pub struct Catalog {
    removal_grace_secs: u32,
    /// The entries by the first id of their torrents, which the two maps below refer to.
    entries: HashMap<InfoHash, CatalogEntry>,
    by_file: HashMap<PathBuf, InfoHash>,
    by_id: HashMap<InfoHash, InfoHash>,
    allow: HashSet<InfoHash>,
    deny: HashSet<InfoHash>,
    notices: HashMap<InfoHash, Notice>,
    /// The admissions as returned in changes so far. Ids that are [`Admission::Unlisted`] are left out.
    published: HashMap<InfoHash, Admission>,
}

impl Catalog {
    /// Creates an empty catalog. After its last file was removed, a torrent is tracked for another
    /// `removal_grace_secs`, because files are also replaced and directories are also moved.
    pub fn new(removal_grace_secs: u32) -> Self {
        Self {
            removal_grace_secs,
            ..Self::default()
        }
    }

    /// Sets the time for which torrents stay tracked whose files are removed from now on.
    pub fn set_removal_grace(&mut self, removal_grace_secs: u32) {
        self.removal_grace_secs = removal_grace_secs;
    }

    /// Adds a file, or replaces the torrent that the file lists.
    pub fn add_file(&mut self, path: &Path, torrent: Torrent, now: Time) -> Vec<AdmissionChange> {
        let Some(first) = torrent.ids().next() else {
            return self.remove_file(path, now);
        };
        let mut changes = Vec::new();
        if self
            .by_file
            .get(path)
            .is_some_and(|before| *before != first)
        {
            changes = self.remove_file(path, now);
        }
        let entry = self.entries.entry(first).or_insert_with(|| CatalogEntry {
            torrent,
            files: BTreeSet::new(),
            added: now,
            expires_at: None,
        });
        entry.files.insert(path.to_owned());
        entry.expires_at = None;
        self.by_file.insert(path.to_owned(), first);
        let ids: Vec<_> = entry.torrent.ids().collect();
        self.by_id.extend(ids.iter().map(|id| (*id, first)));
        changes.extend(self.diff(ids));
        changes
    }

    /// Removes a file.
    pub fn remove_file(&mut self, path: &Path, now: Time) -> Vec<AdmissionChange> {
        let Some(first) = self.by_file.remove(path) else {
            return Vec::new();
        };
        let Some(entry) = self.entries.get_mut(&first) else {
            return Vec::new();
        };
        entry.files.remove(path);
        if !entry.files.is_empty() {
            return Vec::new();
        }
        entry.expires_at = Some(Time(now.0.saturating_add(self.removal_grace_secs)));
        // With a grace, the entry waits for `expire`. A search through all entries for each removed file took minutes for a
        // directory of 100,000 files.
        match self.removal_grace_secs {
            0 => self.remove_entries([first]),
            _ => Vec::new(),
        }
    }

    /// Removes the torrents whose grace is over. Visits every entry, so call it about once per second and not on an
    /// announce.
    pub fn expire(&mut self, now: Time) -> Vec<AdmissionChange> {
        let expired = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires_at.is_some_and(|expires_at| expires_at <= now));
        let expired: Vec<_> = expired.map(|(first, _)| *first).collect();
        self.remove_entries(expired)
    }

    fn remove_entries(
        &mut self,
        firsts: impl IntoIterator<Item = InfoHash>,
    ) -> Vec<AdmissionChange> {
        let mut removed = Vec::new();
        for first in firsts {
            if let Some(entry) = self.entries.remove(&first) {
                removed.extend(entry.torrent.ids());
            }
        }
        for id in &removed {
            self.by_id.remove(id);
        }
        self.diff(removed)
    }

    /// Replaces the allow list and the deny list.
    pub fn set_lists(
        &mut self,
        allow: impl IntoIterator<Item = InfoHash>,
        deny: impl IntoIterator<Item = InfoHash>,
    ) -> Vec<AdmissionChange> {
        let allow = std::mem::replace(&mut self.allow, allow.into_iter().collect());
        let deny = std::mem::replace(&mut self.deny, deny.into_iter().collect());
        let mut affected: BTreeSet<InfoHash> = allow.union(&self.allow).copied().collect();
        for id in deny.union(&self.deny) {
            affected.insert(*id);
            affected.extend(
                self.entry(*id)
                    .into_iter()
                    .flat_map(|entry| entry.torrent.ids()),
            );
        }
        self.diff(affected)
    }

    /// Replaces the notices. The notice for a hybrid torrent may use either of its ids.
    pub fn set_notices(&mut self, notices: impl IntoIterator<Item = (InfoHash, Notice)>) {
        self.notices = notices.into_iter().collect();
    }

    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Returns the notices, each under all ids of its torrent.
    pub fn notices_by_id(&self) -> HashMap<InfoHash, Notice> {
        let ids = self.notices.keys().flat_map(|id| self.all_ids(*id));
        ids.filter_map(|id| Some((id, self.notice(id)?.clone())))
            .collect()
    }

    /// Returns the notice for a torrent, under whichever of its ids it was set.
    pub fn notice(&self, id: InfoHash) -> Option<&Notice> {
        self.all_ids(id)
            .into_iter()
            .find_map(|id| self.notices.get(&id))
    }

    pub fn entry(&self, id: InfoHash) -> Option<&CatalogEntry> {
        self.entries.get(self.by_id.get(&id)?)
    }

    /// Returns the entries in no particular order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// Returns how a torrent is treated. A torrent is listed by a file or by the allow list. A hybrid torrent is denied
    /// under both its ids if either is on the deny list.
    pub fn admission(&self, id: InfoHash) -> Admission {
        if self.all_ids(id).iter().any(|id| self.deny.contains(id)) {
            Admission::Denied
        } else if self.by_id.contains_key(&id) || self.allow.contains(&id) {
            Admission::Listed
        } else {
            Admission::Unlisted
        }
    }

    /// Returns the given id first, and after it the other id of a hybrid torrent.
    fn all_ids(&self, id: InfoHash) -> Vec<InfoHash> {
        let others = self
            .entry(id)
            .into_iter()
            .flat_map(|entry| entry.torrent.ids())
            .filter(|other| *other != id);
        std::iter::once(id).chain(others).collect()
    }

    /// Returns the changes of these ids since they were last published, and publishes them.
    fn diff(&mut self, ids: impl IntoIterator<Item = InfoHash>) -> Vec<AdmissionChange> {
        let mut changes = Vec::new();
        for id in ids {
            let admission = self.admission(id);
            let before = match admission {
                Admission::Unlisted => self.published.remove(&id),
                admission => self.published.insert(id, admission),
            };
            if before.unwrap_or_default() != admission {
                changes.push(AdmissionChange { id, admission });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::rng::Rng;
    use crate::tracker::types::InfoHashV2;

    const GRACE: u32 = 600;

    fn id(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn listed(number: u8) -> AdmissionChange {
        AdmissionChange {
            id: id(number),
            admission: Admission::Listed,
        }
    }

    fn denied(number: u8) -> AdmissionChange {
        AdmissionChange {
            id: id(number),
            admission: Admission::Denied,
        }
    }

    fn unlisted(number: u8) -> AdmissionChange {
        AdmissionChange {
            id: id(number),
            admission: Admission::Unlisted,
        }
    }

    fn v1(number: u8) -> Torrent {
        Torrent {
            name: format!("v1-{number}"),
            size: number.into(),
            v1: Some(id(number)),
            v2: None,
        }
    }

    fn hybrid(first: u8, second: u8) -> Torrent {
        Torrent {
            name: format!("hybrid-{first}"),
            size: first.into(),
            v1: Some(id(first)),
            v2: Some(InfoHashV2([second; 32])),
        }
    }

    fn add(catalog: &mut Catalog, path: &str, torrent: Torrent, now: u32) -> Vec<AdmissionChange> {
        catalog.add_file(Path::new(path), torrent, Time(now))
    }

    fn remove(catalog: &mut Catalog, path: &str, now: u32) -> Vec<AdmissionChange> {
        catalog.remove_file(Path::new(path), Time(now))
    }

    #[test]
    fn file_lists_torrent_until_grace_after_removal() {
        let mut catalog = Catalog::new(GRACE);
        assert_eq!(add(&mut catalog, "/a", v1(1), 5), [listed(1)]);
        let entry = catalog.entry(id(1)).unwrap();
        assert_eq!(
            (
                entry.torrent.name.as_str(),
                entry.torrent.size,
                entry.added,
                entry.expires_at
            ),
            ("v1-1", 1, Time(5), None)
        );
        assert_eq!(remove(&mut catalog, "/a", 100), []);
        assert_eq!(catalog.entry(id(1)).unwrap().expires_at, Some(Time(700)));
        assert_eq!(catalog.expire(Time(699)), []);
        assert_eq!(catalog.expire(Time(700)), [unlisted(1)]);
        assert_eq!(catalog.expire(Time(701)), []);
        assert!(catalog.entry(id(1)).is_none() && catalog.entries().len() == 0);
    }

    #[test]
    fn without_grace_removal_is_immediate() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", v1(1), 5);
        assert_eq!(remove(&mut catalog, "/a", 5), [unlisted(1)]);
        assert_eq!(remove(&mut catalog, "/a", 5), []);
    }

    #[test]
    fn removing_file_expires_no_other_torrent() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        add(&mut catalog, "/b", v1(2), 0);
        remove(&mut catalog, "/a", 0);
        assert_eq!(remove(&mut catalog, "/b", GRACE), []);
        assert_eq!(catalog.expire(Time(GRACE)), [unlisted(1)]);
        assert_eq!(catalog.expire(Time(2 * GRACE)), [unlisted(2)]);
    }

    #[test]
    fn file_that_returns_within_grace_changes_nothing() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        remove(&mut catalog, "/a", 10);
        assert_eq!(add(&mut catalog, "/b", v1(1), 20), []);
        assert_eq!(catalog.expire(Time(10_000)), []);
        assert_eq!(catalog.entry(id(1)).unwrap().added, Time(0));
    }

    #[test]
    fn several_files_may_list_one_torrent() {
        let mut catalog = Catalog::new(0);
        assert_eq!(add(&mut catalog, "/a", v1(1), 0), [listed(1)]);
        assert_eq!(add(&mut catalog, "/b", v1(1), 1), []);
        assert_eq!(add(&mut catalog, "/b", v1(1), 2), []);
        let files: Vec<_> = catalog.entry(id(1)).unwrap().files.iter().collect();
        assert_eq!(files, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(remove(&mut catalog, "/a", 3), []);
        assert_eq!(remove(&mut catalog, "/b", 4), [unlisted(1)]);
    }

    #[test]
    fn file_may_change_to_another_torrent() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        assert_eq!(add(&mut catalog, "/a", v1(2), 10), [listed(2)]);
        assert_eq!(catalog.entries().len(), 2);
        assert_eq!(catalog.expire(Time(610)), [unlisted(1)]);
        let mut no_grace = Catalog::new(0);
        add(&mut no_grace, "/a", hybrid(1, 2), 0);
        assert_eq!(
            add(&mut no_grace, "/a", v1(3), 10),
            [unlisted(1), unlisted(2), listed(3)]
        );
    }

    #[test]
    fn hybrid_is_one_entry_under_two_ids() {
        let mut catalog = Catalog::new(0);
        assert_eq!(
            add(&mut catalog, "/a", hybrid(1, 2), 0),
            [listed(1), listed(2)]
        );
        assert_eq!(catalog.entries().len(), 1);
        assert_eq!(catalog.entry(id(2)).unwrap().torrent, hybrid(1, 2));
        let v2 = Torrent {
            v1: None,
            ..hybrid(1, 4)
        };
        assert_eq!(add(&mut catalog, "/b", v2, 0), [listed(4)]);
        assert_eq!(remove(&mut catalog, "/a", 1), [unlisted(1), unlisted(2)]);
        assert!(catalog.entry(id(4)).is_some());
    }

    #[test]
    fn lists_need_no_file_and_deny_takes_precedence() {
        let mut catalog = Catalog::new(0);
        assert_eq!(
            catalog.set_lists([id(1), id(2)], [id(2), id(3)]),
            [listed(1), denied(2), denied(3)]
        );
        assert_eq!(catalog.set_lists([id(1), id(2)], [id(2), id(3)]), []);
        assert_eq!(
            catalog.set_lists([id(2)], [id(3)]),
            [unlisted(1), listed(2)]
        );
        assert_eq!(catalog.set_lists([], []), [unlisted(2), unlisted(3)]);
    }

    #[test]
    fn allow_list_and_file_each_keep_torrent_listed() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", v1(1), 0);
        assert_eq!(catalog.set_lists([id(1)], []), []);
        assert_eq!(remove(&mut catalog, "/a", 1), []);
        assert_eq!(catalog.admission(id(1)), Admission::Listed);
        assert!(catalog.entry(id(1)).is_none());
        assert_eq!(add(&mut catalog, "/a", v1(1), 2), []);
        assert_eq!(catalog.set_lists([], []), []);
        assert_eq!(remove(&mut catalog, "/a", 3), [unlisted(1)]);
    }

    #[test]
    fn denying_one_id_of_hybrid_denies_both() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", hybrid(1, 2), 0);
        assert_eq!(catalog.set_lists([], [id(2)]), [denied(1), denied(2)]);
        assert_eq!(remove(&mut catalog, "/a", 1), [unlisted(1)]);
        assert_eq!(add(&mut catalog, "/a", hybrid(1, 2), 2), [denied(1)]);
        assert_eq!(catalog.set_lists([], []), [listed(1), listed(2)]);
    }

    #[test]
    fn notice_is_found_under_both_ids_of_hybrid() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", hybrid(1, 2), 0);
        let notice = |text: &str| Notice {
            warning: Some(text.to_owned()),
            failure: None,
        };
        catalog.set_notices([(id(2), notice("old")), (id(9), notice("unlisted"))]);
        assert_eq!(catalog.notice(id(1)), Some(&notice("old")));
        assert_eq!(catalog.notice(id(2)), Some(&notice("old")));
        assert_eq!(catalog.notice(id(9)), Some(&notice("unlisted")));
        assert_eq!(catalog.notice(id(3)), None);
    }

    /// A caller that applies every change has the same admissions as the catalog, in any order of events.
    #[test]
    fn changes_add_up_to_the_state() {
        const SEED: u64 = 3;
        let mut rng = Rng::new(SEED);
        let mut random = |below: u8| rng.below(below.into()) as u8;
        let mut catalog = Catalog::new(3);
        let mut applied: HashMap<InfoHash, Admission> = HashMap::new();
        for now in 0..20_000 {
            let path = format!("/{}", random(6));
            let changes = match random(6) {
                0 | 1 => {
                    let number = random(6);
                    let torrent = if number % 2 == 0 {
                        hybrid(number, number + 10)
                    } else {
                        v1(number)
                    };
                    add(&mut catalog, &path, torrent, now)
                }
                2 | 3 => remove(&mut catalog, &path, now),
                4 => catalog.expire(Time(now)),
                _ => catalog.set_lists([id(random(16)), id(random(16))], [id(random(16))]),
            };
            for change in changes {
                let before = applied
                    .insert(change.id, change.admission)
                    .unwrap_or_default();
                assert_ne!(
                    before, change.admission,
                    "seed {SEED}, step {now}: {change:?} changes nothing"
                );
            }
            for id in (0..20).map(id) {
                let applied = applied.get(&id).copied().unwrap_or_default();
                assert_eq!(
                    applied,
                    catalog.admission(id),
                    "seed {SEED}, step {now}: {id}"
                );
                assert_eq!(
                    catalog.entry(id).is_some(),
                    catalog.by_id.contains_key(&id),
                    "seed {SEED}, step {now}: {id}"
                );
            }
            assert_eq!(
                catalog.by_file.len(),
                catalog
                    .entries()
                    .map(|entry| entry.files.len())
                    .sum::<usize>()
            );
        }
    }
}
