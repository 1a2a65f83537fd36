//! `magnet`: prints torrents as magnet links (BEP 9, 53).

use std::fmt::Write as _;

use tbtt::metainfo::{Details, Metainfo};

use crate::arguments::Magnet;
use crate::urls::encode;
use crate::{Failed, file, print};

pub(crate) fn run(magnet: &Magnet) -> Result<(), Failed> {
    for path in &magnet.torrents {
        let bytes = file::read(path)?;
        let (metainfo, details) =
            Details::parse(&bytes).map_err(|error| file::invalid(path, error))?;
        print(&format!("{}\n", link(&metainfo, &details, magnet.bare)));
    }
    Ok(())
}

/// Returns the magnet link of a torrent. A `bare` link has only the info-hashes.
pub(crate) fn link(metainfo: &Metainfo, details: &Details<'_>, bare: bool) -> String {
    let v1 = metainfo.v1.map(|id| format!("xt=urn:btih:{id}"));
    // A multihash: 0x12 means SHA-256, 0x20 is the length of the hash.
    let v2 = metainfo.v2.map(|id| format!("xt=urn:btmh:1220{id}"));
    let ids: Vec<String> = v1.into_iter().chain(v2).collect();
    let mut link = format!("magnet:?{}", ids.join("&"));
    if !bare {
        let _ = write!(link, "&dn={}&xl={}", encode(&details.name), metainfo.size);
        for tracker in details.trackers.iter().flatten() {
            let _ = write!(link, "&tr={}", encode(tracker));
        }
        for seed in &details.web_seeds {
            let _ = write!(link, "&ws={}", encode(seed));
        }
    }
    link
}
