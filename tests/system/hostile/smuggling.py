"""Case: requests that a proxy and the tracker could read differently."""

import concurrent.futures
import contextlib
import shutil
import subprocess

import harness
from attack import OPEN, try_announce, under_load
from connections import statuses
from harness import LEGITIMATE_SOURCES, TRACKER, expect, wait_until

# The smuggled request announces a torrent of its own, which shows whether the tracker read it as a separate request.
SMUGGLED = b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n"
PLAIN = harness.announce_path().encode()
# Each request, and whether the tracker may read the smuggled part as a separate request.
SHAPES = {
    "length and chunked": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%h", False),
    "chunked and length": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n%x\r\n%h\r\n0\r\n\r\n", False),
    "two lengths": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n%h", False),
    "a list of lengths": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: 0, %d\r\n\r\n%h", False),
    "a length with a plus sign": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: +%d\r\n\r\n%h", False),
    "a negative length": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n%h", False),
    "a length above 64 bits": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551616\r\n\r\n%h", False),
    "a body in a GET": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%h", False),
    "a chunked body in a GET": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%h\r\n0\r\n\r\n", False),
    "an unknown coding": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n%h", False),
    "chunked with a tab": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\tchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n%h", False),
    "chunked twice": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n%h", False),
    "a space before the colon": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length : %d\r\n\r\n%h", False),
    "a folded header": (b"GET %p HTTP/1.1\r\nHost: t\r\nX: y\r\n Content-Length: %d\r\n\r\n%h", True),
    "a folded coding": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n%h", False),
    "bare line feeds": (b"GET %p HTTP/1.1\nHost: t\nContent-Length: %d\n\n%h", False),
    "a bare carriage return": (b"GET %p HTTP/1.1\r\nHost: t\r\nX: y\rContent-Length: %d\r\n\r\n%h", True),
    "a zero byte": (b"GET %p HTTP/1.1\r\nHost: t\r\nX: a\0b\r\nContent-Length: %d\r\n\r\n%h", False),
    "a chunk size above 64 bits": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n%h", False),
    "a chunk extension": (b"GET %p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=\n\r\n%h\r\n0\r\n\r\n", False),
    "HTTP/0.9": (b"GET %p\r\n\r\n%h", False),
    "an empty line before the request": (b"\r\nGET %p HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%h", False),
    "an upgrade": (b"GET %p HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: %d\r\n\r\n%h", False),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%h", False),
    "pipelined": (b"GET %p HTTP/1.1\r\nHost: t\r\n\r\n%h", True),
    "pipelined after a body": (b"GET %p HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc%h", True),
    "a POST with a body": (b"POST %p HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%h", False),
}


def smuggle(front, to, number, named):
    """Returns whether the tracker processed the smuggled request; raises TestFailed if that is not allowed."""
    name, (shape, pipelined) = named
    torrent = b"%-8.8s %011d" % (front.encode(), number)
    smuggled = SMUGGLED % harness.announce_path(torrent).encode()
    request = shape.replace(b"%p", PLAIN).replace(b"%d", b"%d" % len(smuggled)).replace(b"%x", b"%x" % len(smuggled))
    response = b""
    with harness.connect_from(next(LEGITIMATE_SOURCES), to) as sock, contextlib.suppress(OSError):
        sock.settimeout(3)
        sock.sendall(request.replace(b"%h", smuggled))
        while more := sock.recv(65536):
            response += more
    got = statuses(response)
    scrape = f"/scrape?info_hash={harness.urllib.parse.quote(torrent)}"
    processed = b"10:incompletei1e" in harness.get(scrape, next(LEGITIMATE_SOURCES), TRACKER)[1]
    if front == "direct":
        expect(pipelined or not processed, name, "smuggled a request:", response[:300])
        # The tracker closes HTTP/2 connections without a response.
        allowed = {200, 400, 405, 505}
        expect(allowed.issuperset(got) and len(got) <= 1 + pipelined, name, "got the statuses", got)
    else:
        # If the proxy reads one request and the tracker two, the next client gets the second response.
        expect(not processed or len(got) == 2, name, "is one request for", front, "and two for the tracker:", response[:300])
    return processed


NGINX = """
daemon off; pid %s/nginx.pid; error_log %s/nginx.log; user root; worker_processes 1;
events {}
http { access_log off; client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  upstream t { server 127.0.0.1:6969; keepalive 4; }
  server { listen 10.254.0.1:7001; location / { proxy_pass http://t; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  http-reuse always
frontend f
  bind 10.254.0.1:7002
  default_backend t
backend t
  server t 127.0.0.1:6969
"""


def request_smuggling(tbtt, place, _full):
    """request smuggling"""
    fronts = {"direct": TRACKER}
    (place / "nginx.conf").write_text(NGINX.replace("%s", str(place)))
    (place / "haproxy.cfg").write_text(HAPROXY)
    commands = {
        "nginx": ["nginx", "-c", str(place / "nginx.conf")],
        "haproxy": ["haproxy", "-db", "-f", str(place / "haproxy.cfg")],
    }
    with contextlib.ExitStack() as stack, under_load(tbtt, place, OPEN | {"http": {"header_timeout": 2, "idle_timeout": 2}}, wait_for_close=False) as daemon:
        for port, (name, command) in zip((7001, 7002), commands.items()):
            if not shutil.which(name):
                continue
            proxy = subprocess.Popen(command, stderr=open(place / f"{name}.log", "wb"))
            stack.callback(proxy.wait)
            stack.callback(proxy.terminate)
            fronts[name] = ("10.254.0.1", port)
            wait_until(f"{name} to serve", lambda: proxy.poll() is None and try_announce(fronts[name]))
        report = []
        for front, to in fronts.items():
            with concurrent.futures.ThreadPoolExecutor(len(SHAPES)) as pool:
                outcomes = list(pool.map(lambda shape: smuggle(front, to, *shape), enumerate(SHAPES.items())))
            report.append(f"{front}: {sum(outcomes)} of {len(SHAPES)} requests are two requests for proxy and tracker alike")
        harness.announce()
    return "; ".join([*report, daemon.usage])
