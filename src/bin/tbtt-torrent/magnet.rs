//! A torrent as a magnet link (BEP 9, 53).

use std::fmt::Write as _;

use tbtt::metainfo::{Details, Metainfo};

use crate::arguments::Magnet;
use crate::urls::encode;
use crate::{Failed, file, print};

pub(crate) fn run(magnet: &Magnet) -> Result<(), Failed> {
    for path in &magnet.torrents {
        let bytes = file::read(path)?;
        let (metainfo, details) =
            Details::parse(&bytes).map_err(|fault| file::faulty(path, fault))?;
        print(&format!("{}\n", link(&metainfo, &details, magnet.bare)));
    }
    Ok(())
}

/// The link; if `bare`, with the info-hashes alone.
pub(crate) fn link(metainfo: &Metainfo, details: &Details<'_>, bare: bool) -> String {
    let v1 = metainfo.v1.map(|id| format!("xt=urn:btih:{id}"));
    // 0x12 is SHA-256, 0x20 its length (multihash).
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
