//! Which torrents are tracked: a row for each that a `.torrent` file lists, the operator's own lists of ids, and what follows.
//!
//! The catalog is not asked on an announce: it says whose admission changed, and the table that is asked keeps that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::tracker::settings::Notice;
use crate::tracker::types::{Admission, InfoHash, Time, Torrent};

/// One torrent of the operator's views. A hybrid is one row, whichever id it is asked for.
#[derive(Clone, Debug)]
pub struct CatalogEntry {
    pub torrent: Torrent,
    /// The files that carry it. None: it is gone, and still tracked until [`CatalogEntry::gone_at`].
    pub files: BTreeSet<PathBuf>,
    pub added: Time,
    /// When it stops being tracked, if its last file is gone.
    pub gone_at: Option<Time>,
}

/// An id whose admission is another than before. A denial wins over a torrent_sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdmissionChange {
    pub id: InfoHash,
    pub admission: Admission,
}

#[derive(Debug, Default)]
pub struct Catalog {
    grace_secs: u32,
    /// By the first of a torrent's ids, to which the two maps below lead.
    rows: HashMap<InfoHash, CatalogEntry>,
    by_file: HashMap<PathBuf, InfoHash>,
    by_id: HashMap<InfoHash, InfoHash>,
    allow: HashSet<InfoHash>,
    deny: HashSet<InfoHash>,
    notices: HashMap<InfoHash, Notice>,
    /// What was last published in changes, where it is not [`Admission::Unlisted`].
    published: HashMap<InfoHash, Admission>,
}

impl Catalog {
    /// A torrent whose last file is gone is tracked for `grace_secs` more, for files are also replaced and directories moved.
    pub fn new(grace_secs: u32) -> Self {
        Self {
            grace_secs,
            ..Self::default()
        }
    }

    /// Holds for files that go from now on.
    pub fn set_grace(&mut self, grace_secs: u32) {
        self.grace_secs = grace_secs;
    }

    /// A file is there, or is another than before.
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
        let row = self.rows.entry(first).or_insert_with(|| CatalogEntry {
            torrent,
            files: BTreeSet::new(),
            added: now,
            gone_at: None,
        });
        row.files.insert(path.to_owned());
        row.gone_at = None;
        self.by_file.insert(path.to_owned(), first);
        let ids: Vec<_> = row.torrent.ids().collect();
        self.by_id.extend(ids.iter().map(|id| (*id, first)));
        changes.extend(self.diff(ids));
        changes
    }

    /// A file is no longer there, or no longer whole.
    pub fn remove_file(&mut self, path: &Path, now: Time) -> Vec<AdmissionChange> {
        let Some(first) = self.by_file.remove(path) else {
            return Vec::new();
        };
        let Some(row) = self.rows.get_mut(&first) else {
            return Vec::new();
        };
        row.files.remove(path);
        if !row.files.is_empty() {
            return Vec::new();
        }
        row.gone_at = Some(Time(now.0.saturating_add(self.grace_secs)));
        // Others wait for the next look at every row: with one for each file, a directory of 100,000 took minutes to go.
        match self.grace_secs {
            0 => self.drop_rows([first]),
            _ => Vec::new(),
        }
    }

    /// Drops the torrents whose grace is over. Looks at every row: to be called about once a second, not on an announce.
    pub fn expire(&mut self, now: Time) -> Vec<AdmissionChange> {
        let over = self.rows.iter().filter(|(_, row)| {
            let stays = row.gone_at.is_none_or(|gone_at| now < gone_at);
            !stays
        });
        let over: Vec<_> = over.map(|(first, _)| *first).collect();
        self.drop_rows(over)
    }

    fn drop_rows(&mut self, firsts: impl IntoIterator<Item = InfoHash>) -> Vec<AdmissionChange> {
        let mut over = Vec::new();
        for first in firsts {
            if let Some(row) = self.rows.remove(&first) {
                over.extend(row.torrent.ids());
            }
        }
        for id in &over {
            self.by_id.remove(id);
        }
        self.diff(over)
    }

    /// Replaces the operator's lists; an empty list is empty.
    pub fn set_lists(
        &mut self,
        allow: impl IntoIterator<Item = InfoHash>,
        deny: impl IntoIterator<Item = InfoHash>,
    ) -> Vec<AdmissionChange> {
        let allow = std::mem::replace(&mut self.allow, allow.into_iter().collect());
        let deny = std::mem::replace(&mut self.deny, deny.into_iter().collect());
        let mut touched: BTreeSet<InfoHash> = allow.union(&self.allow).copied().collect();
        for id in deny.union(&self.deny) {
            touched.insert(*id);
            touched.extend(self.row(*id).into_iter().flat_map(|row| row.torrent.ids()));
        }
        self.diff(touched)
    }

    /// Replaces what is published of single torrents. A hybrid's notice may stand under either id.
    pub fn set_notices(&mut self, notices: impl IntoIterator<Item = (InfoHash, Notice)>) {
        self.notices = notices.into_iter().collect();
    }

    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Each notice under every id of its torrent.
    pub fn notices_by_id(&self) -> HashMap<InfoHash, Notice> {
        let ids = self.notices.keys().flat_map(|id| self.both_ids(*id));
        ids.filter_map(|id| Some((id, self.notice(id)?.clone())))
            .collect()
    }

    pub fn notice(&self, id: InfoHash) -> Option<&Notice> {
        self.both_ids(id)
            .into_iter()
            .find_map(|id| self.notices.get(&id))
    }

    pub fn row(&self, id: InfoHash) -> Option<&CatalogEntry> {
        self.rows.get(self.by_id.get(&id)?)
    }

    /// In no order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &CatalogEntry> {
        self.rows.values()
    }

    /// Listed by a file or by the list; a hybrid is denied under both ids if either is on the list.
    pub fn admission(&self, id: InfoHash) -> Admission {
        if self.both_ids(id).iter().any(|id| self.deny.contains(id)) {
            Admission::Denied
        } else if self.by_id.contains_key(&id) || self.allow.contains(&id) {
            Admission::Listed
        } else {
            Admission::Unlisted
        }
    }

    /// The id itself, and the other one if it is a hybrid's.
    fn both_ids(&self, id: InfoHash) -> Vec<InfoHash> {
        let others = self
            .row(id)
            .into_iter()
            .flat_map(|row| row.torrent.ids())
            .filter(|other| *other != id);
        std::iter::once(id).chain(others).collect()
    }

    /// Compares what was published of these ids with what is so.
    fn diff(&mut self, ids: impl IntoIterator<Item = InfoHash>) -> Vec<AdmissionChange> {
        let mut changes = Vec::new();
        for id in ids {
            let admission = self.admission(id);
            let before = match admission {
                Admission::Unlisted => self.published.remove(&id),
                named => self.published.insert(id, named),
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

    fn unnamed(number: u8) -> AdmissionChange {
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
    fn a_file_lists_its_torrent_and_its_end_unlists_after_the_grace() {
        let mut catalog = Catalog::new(GRACE);
        assert_eq!(add(&mut catalog, "/a", v1(1), 5), [listed(1)]);
        let row = catalog.row(id(1)).unwrap();
        assert_eq!(
            (
                row.torrent.name.as_str(),
                row.torrent.size,
                row.added,
                row.gone_at
            ),
            ("v1-1", 1, Time(5), None)
        );
        assert_eq!(remove(&mut catalog, "/a", 100), []);
        assert_eq!(catalog.row(id(1)).unwrap().gone_at, Some(Time(700)));
        assert_eq!(catalog.expire(Time(699)), []);
        assert_eq!(catalog.expire(Time(700)), [unnamed(1)]);
        assert_eq!(catalog.expire(Time(701)), []);
        assert!(catalog.row(id(1)).is_none() && catalog.rows().len() == 0);
    }

    #[test]
    fn without_grace_the_end_is_at_once() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", v1(1), 5);
        assert_eq!(remove(&mut catalog, "/a", 5), [unnamed(1)]);
        assert_eq!(remove(&mut catalog, "/a", 5), []);
    }

    #[test]
    fn a_file_that_goes_takes_no_look_at_all_others() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        add(&mut catalog, "/b", v1(2), 0);
        remove(&mut catalog, "/a", 0);
        assert_eq!(remove(&mut catalog, "/b", GRACE), []);
        assert_eq!(catalog.expire(Time(GRACE)), [unnamed(1)]);
        assert_eq!(catalog.expire(Time(2 * GRACE)), [unnamed(2)]);
    }

    #[test]
    fn a_file_that_comes_back_within_the_grace_changes_nothing() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        remove(&mut catalog, "/a", 10);
        assert_eq!(add(&mut catalog, "/b", v1(1), 20), []);
        assert_eq!(catalog.expire(Time(10_000)), []);
        assert_eq!(catalog.row(id(1)).unwrap().added, Time(0));
    }

    #[test]
    fn several_files_may_carry_one_torrent() {
        let mut catalog = Catalog::new(0);
        assert_eq!(add(&mut catalog, "/a", v1(1), 0), [listed(1)]);
        assert_eq!(add(&mut catalog, "/b", v1(1), 1), []);
        assert_eq!(add(&mut catalog, "/b", v1(1), 2), []);
        let files: Vec<_> = catalog.row(id(1)).unwrap().files.iter().collect();
        assert_eq!(files, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(remove(&mut catalog, "/a", 3), []);
        assert_eq!(remove(&mut catalog, "/b", 4), [unnamed(1)]);
    }

    #[test]
    fn a_file_may_become_another_torrent() {
        let mut catalog = Catalog::new(GRACE);
        add(&mut catalog, "/a", v1(1), 0);
        assert_eq!(add(&mut catalog, "/a", v1(2), 10), [listed(2)]);
        assert_eq!(catalog.rows().len(), 2);
        assert_eq!(catalog.expire(Time(610)), [unnamed(1)]);
        let mut at_once = Catalog::new(0);
        add(&mut at_once, "/a", hybrid(1, 2), 0);
        assert_eq!(
            add(&mut at_once, "/a", v1(3), 10),
            [unnamed(1), unnamed(2), listed(3)]
        );
    }

    #[test]
    fn a_hybrid_is_one_row_under_two_ids() {
        let mut catalog = Catalog::new(0);
        assert_eq!(
            add(&mut catalog, "/a", hybrid(1, 2), 0),
            [listed(1), listed(2)]
        );
        assert_eq!(catalog.rows().len(), 1);
        assert_eq!(catalog.row(id(2)).unwrap().torrent, hybrid(1, 2));
        let v2 = Torrent {
            v1: None,
            ..hybrid(1, 4)
        };
        assert_eq!(add(&mut catalog, "/b", v2, 0), [listed(4)]);
        assert_eq!(remove(&mut catalog, "/a", 1), [unnamed(1), unnamed(2)]);
        assert!(catalog.row(id(4)).is_some());
    }

    #[test]
    fn lists_work_without_a_file_and_deny_wins() {
        let mut catalog = Catalog::new(0);
        assert_eq!(
            catalog.set_lists([id(1), id(2)], [id(2), id(3)]),
            [listed(1), denied(2), denied(3)]
        );
        assert_eq!(catalog.set_lists([id(1), id(2)], [id(2), id(3)]), []);
        assert_eq!(catalog.set_lists([id(2)], [id(3)]), [unnamed(1), listed(2)]);
        assert_eq!(catalog.set_lists([], []), [unnamed(2), unnamed(3)]);
    }

    #[test]
    fn a_list_and_a_file_each_keep_a_torrent_listed() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", v1(1), 0);
        assert_eq!(catalog.set_lists([id(1)], []), []);
        assert_eq!(remove(&mut catalog, "/a", 1), []);
        assert_eq!(catalog.admission(id(1)), Admission::Listed);
        assert!(catalog.row(id(1)).is_none());
        assert_eq!(add(&mut catalog, "/a", v1(1), 2), []);
        assert_eq!(catalog.set_lists([], []), []);
        assert_eq!(remove(&mut catalog, "/a", 3), [unnamed(1)]);
    }

    #[test]
    fn denying_one_id_of_a_hybrid_denies_both() {
        let mut catalog = Catalog::new(0);
        add(&mut catalog, "/a", hybrid(1, 2), 0);
        assert_eq!(catalog.set_lists([], [id(2)]), [denied(1), denied(2)]);
        assert_eq!(remove(&mut catalog, "/a", 1), [unnamed(1)]);
        assert_eq!(add(&mut catalog, "/a", hybrid(1, 2), 2), [denied(1)]);
        assert_eq!(catalog.set_lists([], []), [listed(1), listed(2)]);
    }

    #[test]
    fn a_notice_is_found_under_both_ids_of_a_hybrid() {
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

    /// Whoever applies the changes knows what the catalog knows, whatever happened in which order.
    #[test]
    fn changes_add_up_to_the_state() {
        const SEED: u64 = 3;
        let mut state = SEED;
        let mut random = |below: u8| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7] % below
        };
        let mut catalog = Catalog::new(3);
        let mut told: HashMap<InfoHash, Admission> = HashMap::new();
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
                let before = told.insert(change.id, change.admission).unwrap_or_default();
                assert_ne!(
                    before, change.admission,
                    "seed {SEED}, step {now}: {change:?} says nothing new"
                );
            }
            for id in (0..20).map(id) {
                let told = told.get(&id).copied().unwrap_or_default();
                assert_eq!(told, catalog.admission(id), "seed {SEED}, step {now}: {id}");
                assert_eq!(
                    catalog.row(id).is_some(),
                    catalog.by_id.contains_key(&id),
                    "seed {SEED}, step {now}: {id}"
                );
            }
            assert_eq!(
                catalog.by_file.len(),
                catalog.rows().map(|row| row.files.len()).sum::<usize>()
            );
        }
    }
}
