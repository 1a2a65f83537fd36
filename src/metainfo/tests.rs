//! Tests of the parser, most of them on the sample torrents.

use super::*;
use crate::tracker::rng::Rng;

const SAMPLES: [(&str, &[u8]); 9] = [
    (
        "v1-disc.torrent",
        include_bytes!("../../tests/torrents/v1-disc.torrent"),
    ),
    (
        "v1-discs.torrent",
        include_bytes!("../../tests/torrents/v1-discs.torrent"),
    ),
    (
        "v1-small.torrent",
        include_bytes!("../../tests/torrents/v1-small.torrent"),
    ),
    (
        "v2-disc.torrent",
        include_bytes!("../../tests/torrents/v2-disc.torrent"),
    ),
    (
        "v2-discs.torrent",
        include_bytes!("../../tests/torrents/v2-discs.torrent"),
    ),
    (
        "v2-small.torrent",
        include_bytes!("../../tests/torrents/v2-small.torrent"),
    ),
    (
        "hybrid-disc.torrent",
        include_bytes!("../../tests/torrents/hybrid-disc.torrent"),
    ),
    (
        "hybrid-discs.torrent",
        include_bytes!("../../tests/torrents/hybrid-discs.torrent"),
    ),
    (
        "hybrid-small.torrent",
        include_bytes!("../../tests/torrents/hybrid-small.torrent"),
    ),
];

fn sample(name: &str) -> &'static [u8] {
    SAMPLES.iter().find(|(file, _)| *file == name).unwrap().1
}

/// Replaces a part that occurs exactly once in a sample.
fn altered(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let bytes = sample(name);
    let positions: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert_eq!(positions.len(), 1, "{} in {name}", from.escape_ascii());
    [
        &bytes[..positions[0]],
        to,
        &bytes[positions[0] + from.len()..],
    ]
    .concat()
}

fn error(bytes: &[u8]) -> MetainfoError {
    let error = Metainfo::parse(bytes).expect_err(&bytes.escape_ascii().to_string());
    assert!(
        !error.reason.contains('\n') && error.offset <= bytes.len(),
        "{error}"
    );
    error
}

#[track_caller]
fn refused(bytes: &[u8], offset: usize, reason: &str) {
    let error = error(bytes);
    assert!(error.reason.contains(reason), "{error}");
    assert_eq!(error.offset, offset, "{error}");
}

fn v1(info: &str) -> Vec<u8> {
    format!("d4:infod{info}ee").into_bytes()
}

#[test]
fn ids_and_sizes_match_libtorrent() {
    let expected = include_str!("../../tests/torrents/expected.txt");
    assert_eq!(expected.lines().count(), SAMPLES.len());
    for line in expected.lines() {
        let columns: Vec<_> = line.split(' ').collect();
        let metainfo = Metainfo::parse(sample(columns[0])).unwrap();
        let v1 = metainfo.v1.map_or("-".to_owned(), |id| id.to_string());
        let v2 = metainfo.v2.map_or("-".to_owned(), |id| id.to_string());
        let (size, name) = (metainfo.size.to_string(), metainfo.name);
        assert_eq!([columns[0], &v1, &v2, &size, &name][..], columns, "{line}");
    }
}

#[test]
fn v2_id_is_truncated_to_20_bytes() {
    let v2 = Metainfo::parse(sample("v2-disc.torrent"))
        .unwrap()
        .v2
        .unwrap();
    assert_eq!(v2.truncated().to_string(), v2.to_string()[..40]);
}

#[test]
fn parses_fields_outside_info() {
    let many = Metainfo::parse(sample("hybrid-discs.torrent")).unwrap();
    let first = vec![
        "http://tracker.example.org:6969/announce".to_owned(),
        "udp://tracker.example.org:6969".to_owned(),
    ];
    let second = vec!["http://backup.example.org/announce".to_owned()];
    assert_eq!(many.trackers, [first.clone(), second]);
    assert_eq!(many.web_seeds, ["https://mirror.example.org/iso/"]);
    assert_eq!(many.creation_date, Some(1_700_000_000));
    assert_eq!(many.piece_length, 16 * 1024);
    assert!(!many.private);

    let one = Metainfo::parse(sample("v1-small.torrent")).unwrap();
    assert_eq!(one.trackers, [&first[..1]]);
    assert!(one.private && one.web_seeds.is_empty());

    let minimal = Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
    assert!(minimal.trackers.is_empty() && minimal.creation_date.is_none());
    let empty = b"d8:announce0:13:announce-listllee4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e8:url-listl0:1:uee";
    let empty = Metainfo::parse(empty).unwrap();
    assert!(empty.trackers.is_empty());
    assert_eq!(empty.web_seeds, ["u"]);
}

#[test]
fn unknown_keys_change_only_the_id() {
    let plain = Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
    let outside =
        b"d4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e2:zzd2:\xff\xfeli-1eeee";
    assert_eq!(Metainfo::parse(outside).unwrap(), plain);
    let inside = v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:2:zzle");
    assert_ne!(Metainfo::parse(&inside).unwrap().v1, plain.v1);
}

#[test]
fn refuses_every_prefix_of_a_torrent() {
    for (_, bytes) in SAMPLES {
        for end in 0..bytes.len() {
            error(&bytes[..end]);
        }
    }
}

#[test]
fn accepts_files_up_to_maximum_nesting_depth() {
    let tree = |dirs: usize| {
        let (open, close) = ("d1:a".repeat(dirs), "e".repeat(dirs));
        let tree = format!("9:file tree{open}d0:d6:lengthi0eee{close}");
        v1(&format!(
            "{tree}12:meta versioni2e4:name1:a12:piece lengthi16384e"
        ))
    };
    assert_eq!(Metainfo::parse(&tree(96)).unwrap().size, 0);
    assert!(error(&tree(97)).reason.contains("100 deep"));
}

#[test]
fn refuses_inconsistent_v1_info() {
    refused(&v1("4:name1:a12:piece lengthi1e"), 7, "neither `pieces`");
    refused(&v1("12:piece lengthi1e6:pieces0:"), 7, "`name` is missing");
    refused(&v1("4:name1:a6:pieces0:"), 7, "`piece length` is missing");
    refused(
        &v1("4:name1:a12:piece lengthi1e6:pieces0:"),
        7,
        "neither `length` nor `files`",
    );
    refused(
        &v1("5:filesle6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:"),
        25,
        "both `length` and `files`",
    );
    refused(
        &v1("5:filesle4:name1:a12:piece lengthi1e6:pieces0:"),
        15,
        "`files` is empty",
    );
    refused(
        &v1("6:lengthi0e4:name1:a12:piece lengthi0e6:pieces0:"),
        43,
        "`piece length` is 0",
    );
    refused(
        &v1("6:lengthi0e4:name1:a12:piece lengthi-1e6:pieces0:"),
        43,
        "`piece length`: Invalid Value",
    );
    refused(
        &v1("6:lengthi-1e4:name1:a12:piece lengthi1e6:pieces0:"),
        16,
        "`length`: Invalid Value",
    );
    refused(
        &v1("6:length1:14:name1:a12:piece lengthi1e6:pieces0:"),
        16,
        "`length`: Invalid Type",
    );
    refused(
        &v1("6:lengthi0e4:namei1e12:piece lengthi1e6:pieces0:"),
        25,
        "`name`: Invalid Type",
    );
    refused(
        &v1("6:lengthi0e4:name1:a12:piece lengthi1e6:piecesi1e"),
        54,
        "expected a string",
    );
    refused(
        &v1("6:lengthi1e4:name1:a12:piece lengthi1e6:pieces19:1234567890123456789"),
        54,
        "19 bytes long",
    );
    refused(
        &v1("6:lengthi2e4:name1:a12:piece lengthi1e6:pieces20:12345678901234567890"),
        54,
        "has 1 hashes, but 2 bytes",
    );
    refused(
        &v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces20:12345678901234567890"),
        54,
        "need 0",
    );
}

#[test]
fn refuses_inconsistent_v1_files() {
    refused(b"d4:infoli1eee", 7, "expected a dictionary");
    refused(
        &v1("5:filesld4:pathl1:aeee4:name1:a12:piece lengthi1e6:pieces0:"),
        15,
        "file 1 of `files` has no `length`",
    );
    refused(
        &v1("5:filesld6:lengthi0eee4:name1:a12:piece lengthi1e6:pieces0:"),
        15,
        "file 1 of `files` has no `path`",
    );
    refused(
        &v1("5:filesld6:lengthi0e4:pathleee4:name1:a12:piece lengthi1e6:pieces0:"),
        15,
        "has no `path`",
    );
    refused(
        &v1("5:filesi1e4:name1:a12:piece lengthi1e6:pieces0:"),
        15,
        "`files`: Invalid Type",
    );
    let half = format!("d6:lengthi{}e4:pathl1:aee", i64::MAX);
    let huge = format!("5:filesl{half}{half}{half}e4:name1:a12:piece lengthi1e6:pieces0:");
    refused(&v1(&huge), 7, "exceeds 2^64");
}

#[test]
fn odd_names_are_accepted_and_made_printable() {
    let odd = |name: &[u8]| {
        let start = format!("d4:infod6:lengthi0e4:name{}:", name.len()).into_bytes();
        let bytes = [&start, name, b"12:piece lengthi1e6:pieces0:ee"].concat();
        Metainfo::parse(&bytes).unwrap().name
    };
    assert_eq!(odd(b"../../etc/passwd"), "../../etc/passwd");
    assert_eq!(odd(b"a\nb\x1b[31mc\0"), "a\u{fffd}b\u{fffd}[31mc\u{fffd}");
    assert_eq!(
        odd("iso\u{202e}txt\u{2028}".as_bytes()),
        "iso\u{fffd}txt\u{fffd}"
    );
    assert_eq!(odd(b"gr\xfc\xdfe"), "gr\u{fffd}\u{fffd}e");
    assert_eq!(odd("ü".repeat(255).as_bytes()), "ü".repeat(255));
    assert_eq!(odd("ü".repeat(256).as_bytes()), "ü".repeat(255) + "…");
    assert_eq!(odd(b""), "");
    let dots =
        v1("5:filesld6:lengthi0e4:pathl2:..2:..4:evileee4:name1:/12:piece lengthi1e6:pieces0:");
    assert_eq!(Metainfo::parse(&dots).unwrap().size, 0);
    let link = v1("5:filesld4:attr1:l4:pathl1:aeee4:name1:a12:piece lengthi1e6:pieces0:");
    assert_eq!(Metainfo::parse(&link).unwrap().size, 0);
}

#[test]
fn refuses_inconsistent_v2_info() {
    let v2 = |from: &str, to: &str| {
        error(&altered("v2-small.torrent", from.as_bytes(), to.as_bytes())).reason
    };
    assert!(v2("meta versioni2e", "meta versioni3e").contains("`meta version` 3 is unknown"));
    assert!(v2("meta versioni2e", "meta versioni1e").contains("not `meta version` 2"));
    assert!(v2("12:meta versioni2e", "").contains("not `meta version` 2"));
    assert!(v2("9:file tree", "9:fine tree").contains("there is no `file tree`"));
    assert!(v2("piece lengthi16384e", "piece lengthi8192e").contains("8192 is not a power of two"));
    assert!(
        v2("piece lengthi16384e", "piece lengthi16385e").contains("16385 is not a power of two")
    );
    assert!(v2("6:lengthi1000e", "").contains("has no `length`"));

    assert!(v2("pieces root32:", "pieces rook32:").contains("no `pieces root`"));

    let info = |tree: &str| {
        error(&v1(&format!(
            "9:file tree{tree}12:meta versioni2e4:name1:a12:piece lengthi16384e"
        )))
        .reason
    };
    assert!(info("de").contains("has no file"));
    assert!(info("le").contains("`file tree`: Invalid Type"));
    assert!(info("d0:d6:lengthi0eee").contains("a file has no name"));
    assert!(
        info("d1:ad0:d6:lengthi0ee1:bd0:d6:lengthi0eeeee").contains("both a file and a directory")
    );
    assert!(info("d1:ad0:d6:lengthi1eeee").contains("no `pieces root`"));
    assert!(info("d1:ad0:d6:lengthi1e11:pieces root3:abceee").contains("not 32 bytes"));
}

#[test]
fn refuses_piece_layers_of_other_files() {
    let name = "v2-disc.torrent";
    let bytes = sample(name);
    let key = b"12:piece layers";
    let at = bytes
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    let layers = at + key.len();
    let without = [&bytes[..at], b"e"].concat();
    assert!(error(&without).reason.contains("of `disc.iso` is missing"));
    // d32:<root>224:<seven hashes>ee
    let layer = layers + 1 + 3 + 32;
    assert!(bytes[layer..].starts_with(b"224:"));
    let mut flipped = bytes.to_vec();
    flipped[layer + 4] ^= 1;
    refused(&flipped, layer, "does not hash to its `pieces root`");
    let other_length = |length: usize| {
        let hashes = &bytes[layer + 4..layer + 4 + length];
        [
            &bytes[..layer],
            format!("{length}:").as_bytes(),
            hashes,
            b"ee",
        ]
        .concat()
    };
    refused(
        &other_length(223),
        layer,
        "223 bytes long, not a multiple of 32",
    );
    refused(
        &other_length(192),
        layer,
        "has 6 hashes, but its length needs 7",
    );
    let mut renamed = bytes.to_vec();
    renamed[layers + 4] ^= 1;
    assert!(error(&renamed).reason.contains("of `disc.iso` is missing"));
    refused(
        &[&bytes[..layers], b"i1ee"].concat(),
        layers,
        "expected a dictionary",
    );
    refused(
        &[&bytes[..layer], b"i1eee"].concat(),
        layer,
        "expected a string",
    );
}

#[test]
fn both_parts_of_hybrid_must_list_same_files() {
    let differs = |from: &[u8], to: &[u8]| error(&altered("hybrid-discs.torrent", from, to)).reason;
    assert!(
        differs(b"4:pathl5:amd647:one.iso", b"4:pathl5:amd647:two.iso")
            .contains("differ from those")
    );
    assert!(differs(b"lengthi321e4:path", b"lengthi320e4:path").contains("differ from those"));
    assert!(
        differs(b"lengthi16063e4:path", b"lengthi16062e4:path")
            .contains("`one.iso` does not start at a piece boundary")
    );
    let single = error(&altered(
        "hybrid-small.torrent",
        b"6:lengthi1000e12:meta",
        b"6:lengthi1001e12:meta",
    ));
    assert!(single.reason.contains("differ"), "{single}");
}

/// Parsing a mutated sample never panics, and a mutant that is accepted satisfies the guarantees of [`Metainfo`].
#[test]
fn mutated_samples_do_not_panic() {
    const SEED: u64 = 0x7462_7474;
    let mut rng = Rng::new(SEED);
    let mut random = |below: usize| rng.below(below as u32) as usize;
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..30_000 {
        let mut bytes = SAMPLES[round % SAMPLES.len()].1.to_vec();
        for _ in 0..=random(3) {
            if bytes.is_empty() {
                break;
            }
            let at = random(bytes.len());
            match random(6) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = b"0123456789:-deil"[random(16)],
                2 => bytes.insert(at, b"0123456789:-deil"[random(16)]),
                3 => drop(bytes.remove(at)),
                4 => drop(bytes.splice(at..at, sample("v2-small.torrent")[..random(100)].to_vec())),
                _ => bytes.truncate(at + 1),
            }
        }
        match Details::parse(&bytes) {
            Ok((metainfo, details)) => {
                accepted += 1;
                let layout = details.layout(metainfo.piece_length);
                let last = layout.pieces().saturating_sub(1);
                let spans = layout.piece(0).chain(layout.piece(last));
                assert!(
                    spans.map(|span| span.length).max() <= Some(metainfo.piece_length),
                    "seed {SEED}, round {round}"
                );
                assert!(
                    metainfo.v1.is_some() || metainfo.v2.is_some(),
                    "seed {SEED}, round {round}"
                );
                assert!(
                    metainfo.piece_length > 0 && !metainfo.name.contains(char::is_control),
                    "seed {SEED}, round {round}"
                );
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.offset <= bytes.len() && !error.reason.contains(char::is_control),
                    "seed {SEED}, round {round}: {error}"
                );
            }
        }
    }
    assert!(
        accepted > 1_000 && refused > 10_000,
        "{accepted} accepted, {refused} refused"
    );
}
