#!/usr/bin/python3
"""What tbtt does under systemd, seen by its clients and its operator.

cases.py PID [PATTERN]   runs in the network of the machine whose first process is PID
"""

import contextlib
import itertools
import json
import pathlib
import re
import subprocess
import sys
import time

import client
from client import Load, Refused, Udp, announce, scrape

FIRST = sys.argv[1]
ROOT = pathlib.Path(f"/proc/{FIRST}/root")
DAEMON = ("/usr/sbin/tbtt", "--config", "/etc/tbtt/tbtt.toml")
CONFIG = """
[http]
header_timeout = 10

[tracker]
interval = 1800
workers = 2

[torrents]
open = true

[limits]
exempt = ["127.0.0.0/8", "::/0"]
peers_per_network = 1000
"""
STATE = CONFIG + """
[state]
directory = "/var/lib/tbtt"
interval = 10
"""
ONE = b"one-torrent........."

cases = []


def case(name):
    def add(function):
        cases.append((name, function))
        return function

    return add


# The machine.


def inside(*command, check=True):
    entered = ["nsenter", "--all", "--target", FIRST, "--", *command]
    done = subprocess.run(entered, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done


def systemctl(*arguments, check=True):
    return inside("systemctl", *arguments, check=check)


def send(name, pid):
    """A signal; whoever is gone needs none."""
    inside("sh", "-c", f"kill -{name} {pid}", check=False)


def show(name, unit="tbtt.service"):
    return systemctl("show", "--value", "--property", name, unit).stdout.strip()


def write(path, text, mode=0o644):
    file = ROOT / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def remove(*paths):
    inside("rm", "--recursive", "--force", *paths)


def configure(text):
    write("/etc/tbtt/tbtt.toml", text)


def await_(what, ready, seconds=30):
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.05)
    return answer


def expect(what, seen, wanted):
    assert seen == wanted, f"{what}: {seen!r} instead of {wanted!r}"


def fresh(config=CONFIG, drop_in="", start=True):
    """Stops all that ran, forgets it, and begins anew: the sockets alone, or the service too."""
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    remove("/var/lib/tbtt", "/run/systemd/system/tbtt.service.d")
    configure(config)
    if drop_in:
        write("/run/systemd/system/tbtt.service.d/test.conf", f"[Service]\n{drop_in}\n")
    systemctl("daemon-reload")
    systemctl("reset-failed")
    systemctl("start", "tbtt.socket", "tbtt-udp.socket")
    expect("before the first client", show("ActiveState"), "inactive")
    if start:
        systemctl("start", "tbtt.service")


class Journal:
    """What the journal gets from now on."""

    def __init__(self):
        cursor = inside("journalctl", "--lines=0", "--show-cursor", "--quiet").stdout
        self.cursor = cursor.split("cursor: ")[1].strip()

    def entries(self, *match):
        since = f"--after-cursor={self.cursor}"
        lines = inside("journalctl", "--output=json", "--all", "--quiet", since, *match).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def tbtt(self):
        return self.entries("SYSLOG_IDENTIFIER=tbtt")

    def find(self, pattern):
        for entry in self.tbtt():
            if re.search(pattern, entry["MESSAGE"]):
                return entry
        return None


# Starting.


@case("the units pass systemd-analyze verify")
def _():
    units = [f"/usr/lib/systemd/system/tbtt{end}" for end in (".service", ".socket", "-udp.socket")]
    # This machine has no manual pages.
    faults = inside("systemd-analyze", "verify", "--man=no", *units, check=False)
    expect("faults", faults.stdout + faults.stderr, "")
    expect("exit status", faults.returncode, 0)


@case("the unit's exposure is at most 0.5")
def _():
    unit = "/usr/lib/systemd/system/tbtt.service"
    text = inside("systemd-analyze", "security", "--offline=true", "--no-pager", unit, check=False).stdout
    level = re.search(r"Overall exposure level for tbtt\.service: ([0-9.]+)", text)
    assert level, text
    assert float(level[1]) <= 0.5, text


def started_by(kind):
    fresh(start=False)
    kind()
    expect("state", show("ActiveState"), "active")
    expect("restarts", show("NRestarts"), "0")
    counts = scrape([ONE])
    expect("peers", counts, {ONE: 1})


@case("the first announce over HTTP and IPv4 starts it")
def _():
    started_by(lambda: announce(ONE, "127.0.0.1"))


@case("the first announce over HTTP and IPv6 starts it")
def _():
    started_by(lambda: announce(ONE, "::1"))


def announce_udp(source):
    with Udp(source) as udp:
        return udp.announce(ONE)


@case("the first announce over UDP and IPv4 starts it")
def _():
    started_by(lambda: announce_udp("127.0.0.1"))


@case("the first announce over UDP and IPv6 starts it")
def _():
    started_by(lambda: announce_udp("::1"))


@case("systemd-socket-activate starts it on the first connection")
def _():
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    configure(CONFIG + '[daemon]\nuser = "_tbtt"\n')
    with by_hand("systemd-socket-activate", "--listen=[::]:6969", "--fdname=http", *DAEMON):
        answer = await_("an answer", lambda: answered(lambda: announce(ONE, "127.0.0.1")))
        expect("interval", answer[b"interval"], 1800)


def answered(ask):
    with contextlib.suppress(ConnectionError):
        return ask()
    return None


@case("a stop ends with success, and the sockets stay")
def _():
    fresh()
    journal = Journal()
    announce(ONE)
    systemctl("stop", "tbtt.service")
    expect("result", show("Result"), "success")
    expect("exit status", show("ExecMainStatus"), "0")
    await_("its last line", lambda: journal.find("^stopped$"))
    assert journal.find("^counted since the start http_announces=1 connections=1$")
    expect("socket", show("ActiveState", "tbtt.socket"), "active")
    announce(ONE)
    expect("state", show("ActiveState"), "active")


# Reloading.


@case("a good reload holds at once, and nobody is forgotten")
def _():
    fresh()
    journal = Journal()
    pid = show("MainPID")
    expect("interval", announce(ONE, "127.1.0.1")[b"interval"], 1800)
    configure(CONFIG.replace("1800", "900"))
    systemctl("reload", "tbtt.service")
    expect("interval", announce(ONE, "127.1.0.2")[b"interval"], 900)
    with Udp("127.1.0.3") as udp:
        expect("interval over UDP", udp.announce(ONE)[0], 900)
    expect("process", show("MainPID"), pid)
    expect("peers", scrape([ONE]), {ONE: 3})
    expect("status", show("StatusText"), "1 torrents, 1 peers (0 IPv6), 0 announces/s")
    line = await_("its line", lambda: journal.find("^reloaded$"))
    expect("priority", line["PRIORITY"], "5")


@case("a bad reload changes nothing, and says where the fault is")
def _():
    fresh()
    journal = Journal()
    pid = show("MainPID")
    announce(ONE, "127.1.0.1")
    # Above the fault stands what would be good by itself.
    bad = CONFIG.replace("1800", "900").replace("workers = 2", 'workers = "two"')
    number = bad.splitlines().index('workers = "two"') + 1
    configure(bad)
    fault = rf"/etc/tbtt/tbtt\.toml:{number}: \[tracker\] workers: "
    expect("exit status of systemctl", systemctl("reload", "tbtt.service", check=False).returncode, 1)
    line = await_("its line", lambda: journal.find(f"^{fault}"))
    expect("priority", line["PRIORITY"], "3")
    # Without systemctl nobody asks before.
    send("HUP", pid)
    await_("its status", lambda: re.search(f"^reload refused: {fault}", show("StatusText")))
    line = await_("its line", lambda: journal.find(f'^reload refused, nothing is changed fault="{fault}'))
    expect("priority", line["PRIORITY"], "3")
    expect("interval", announce(ONE, "127.1.0.2")[b"interval"], 1800)
    expect("process", show("MainPID"), pid)
    expect("state", show("ActiveState") + " " + show("SubState"), "active running")
    expect("peers", scrape([ONE]), {ONE: 2})
    configure(CONFIG.replace("1800", "900"))
    systemctl("reload", "tbtt.service")
    expect("interval once it is right", announce(ONE, "127.1.0.3")[b"interval"], 900)
    assert "refused" not in show("StatusText")


@case("a bad configuration at the start is told, and its cure found")
def _():
    fresh('[http]\nlisten = "here"\n', start=False)
    journal = Journal()
    failed = systemctl("start", "tbtt.service", check=False)
    expect("exit status of systemctl", failed.returncode, 1)
    expect("exit status", show("ExecMainStatus"), "78")
    fault = r"^/etc/tbtt/tbtt\.toml:2: \[http\] listen: "
    line = await_("its line", lambda: journal.find(fault))
    expect("priority", line["PRIORITY"], "3")
    # Nor is it lost on an init script, which looks at nothing.
    journal = Journal()
    inside("sh", "-c", f"{' '.join(DAEMON)} 2>/dev/null", check=False)
    line = await_("its line", lambda: journal.find(fault))
    expect("transport and priority", [line["_TRANSPORT"], line["PRIORITY"]], ["syslog", "3"])
    configure(CONFIG)
    systemctl("restart", "tbtt.service")
    announce(ONE)
    announce_udp("::1")


# The operator's tool.


def tbttctl(*arguments, within=(), check=True):
    return inside(*within, "/usr/sbin/tbttctl", *arguments, check=check)


@case("tbttctl sees, saves and reloads, and a restart gives it a new socket")
def _():
    fresh(STATE)
    announce(ONE)
    figures = json.loads(tbttctl("status", "--json").stdout)
    expect("peers", figures["totals"]["peers_ipv4"], 1)
    owner = inside("stat", "--format=%U:%G %a", "/run/tbtt/control").stdout.strip()
    expect("socket", owner, "_tbtt:_tbtt 660")
    expect("saved", tbttctl("snapshot").stdout[:25], "saved 1 peer of 1 torrent")
    configure(STATE.replace("1800", "900"))
    tbttctl("reload")
    expect("interval", announce(ONE)[b"interval"], 900)
    configure(STATE.replace("workers = 2", 'workers = "two"'))
    refused = tbttctl("reload", check=False)
    expect("exit status", refused.returncode, 78)
    assert "/etc/tbtt/tbtt.toml:7: [tracker] workers: " in refused.stderr, refused.stderr
    expect("exit status of the check", tbttctl("check", check=False).returncode, 1)
    # Who is in the group may ask, others not.
    gid = user("_tbtt")[1]
    stranger = ("setpriv", "--reuid=65534", "--regid=65534")
    tbttctl("status", within=(*stranger, f"--groups={gid}"))
    expect("exit status", tbttctl("status", within=(*stranger, "--clear-groups"), check=False).returncode, 77)
    configure(STATE)
    systemctl("restart", "tbtt.service")
    expect("peers", json.loads(tbttctl("status", "--json").stdout)["totals"]["peers_ipv4"], 1)
    systemctl("stop", "tbtt.service")
    expect("exit status", tbttctl("status", check=False).returncode, 69)
    assert not (ROOT / "run/tbtt").exists()


# Restarting.


def fill(swarms, count):
    """The same number of peers in each."""
    for source in itertools.islice(client.addresses(4), count):
        for torrent in swarms:
            announce(torrent, source)
    return {torrent: count for torrent in swarms}


@case("ten restarts under load lose no announce and no peer")
def _():
    fresh(STATE)
    filled = fill(client.torrents("filled", 10), 100)
    pids = {show("MainPID")}
    longest = 0.0
    load = Load("loaded")
    try:
        for _ in range(10):
            before = load.total()
            await_("the load", lambda: load.total() > before + 100 or load.failures)
            begin = time.monotonic()
            systemctl("restart", "tbtt.service")
            longest = max(longest, time.monotonic() - begin)
            pids.add(show("MainPID"))
            expect("failures", load.failures, [])
            expect("peers", scrape(list(filled)), filled)
    finally:
        load.end()
    expect("failures", load.failures, [])
    assert all(load.answered.values()), load.answered
    expect("processes", len(pids), 11)
    expect("peers of the load", sum(scrape(load.torrents).values()), load.total())
    return f"{load.total()} announces, longest {load.longest:.1f} s, longest restart {longest:.1f} s"


@case("a connection id from before a restart is still good")
def _():
    fresh(STATE)
    with Udp("127.0.0.1") as udp:
        udp.announce(ONE)
        systemctl("restart", "tbtt.service")
        udp.announce(ONE)


@case("kill -9 loses what came after the last snapshot, no more")
def _():
    fresh(STATE)
    pid = show("MainPID")
    swarms = client.torrents("killed", 5)
    kept = fill(swarms, 50)
    file = ROOT / "var/lib/tbtt/snapshot"
    filled = time.time()
    # [state] interval says 10 s.
    await_("a snapshot of its own accord", lambda: file.exists() and file.stat().st_mtime > filled, 15)
    for torrent in swarms:
        announce(torrent, "127.99.0.1")
    systemctl("kill", "--kill-whom=main", "--signal=KILL", "tbtt.service")
    # Comes back by itself, and meanwhile whoever asks waits for his answer.
    announce(ONE)
    expect("restarts", show("NRestarts"), "1")
    assert show("MainPID") not in (pid, "0")
    counts = scrape(swarms)
    assert all(kept[one] <= counts[one] <= kept[one] + 1 for one in swarms), counts


# Being watched over.


def stuck(halt, resume):
    # Twice what the pings are apart, and they wait for two signs of life.
    fresh(drop_in="WatchdogSec=6")
    journal = Journal()
    pid = show("MainPID")
    announce(ONE)
    halt(pid)
    try:
        await_("the watchdog", lambda: show("NRestarts") == "1", 60)
    finally:
        resume(pid)
    await_("the service", lambda: show("ActiveState") == "active")
    assert show("MainPID") != pid
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in journal.entries("_PID=1"))
    announce(ONE)


@case("the watchdog restarts a process that is halted")
def _():
    stuck(lambda pid: send("STOP", pid), lambda _: None)


@case("the watchdog restarts a process with one worker stuck")
def _():
    # A control group of threads can be frozen by itself.
    group = "/sys/fs/cgroup/system.slice/tbtt.service/stuck"

    def halt(pid):
        worker = inside("sh", "-c", f"grep -lx worker-1 /proc/{pid}/task/*/comm").stdout.split("/")[4]
        inside(
            "sh", "-ec",
            f"mkdir {group}; echo threaded >{group}/cgroup.type; echo {worker} >{group}/cgroup.threads;"
            f"echo 1 >{group}/cgroup.freeze",
        )
        await_("the worker to stand still", lambda: "frozen 1" in inside("cat", f"{group}/cgroup.events").stdout)
        # The other one serves on.
        announce(ONE)

    stuck(halt, lambda _: inside("sh", "-c", f"! [ -d {group} ] || echo 0 >{group}/cgroup.freeze"))


@case("the watchdog lets a process be that only waits")
def _():
    fresh(drop_in="WatchdogSec=5")
    pid = show("MainPID")
    time.sleep(11)
    expect("process", show("MainPID"), pid)
    expect("restarts", show("NRestarts"), "0")


# The log.


def complain(numbers):
    """A line of the log for each number."""
    pid = show("MainPID")
    for number in numbers:
        configure(CONFIG + f'[log]\ntarget = "syslog"\nlevel = "no {number}."\n')
        send("HUP", pid)
        await_("the reload", lambda: f"no {number}." in show("StatusText"))


def complaints(lines):
    """The numbers in these lines, each of which must be whole."""
    numbers = []
    for line in lines:
        if "reload refused" in line:
            assert re.search(r'reload refused, nothing is changed fault=".*: .*no ([0-9]+)\..*"$', line), line
            numbers.append(int(re.search(r"no ([0-9]+)\.", line)[1]))
    return numbers


@case("lines in the journal are whole, and as urgent as they are")
def _():
    journal = Journal()
    fresh(CONFIG + '[udp]\nlisten = []\n')
    configure(CONFIG.replace("workers = 2", "workers = 3"))
    systemctl("reload", "tbtt.service")
    configure("nonsense")
    send("HUP", show("MainPID"))
    await_("the reload", lambda: "refused" in show("StatusText"))
    systemctl("stop", "tbtt.service")
    await_("the last line", lambda: journal.find("^stopped$"))
    priorities = {
        "started": "5",
        "listening": "5",
        "open to all": "4",
        "changed, but takes effect at a restart only": "4",
        "reloaded": "5",
        "reload refused": "3",
        "stopping": "5",
        "stopped": "5",
    }
    seen = set()
    field = r'(?: [a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^ "=]+))*'
    for entry in journal.tbtt():
        expect("transport", entry["_TRANSPORT"], "stdout")
        assert re.fullmatch(rf"[A-Za-z][^=<\n]*{field}", entry["MESSAGE"]), entry["MESSAGE"]
        for start, priority in priorities.items():
            if entry["MESSAGE"].startswith(start):
                expect(entry["MESSAGE"], entry["PRIORITY"], priority)
                seen.add(start)
    expect("lines", seen, set(priorities))
    # From its own network it cannot see the addresses that clients may reach.
    expect("addresses for clients", journal.find("^clients announce to"), None)


def logged():
    return (ROOT / "var/log/syslog").read_text().splitlines()


@contextlib.contextmanager
def without_rsyslog():
    systemctl("stop", "syslog.socket", "rsyslog.service")
    try:
        yield
    finally:
        systemctl("start", "syslog.socket", "rsyslog.service")


@case("syslog by way of the journal is whole, with rsyslogd gone for a while")
def _():
    fresh(CONFIG + '[log]\ntarget = "syslog"\n')
    journal = Journal()
    before = len(logged())
    complain(range(5))
    with without_rsyslog():
        complain(range(5, 10))
    complain(range(10, 15))
    await_("the last line", lambda: 14 in complaints(logged()[before:]))
    entries = [entry for entry in journal.tbtt() if "reload refused" in entry["MESSAGE"]]
    # The journal misses none; what it passes on is its own affair while nobody listens.
    expect("journal", complaints(entry["MESSAGE"] for entry in entries), list(range(15)))
    for entry in entries:
        expect("entry", [entry[key] for key in ("_TRANSPORT", "PRIORITY", "SYSLOG_FACILITY")], ["syslog", "3", "3"])
    numbers = complaints(logged()[before:])
    expect("rsyslogd's file", numbers, sorted(set(numbers)))
    assert {*range(5), *range(10, 15)} <= set(numbers), numbers


# A directory that takes the place of the journal's in the sight of the service.
DIRECT = "BindPaths=/run/direct:/run/systemd/journal"


def listen_directly():
    write("/etc/rsyslog.d/direct.conf", 'input(type="imuxsock" Socket="/run/direct/dev-log" CreatePath="on")\n')
    systemctl("restart", "rsyslog.service")
    await_("rsyslogd", lambda: (ROOT / "run/direct/dev-log").exists())


def dropped(lines):
    return sum(int(number) for line in lines for number in re.findall(r" log lines dropped dropped=([0-9]+)$", line))


@case("syslog straight to rsyslogd loses counted lines only, with it gone for a while")
def _():
    listen_directly()
    fresh(CONFIG + '[log]\ntarget = "syslog"\n', DIRECT)
    before = len(logged())
    complain(range(5))
    with without_rsyslog():
        complain(range(5, 10))
        announce(ONE)
    complain(range(10, 15))
    await_("the last line", lambda: 14 in complaints(logged()[before:]))
    expect("rsyslogd's file", complaints(logged()[before:]), [*range(5), *range(10, 15)])
    expect("dropped lines", dropped(logged()[before:]), 5)


@case("syslog straight to rsyslogd makes no client wait, with it halted for a while")
def _():
    listen_directly()
    log = '[log]\ntarget = "syslog"\nlevel = "info"\nannounces = true\naddresses = "full"\n'
    fresh(CONFIG + log, DIRECT)
    before = len(logged())
    rsyslogd = show("MainPID", "rsyslog.service")
    # Many more than the socket's queue holds.
    clients = list(itertools.islice(client.addresses(4), 500))
    send("STOP", rsyslogd)
    try:
        begin = time.monotonic()
        for source in clients:
            announce(ONE, source)
        longest = time.monotonic() - begin
        assert longest < 10, longest
    finally:
        send("CONT", rsyslogd)
    announce(ONE, "::1")

    def told():
        """A line for each announce, or its count among the dropped."""
        lines = [line for line in logged()[before:] if ": announced " in line]
        whole = rf": announced protocol=http client=\S+ info_hash={ONE.hex()}( [a-z_]+=\S+)+$"
        assert all(re.search(whole, line) for line in lines), lines
        seen = [re.search(r"client=(\S+)", line)[1] for line in lines]
        expect("order", seen, [source for source in [*clients, "::1"] if source in set(seen)])
        return len(seen) + dropped(logged()[before:]) == len(clients) + 1 and len(seen)

    seen = await_("all lines", told)
    assert 10 < seen < len(clients), seen
    return f"{seen} of {len(clients) + 1} lines through, the others counted"


# Giving up what it does not need.


@contextlib.contextmanager
def by_hand(*command):
    """A process of root's, as from a shell; its id in the machine."""
    write("/run/by-hand", 'echo $$ >/run/by-hand.pid\nexec "$@" >/run/by-hand.log 2>&1 </dev/null\n')
    remove("/run/by-hand.pid")
    process = subprocess.Popen(["nsenter", "--all", "--target", FIRST, "--", "sh", "/run/by-hand", *command])
    try:
        file = ROOT / "run/by-hand.pid"
        pid = await_("its id", lambda: file.exists() and file.read_text().strip())
        yield pid
    finally:
        send("TERM", pid)
        try:
            process.wait(10)
        finally:
            process.kill()


def status(pid):
    """/proc/PID/status of each thread."""
    texts = inside("sh", "-c", f"tail -n +1 /proc/{pid}/task/*/status").stdout.split("==> ")[1:]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


def user(name):
    line = next(line for line in (ROOT / "etc/passwd").read_text().splitlines() if line.startswith(f"{name}:"))
    return line.split(":")[2:4]


@case("started by root's hand it binds port 80, and keeps nothing of root")
def _():
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    listen = 'listen = ["[::]:80"]\n'
    configure(CONFIG.replace("[http]\n", f"[http]\n{listen}") + f'[udp]\n{listen}[daemon]\nuser = "_tbtt"\n')
    with by_hand(*DAEMON) as pid:
        await_("an answer", lambda: answered(lambda: announce(ONE, to=("127.0.0.1", 80))))
        uid, gid = user("_tbtt")
        threads = status(pid)
        assert len(threads) >= 3, threads
        for thread in threads:
            expect("uids", thread["Uid"].split(), [uid] * 4)
            expect("gids", thread["Gid"].split(), [gid] * 4)
            expect("groups", thread["Groups"].split(), [gid])
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                expect(kind, int(thread[kind], 16), 0)
            expect("NoNewPrivs", thread["NoNewPrivs"], "1")
        # Nobody of its own uid may look into it.
        ids = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        look = inside("setpriv", *ids, "cat", f"/proc/{pid}/environ", check=False)
        assert look.returncode != 0, "its memory can be read"


@case("started by root's hand without a user to become it refuses")
def _():
    configure(CONFIG)
    journal = Journal()
    refused = inside(*DAEMON, check=False)
    expect("exit status", refused.returncode, 77)
    line = await_("its line", lambda: journal.find("^started as root, but no user is configured: "))
    expect("priority", line["PRIORITY"], "3")


@case("the service has no capability, a filter, and namespaces of its own")
def _():
    fresh()
    pid = show("MainPID")
    for thread in status(pid):
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect(kind, int(thread[kind], 16), 0)
        expect("NoNewPrivs", thread["NoNewPrivs"], "1")
        expect("Seccomp", thread["Seccomp"], "2")
        expect("uids", thread["Uid"].split(), [user("_tbtt")[0]] * 4)
    for kind in ("net", "mnt", "user", "ipc", "uts"):
        own, others = (inside("readlink", f"/proc/{one}/ns/{kind}").stdout for one in (pid, "1"))
        assert own != others, f"the {kind} namespace is everyone's"


# What _tbtt can do in the unit, and without one; where even the latter cannot, the uid is enough.
ATTEMPTS = {
    "read the configuration": ("yes", "yes"),
    "write the state": ("yes", "yes"),
    "tell syslog": ("yes", "yes"),
    "write to the temporary directory": ("yes", "yes"),
    "read the passwords": ("no", "no"),
    "read a home": ("yes", "no"),
    "write beside the state": ("yes", "no"),
    "write to shared memory": ("yes", "no"),
    "exec a shell": ("yes", "no"),
    "connect out": ("yes", "no"),
    "make an IPv6 socket": ("yes", "no"),
    "talk to the kernel about routes": ("yes", "no"),
    "change an owner": ("yes", "no"),
    "make a file set its user": ("yes", "no"),
    "change its priority": ("yes", "no"),
    "share memory": ("yes", "no"),
    "see processes of others": ("yes", "no"),
    "trace a process": ("yes", "no"),
    "load a module": ("no", "no"),
    "mount a file system": ("no", "no"),
}


def attempt(unit):
    """What the program of attempts prints when it is run as this unit."""
    remove("/run/attempts")
    own = "Type=oneshot\nExecStart=/usr/lib/tbtt-perl /usr/lib/tbtt-attempts\nStandardOutput=file:/run/attempts\n"
    write("/run/systemd/system/tbtt-attempts.service", f"{unit}\n[Service]\n{own}")
    systemctl("daemon-reload")
    systemctl("start", "tbtt-attempts.service")
    lines = (ROOT / "run/attempts").read_text().splitlines()
    return dict(re.fullmatch("(.*?) (yes|no: .*)", line).groups() for line in lines)


@case("the unit's sandbox refuses what the user alone could do")
def _():
    fresh()
    # An interpreter where the unit lets programs be run.
    inside("cp", "/usr/bin/perl", "/usr/lib/tbtt-perl")
    inside("sh", "-ec", "mkdir -p /home /srv; chmod 1777 /srv; echo x >/home/attempt; chmod 644 /home/attempt")
    free = attempt("[Service]\nUser=_tbtt\n")
    remove("/tmp/attempt", "/srv/attempt", "/dev/shm/attempt", "/var/lib/tbtt/attempt")
    # All but what makes it tbtt.
    unit = (ROOT / "usr/lib/systemd/system/tbtt.service").read_text()
    own = "Type|ExecStart|ExecReload|Sockets|Restart|RestartSec|WatchdogSec|Requires|Wants|After|WantedBy"
    unit, count = re.subn(f"(?m)^({own})=.*\n", "", unit)
    expect("lines left out", count, own.count("|") + 1)
    confined = attempt(unit)
    could = {name: tuple(seen[name].split(":")[0] for seen in (free, confined)) for name in free}
    others = {name: (free[name], confined[name]) for name in could if could[name] != ATTEMPTS.get(name)}
    expect("other than thought", others, {})
    expect("attempts", set(could), set(ATTEMPTS))
    assert not (ROOT / "tmp/attempt").exists(), "the temporary directory is everyone's"


def main():
    pattern = sys.argv[2]
    passed = failed = 0
    for name, function in cases:
        if pattern not in name:
            continue
        begin = time.monotonic()
        journal = Journal()
        try:
            note = function()
            note = f"; {note}" if note else ""
            print(f"ok {name} ({time.monotonic() - begin:.1f} s{note})", flush=True)
            passed += 1
        except (AssertionError, OSError, Refused, ValueError, LookupError, subprocess.SubprocessError) as error:
            line = error.__traceback__
            while line.tb_next and line.tb_next.tb_frame.f_code.co_filename == __file__:
                line = line.tb_next
            print(f"FAIL {name}: line {line.tb_lineno}: {type(error).__name__}: {error}", flush=True)
            print(*(entry["MESSAGE"] for entry in journal.entries()[-20:]), sep="\n", flush=True)
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


sys.exit(main())
