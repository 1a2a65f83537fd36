"""Creates torrents and announces with known numbers of peers.

swarm.py torrents DIRECTORY: creates 250 torrents, some of which have hostile names.
swarm.py announce URL: every tenth torrent gets 1 to 25 seeders, and one leecher for every five seeders.
"""

import hashlib
import http.client
import os
import sys
import urllib.parse

from browser import HOSTILE

PIECE = 1 << 24
FURTHER = ['\u202egpj.exe', 'a' * 180, '한국어 배포판 – ünïcode.iso']


def releases():
    names = HOSTILE + FURTHER
    names += [f'some-distribution-{n // 8}.{n % 8}-{arch}.iso' for n, arch in zip(range(250 - len(names)), 5 * [
        'amd64', 'arm64', 'armhf', 'i386', 'ppc64el', 'riscv64', 's390x'] * 10)]
    for number, name in enumerate(names):
        name = name.encode()
        length = number * 7_919_111 + 1
        pieces = hashlib.sha1(name).digest() * -(-length // PIECE)
        info = b'd6:lengthi%de4:name%d:%s12:piece lengthi%de6:pieces%d:%se' % (
            length, len(name), name, PIECE, len(pieces), pieces)
        yield number, info


def announce(url):
    url = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    for number, info in releases():
        if number % 10:
            continue
        info_hash = urllib.parse.quote_from_bytes(hashlib.sha1(info).digest())
        seeders = number // 10 + 1
        for peer in range(seeders + seeders // 5):
            left = 0 if peer < seeders else 1
            connection.request('GET', f'{url.path}?info_hash={info_hash}&peer_id=-XX0001-{number:06}{peer:06}'
                               f'&port={1 + peer}&left={left}&compact=1')
            response = connection.getresponse().read()
            assert b'failure' not in response, response


if __name__ == '__main__':
    if sys.argv[1] == 'torrents':
        for number, info in releases():
            with open(os.path.join(sys.argv[2], f'{number}.torrent'), 'wb') as file:
                file.write(b'd4:info' + info + b'e')
    else:
        announce(sys.argv[2])
