#!/usr/bin/python3
"""Creates the sample torrents of this directory, and expected.txt with their info-hashes, with libtorrent.

Requires the Debian package python3-libtorrent.
"""

import os
import tempfile

import libtorrent as lt

HERE = os.path.dirname(os.path.abspath(__file__))
DATE = 1_700_000_000
PIECE = 16 * 1024
KINDS = {
    "v1": lt.create_torrent.v1_only,
    "v2": lt.create_torrent.v2_only,
    "hybrid": lt.create_torrent.canonical_files,
}


def content(seed, size):
    """Returns bytes that look random and are the same on every run."""
    state, out = seed, bytearray()
    while len(out) < size:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out += state.to_bytes(8, "big")
    return bytes(out[:size])


def write(root, files):
    for number, (path, size) in enumerate(files):
        path = os.path.join(root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(content(number + 1, size))


def make(root, files, flags, announce_list=False, private=False):
    storage = lt.file_storage()
    for path, size in files:
        storage.add_file(path, size)
    torrent = lt.create_torrent(storage, PIECE, flags)
    torrent.add_tracker("http://tracker.example.org:6969/announce", 0)
    if announce_list:
        torrent.add_tracker("udp://tracker.example.org:6969", 0)
        torrent.add_tracker("http://backup.example.org/announce", 1)
        torrent.add_url_seed("https://mirror.example.org/iso/")
    torrent.set_priv(private)
    lt.set_piece_hashes(torrent, root)
    entry = torrent.generate()
    entry[b"creation date"] = DATE
    return lt.bencode(entry)


def main():
    trees = {
        "disc.iso": [("disc.iso", 100_001)],
        "small.iso": [("small.iso", 1_000)],
        "discs": [
            ("discs/SHA256SUMS", 321),
            ("discs/amd64/empty", 0),
            ("discs/amd64/one.iso", 50_000),
            ("discs/amd64/two.iso", 16_384),
            ("discs/arm64/grüße.iso", 70_000),
        ],
    }
    expected = []
    with tempfile.TemporaryDirectory() as root:
        for name, files in trees.items():
            write(root, files)
            for kind, flags in KINDS.items():
                multi = name == "discs"
                data = make(root, files, flags, announce_list=multi, private=name == "small.iso")
                file = f"{kind}-{name.split('.')[0]}.torrent"
                with open(os.path.join(HERE, file), "wb") as out:
                    out.write(data)
                info = lt.torrent_info(lt.bdecode(data))
                ids = info.info_hashes()
                v1 = str(ids.v1) if ids.has_v1() else "-"
                v2 = str(ids.v2) if ids.has_v2() else "-"
                size = sum(size for _, size in files)
                expected.append(f"{file} {v1} {v2} {size} {name}\n")
    with open(os.path.join(HERE, "expected.txt"), "w") as out:
        out.writelines(expected)


if __name__ == "__main__":
    main()
