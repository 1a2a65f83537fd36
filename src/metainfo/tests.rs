//! Tests of the parser, most of them on the sample torrents.

use super::*;

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

/// The sample with one piece of it, there exactly once, replaced.
fn altered(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let bytes = sample(name);
    let places: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert_eq!(places.len(), 1, "{} in {name}", from.escape_ascii());
    [&bytes[..places[0]], to, &bytes[places[0] + from.len()..]].concat()
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
fn ids_and_sizes_are_those_of_libtorrent() {
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
fn a_v2_id_is_announced_by_its_first_20_bytes() {
    let v2 = Metainfo::parse(sample("v2-disc.torrent"))
        .unwrap()
        .v2
        .unwrap();
    assert_eq!(v2.truncated().to_string(), v2.to_string()[..40]);
}

#[test]
fn reads_what_stands_around_info() {
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

    let least = Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
    assert!(least.trackers.is_empty() && least.creation_date.is_none());
    let empty = b"d8:announce0:13:announce-listllee4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e8:url-listl0:1:uee";
    let empty = Metainfo::parse(empty).unwrap();
    assert!(empty.trackers.is_empty());
    assert_eq!(empty.web_seeds, ["u"]);
}

#[test]
fn keys_that_nobody_knows_count_towards_the_id_only() {
    let plain = Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
    let around =
        b"d4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e2:zzd2:\xff\xfeli-1eeee";
    assert_eq!(Metainfo::parse(around).unwrap(), plain);
    let within = v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:2:zzle");
    assert_ne!(Metainfo::parse(&within).unwrap().v1, plain.v1);
}

#[test]
fn every_beginning_of_a_torrent_is_refused() {
    for (_, bytes) in SAMPLES {
        for end in 0..bytes.len() {
            error(&bytes[..end]);
        }
    }
}

#[test]
fn a_file_may_lie_as_deep_as_bencode_may() {
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
fn refuses_a_v1_info_that_does_not_add_up() {
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
        "a string should stand here",
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
    refused(b"d4:infoli1eee", 7, "a dictionary should stand here");
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
    refused(&v1(&huge), 7, "larger than 2^64");
}

#[test]
fn what_only_looks_odd_is_tracked_and_safe_to_show() {
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
fn refuses_a_v2_info_that_does_not_add_up() {
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
fn refuses_piece_layers_that_are_not_the_files() {
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
        "a dictionary should stand here",
    );
    refused(
        &[&bytes[..layer], b"i1eee"].concat(),
        layer,
        "a string should stand here",
    );
}

#[test]
fn both_halves_of_a_hybrid_must_agree() {
    let differs = |from: &[u8], to: &[u8]| error(&altered("hybrid-discs.torrent", from, to)).reason;
    assert!(
        differs(b"4:pathl5:amd647:one.iso", b"4:pathl5:amd647:two.iso")
            .contains("not those of the `file tree`")
    );
    assert!(
        differs(b"lengthi321e4:path", b"lengthi320e4:path")
            .contains("not those of the `file tree`")
    );
    assert!(
        differs(b"lengthi16063e4:path", b"lengthi16062e4:path")
            .contains("`one.iso` does not start at a piece")
    );
    let single = error(&altered(
        "hybrid-small.torrent",
        b"6:lengthi1000e12:meta",
        b"6:lengthi1001e12:meta",
    ));
    assert!(single.reason.contains("not those"), "{single}");
}

/// Mutated samples end in an answer, never in a panic; what is taken nevertheless holds to the promises of [`Metainfo`].
#[test]
fn mutations_are_survived() {
    const SEED: u64 = 0x7462_7474;
    let mut state = SEED;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut taken, mut refused) = (0, 0);
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
                taken += 1;
                let layout = details.layout(metainfo.piece_length);
                let last = layout.pieces().saturating_sub(1);
                let parts = layout.piece(0).chain(layout.piece(last));
                assert!(
                    parts.map(|part| part.length).max() <= Some(metainfo.piece_length),
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
        taken > 1_000 && refused > 10_000,
        "{taken} taken, {refused} refused"
    );
}
