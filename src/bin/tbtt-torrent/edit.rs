//! `edit`: changes trackers, web seeds, DHT nodes, comment and creation date. The bytes of `info`, and so the info-hashes,
//! stay the same.

use tbtt::metainfo::builder::OuterFields;
use tbtt::metainfo::{Details, Metainfo};

use crate::arguments::Edit;
use crate::file::Target;
use crate::{Exit, Failed, fail, file, urls};

pub(crate) fn run(edit: &Edit) -> Result<(), Failed> {
    let trackers = urls::tiers(&edit.announce)?;
    let nodes = edit
        .node
        .iter()
        .map(|node| urls::node(node))
        .collect::<Result<Vec<_>, _>>()?;
    let common = OuterFields {
        trackers: (edit.no_announce || !trackers.is_empty()).then_some(trackers),
        web_seeds: None,
        drop_http_seeds: edit.no_web_seeds,
        nodes: (edit.no_nodes || !nodes.is_empty()).then_some(nodes),
        comment: edit.comment.clone(),
        creation_date: edit.no_creation_date.then_some(None),
    };
    // All torrents are read and checked before the first is written: an error leaves all of them unchanged.
    let mut edited = Vec::new();
    for path in &edit.torrents {
        let bytes = file::read(path)?;
        let (before, details) =
            Details::parse(&bytes).map_err(|error| file::invalid(path, error))?;
        let mut around = common.clone();
        if edit.no_web_seeds || !edit.web_seed.is_empty() {
            let name = String::from_utf8_lossy(&details.name);
            let seed = |given: &String| urls::web_seed(given, &name, details.is_single);
            let seeds: Result<_, _> = edit.web_seed.iter().map(seed).collect();
            around.web_seeds = Some(seeds.map_err(|reason| fail(Exit::Usage, reason))?);
        }
        let bytes = around
            .edit(&bytes)
            .map_err(|error| file::invalid(path, error))?;
        let after = Metainfo::parse(&bytes).map_err(|error| file::invalid(path, error))?;
        assert_eq!(
            (before.v1, before.v2),
            (after.v1, after.v2),
            "an edit must not change the info-hashes"
        );
        let target = Target::new(edit.output.as_deref(), path, edit.torrents.len() > 1)?;
        edited.push((target, bytes));
    }
    for (target, bytes) in edited {
        target.write(&bytes)?;
    }
    Ok(())
}
