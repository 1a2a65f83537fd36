#!/usr/bin/python3
"""Checks tbtt under systemd from outside, as its clients and its operator see it.

cases.py PID [PATTERN]   must run in the network namespace of the system whose first process is PID
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


# The booted system.


def inside(*command, check=True):
    entered = ["nsenter", "--all", "--target", FIRST, "--", *command]
    done = subprocess.run(entered, capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done


def systemctl(*arguments, check=True):
    return inside("systemctl", *arguments, check=check)


def send(name, pid):
    """Sends a signal; does nothing if the process has exited."""
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
    while not (result := ready()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
    return result


def expect(what, seen, wanted):
    assert seen == wanted, f"{what}: found {seen!r}, expected {wanted!r}"


def fresh(config=CONFIG, drop_in="", start=True):
    """Stops the units, deletes the state, and starts the sockets with a new configuration, and the service if `start` is set."""
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    remove("/var/lib/tbtt", "/run/systemd/system/tbtt.service.d")
    configure(config)
    if drop_in:
        write("/run/systemd/system/tbtt.service.d/test.conf", f"[Service]\n{drop_in}\n")
    systemctl("daemon-reload")
    systemctl("reset-failed")
    systemctl("start", "tbtt.socket", "tbtt-udp.socket")
    expect("state before the first client", show("ActiveState"), "inactive")
    if start:
        systemctl("start", "tbtt.service")


class Journal:
    """The entries that are added to the journal after this object is created."""

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
    # The system has no manual pages.
    faults = inside("systemd-analyze", "verify", "--man=no", *units, check=False)
    expect("faults", faults.stdout + faults.stderr, "")
    expect("exit status", faults.returncode, 0)


@case("systemd-analyze rates the unit's exposure at 0.5 or less")
def _():
    unit = "/usr/lib/systemd/system/tbtt.service"
    text = inside("systemd-analyze", "security", "--offline=true", "--no-pager", unit, check=False).stdout
    level = re.search(r"Overall exposure level for tbtt\.service: ([0-9.]+)", text)
    assert level, text
    assert float(level[1]) <= 0.5, text


def started_by(first_announce):
    fresh(start=False)
    first_announce()
    expect("state", show("ActiveState"), "active")
    expect("restarts", show("NRestarts"), "0")
    counts = scrape([ONE])
    expect("peers", counts, {ONE: 1})


@case("the first announce over HTTP and IPv4 starts the service")
def _():
    started_by(lambda: announce(ONE, "127.0.0.1"))


@case("the first announce over HTTP and IPv6 starts the service")
def _():
    started_by(lambda: announce(ONE, "::1"))


def announce_udp(source):
    with Udp(source) as udp:
        return udp.announce(ONE)


@case("the first announce over UDP and IPv4 starts the service")
def _():
    started_by(lambda: announce_udp("127.0.0.1"))


@case("the first announce over UDP and IPv6 starts the service")
def _():
    started_by(lambda: announce_udp("::1"))


@case("systemd-socket-activate starts the daemon on the first connection")
def _():
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    configure(CONFIG + '[daemon]\nuser = "_tbtt"\n')
    with from_shell("systemd-socket-activate", "--listen=[::]:6969", "--fdname=http", *DAEMON):
        response = await_("a response", lambda: response_to(lambda: announce(ONE, "127.0.0.1")))
        expect("interval", response[b"interval"], 1800)


def response_to(request):
    """Returns the response, or None if the tracker does not accept connections."""
    with contextlib.suppress(ConnectionError):
        return request()
    return None


@case("a stop succeeds, and the sockets keep listening")
def _():
    fresh()
    journal = Journal()
    announce(ONE)
    systemctl("stop", "tbtt.service")
    expect("result", show("Result"), "success")
    expect("exit status", show("ExecMainStatus"), "0")
    await_("the last log line", lambda: journal.find("^stopped$"))
    assert journal.find("^counters since the start http_announces=1 connections=1$")
    expect("socket", show("ActiveState", "tbtt.socket"), "active")
    announce(ONE)
    expect("state", show("ActiveState"), "active")


# Reloading.


@case("a reload takes effect at once and keeps all peers")
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
    line = await_("the log line", lambda: journal.find("^configuration reloaded$"))
    expect("priority", line["PRIORITY"], "5")


@case("a failed reload changes nothing and reports the position of the error")
def _():
    fresh()
    journal = Journal()
    pid = show("MainPID")
    announce(ONE, "127.1.0.1")
    # The line before the error is a valid change.
    bad = CONFIG.replace("1800", "900").replace("workers = 2", 'workers = "two"')
    number = bad.splitlines().index('workers = "two"') + 1
    configure(bad)
    fault = rf"/etc/tbtt/tbtt\.toml:{number}: \[tracker\] workers: "
    expect("exit status of systemctl", systemctl("reload", "tbtt.service", check=False).returncode, 1)
    line = await_("the log line", lambda: journal.find(f"^{fault}"))
    expect("priority", line["PRIORITY"], "3")
    # systemctl reload checks the configuration first; a signal does not.
    send("HUP", pid)
    await_("the status text", lambda: re.search(f"^reload failed: {fault}", show("StatusText")))
    line = await_("the log line", lambda: journal.find(f'^reload failed; keeping the current configuration error="{fault}'))
    expect("priority", line["PRIORITY"], "3")
    expect("interval", announce(ONE, "127.1.0.2")[b"interval"], 1800)
    expect("process", show("MainPID"), pid)
    expect("state", show("ActiveState") + " " + show("SubState"), "active running")
    expect("peers", scrape([ONE]), {ONE: 2})
    configure(CONFIG.replace("1800", "900"))
    systemctl("reload", "tbtt.service")
    expect("interval after the correction", announce(ONE, "127.1.0.3")[b"interval"], 900)
    assert "failed" not in show("StatusText")


@case("a configuration error at start is reported, and a corrected configuration starts")
def _():
    fresh('[http]\nlisten = "here"\n', start=False)
    journal = Journal()
    failed = systemctl("start", "tbtt.service", check=False)
    expect("exit status of systemctl", failed.returncode, 1)
    expect("exit status", show("ExecMainStatus"), "78")
    fault = r"^/etc/tbtt/tbtt\.toml:2: \[http\] listen: "
    line = await_("the log line", lambda: journal.find(fault))
    expect("priority", line["PRIORITY"], "3")
    # Under an init script, which discards stderr, the error goes to syslog.
    journal = Journal()
    inside("sh", "-c", f"{' '.join(DAEMON)} 2>/dev/null", check=False)
    line = await_("the log line", lambda: journal.find(fault))
    expect("transport and priority", [line["_TRANSPORT"], line["PRIORITY"]], ["syslog", "3"])
    configure(CONFIG)
    systemctl("restart", "tbtt.service")
    announce(ONE)
    announce_udp("::1")


# tbttctl.


def tbttctl(*arguments, within=(), check=True):
    return inside(*within, "/usr/sbin/tbttctl", *arguments, check=check)


@case("tbttctl shows the status, saves, reloads, and works after a restart")
def _():
    fresh(STATE)
    announce(ONE)
    report = json.loads(tbttctl("status", "--json").stdout)
    expect("peers", report["totals"]["peers_ipv4"], 1)
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
    # Members of the group have access, other users do not.
    gid = user("_tbtt")[1]
    other_user = ("setpriv", "--reuid=65534", "--regid=65534")
    tbttctl("status", within=(*other_user, f"--groups={gid}"))
    expect("exit status", tbttctl("status", within=(*other_user, "--clear-groups"), check=False).returncode, 77)
    configure(STATE)
    systemctl("restart", "tbtt.service")
    expect("peers", json.loads(tbttctl("status", "--json").stdout)["totals"]["peers_ipv4"], 1)
    systemctl("stop", "tbtt.service")
    expect("exit status", tbttctl("status", check=False).returncode, 69)
    assert not (ROOT / "run/tbtt").exists()


# Restarting.


def fill(swarms, count):
    """Announces `count` peers for each torrent; returns the number of peers by torrent."""
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
    assert all(load.responses.values()), load.responses
    expect("processes", len(pids), 11)
    expect("peers of the load", sum(scrape(load.torrents).values()), load.total())
    return f"{load.total()} announces, longest {load.longest:.1f} s, longest restart {longest:.1f} s"


@case("a connection id is still valid after a restart")
def _():
    fresh(STATE)
    with Udp("127.0.0.1") as udp:
        udp.announce(ONE)
        systemctl("restart", "tbtt.service")
        udp.announce(ONE)


@case("kill -9 loses only the peers since the last snapshot")
def _():
    fresh(STATE)
    pid = show("MainPID")
    swarms = client.torrents("killed", 5)
    kept = fill(swarms, 50)
    file = ROOT / "var/lib/tbtt/snapshot"
    filled = time.time()
    # [state] interval is 10 s.
    await_("a periodic snapshot", lambda: file.exists() and file.stat().st_mtime > filled, 15)
    for torrent in swarms:
        announce(torrent, "127.99.0.1")
    systemctl("kill", "--kill-whom=main", "--signal=KILL", "tbtt.service")
    # systemd restarts the service, and a client waits for its response meanwhile.
    announce(ONE)
    expect("restarts", show("NRestarts"), "1")
    assert show("MainPID") not in (pid, "0")
    counts = scrape(swarms)
    assert all(kept[torrent] <= counts[torrent] <= kept[torrent] + 1 for torrent in swarms), counts


# The watchdog.


def stuck(halt, resume):
    # The daemon pings after half of this time, in which every worker must report that it is alive.
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


@case("the watchdog restarts a stopped process")
def _():
    stuck(lambda pid: send("STOP", pid), lambda _: None)


@case("the watchdog restarts a process with one stuck worker")
def _():
    # A threaded control group can be frozen separately.
    group = "/sys/fs/cgroup/system.slice/tbtt.service/stuck"

    def halt(pid):
        worker = inside("sh", "-c", f"grep -lx worker-1 /proc/{pid}/task/*/comm").stdout.split("/")[4]
        inside(
            "sh", "-ec",
            f"mkdir {group}; echo threaded >{group}/cgroup.type; echo {worker} >{group}/cgroup.threads;"
            f"echo 1 >{group}/cgroup.freeze",
        )
        await_("the worker to freeze", lambda: "frozen 1" in inside("cat", f"{group}/cgroup.events").stdout)
        # The other worker still serves clients.
        announce(ONE)

    stuck(halt, lambda _: inside("sh", "-c", f"! [ -d {group} ] || echo 0 >{group}/cgroup.freeze"))


@case("the watchdog does not restart an idle process")
def _():
    fresh(drop_in="WatchdogSec=5")
    pid = show("MainPID")
    time.sleep(11)
    expect("process", show("MainPID"), pid)
    expect("restarts", show("NRestarts"), "0")


# The log.


def log_errors(numbers):
    """Makes the daemon log an error for each number."""
    pid = show("MainPID")
    for number in numbers:
        configure(CONFIG + f'[log]\ntarget = "syslog"\nlevel = "no {number}."\n')
        send("HUP", pid)
        await_("the reload", lambda: f"no {number}." in show("StatusText"))


def error_numbers(lines):
    """Returns the numbers of the errors in these lines; fails if a line is not complete."""
    numbers = []
    for line in lines:
        if "reload failed" in line:
            assert re.search(r'reload failed; keeping the current configuration error=".*: .*no ([0-9]+)\..*"$', line), line
            numbers.append(int(re.search(r"no ([0-9]+)\.", line)[1]))
    return numbers


@case("lines in the journal are complete and have the right priority")
def _():
    journal = Journal()
    fresh(CONFIG + '[udp]\nlisten = []\n')
    configure(CONFIG.replace("workers = 2", "workers = 3"))
    systemctl("reload", "tbtt.service")
    configure("nonsense")
    send("HUP", show("MainPID"))
    await_("the reload", lambda: "reload failed" in show("StatusText"))
    systemctl("stop", "tbtt.service")
    await_("the last line", lambda: journal.find("^stopped$"))
    priorities = {
        "started": "5",
        "listening": "5",
        "tracker is open": "4",
        "setting changed; restart tbtt to apply it": "4",
        "configuration reloaded": "5",
        "reload failed": "3",
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
    # In its own network namespace, the service does not see the addresses that clients can reach.
    expect("addresses for clients", journal.find("^clients announce to"), None)


def syslog_lines():
    return (ROOT / "var/log/syslog").read_text().splitlines()


@contextlib.contextmanager
def without_rsyslog():
    systemctl("stop", "syslog.socket", "rsyslog.service")
    try:
        yield
    finally:
        systemctl("start", "syslog.socket", "rsyslog.service")


@case("syslog through the journal is complete although rsyslogd is stopped for a while")
def _():
    fresh(CONFIG + '[log]\ntarget = "syslog"\n')
    journal = Journal()
    before = len(syslog_lines())
    log_errors(range(5))
    with without_rsyslog():
        log_errors(range(5, 10))
    log_errors(range(10, 15))
    await_("the last line", lambda: 14 in error_numbers(syslog_lines()[before:]))
    entries = [entry for entry in journal.tbtt() if "reload failed" in entry["MESSAGE"]]
    # The journal has all entries. It may not forward all of them while rsyslogd is down.
    expect("journal", error_numbers(entry["MESSAGE"] for entry in entries), list(range(15)))
    for entry in entries:
        expect("entry", [entry[key] for key in ("_TRANSPORT", "PRIORITY", "SYSLOG_FACILITY")], ["syslog", "3", "3"])
    numbers = error_numbers(syslog_lines()[before:])
    expect("rsyslogd's file", numbers, sorted(set(numbers)))
    assert {*range(5), *range(10, 15)} <= set(numbers), numbers


# Hides the journal's directory from the service, so that its /dev/log is rsyslogd's own socket.
DIRECT = "BindPaths=/run/direct:/run/systemd/journal"


def bypass_journal():
    write("/etc/rsyslog.d/direct.conf", 'input(type="imuxsock" Socket="/run/direct/dev-log" CreatePath="on")\n')
    systemctl("restart", "rsyslog.service")
    await_("rsyslogd", lambda: (ROOT / "run/direct/dev-log").exists())


def dropped(lines):
    return sum(int(number) for line in lines for number in re.findall(r" log lines dropped dropped=([0-9]+)$", line))


@case("syslog without the journal counts all lines that it loses while rsyslogd is stopped")
def _():
    bypass_journal()
    fresh(CONFIG + '[log]\ntarget = "syslog"\n', DIRECT)
    before = len(syslog_lines())
    log_errors(range(5))
    with without_rsyslog():
        log_errors(range(5, 10))
        announce(ONE)
    log_errors(range(10, 15))
    await_("the last line", lambda: 14 in error_numbers(syslog_lines()[before:]))
    expect("rsyslogd's file", error_numbers(syslog_lines()[before:]), [*range(5), *range(10, 15)])
    expect("dropped lines", dropped(syslog_lines()[before:]), 5)


@case("syslog without the journal does not delay clients while rsyslogd hangs")
def _():
    bypass_journal()
    log = '[log]\ntarget = "syslog"\nlevel = "info"\nannounces = true\naddresses = "full"\n'
    fresh(CONFIG + log, DIRECT)
    before = len(syslog_lines())
    rsyslogd = show("MainPID", "rsyslog.service")
    # These are many more than the socket's queue holds.
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

    def logged_announces():
        """Returns the number of logged announces, once each announce is either logged or counted as dropped."""
        lines = [line for line in syslog_lines()[before:] if ": announced " in line]
        complete = rf": announced protocol=http client=\S+ info_hash={ONE.hex()}( [a-z_]+=\S+)+$"
        assert all(re.search(complete, line) for line in lines), lines
        seen = [re.search(r"client=(\S+)", line)[1] for line in lines]
        expect("order", seen, [source for source in [*clients, "::1"] if source in set(seen)])
        return len(seen) + dropped(syslog_lines()[before:]) == len(clients) + 1 and len(seen)

    seen = await_("all lines", logged_announces)
    assert 10 < seen < len(clients), seen
    return f"{seen} of {len(clients) + 1} lines logged, the others counted as dropped"


# Privileges.


@contextlib.contextmanager
def from_shell(*command):
    """Runs a command as root, as from a shell; yields its process id in the booted system."""
    write("/run/from-shell", 'echo $$ >/run/from-shell.pid\nexec "$@" >/run/from-shell.log 2>&1 </dev/null\n')
    remove("/run/from-shell.pid")
    process = subprocess.Popen(["nsenter", "--all", "--target", FIRST, "--", "sh", "/run/from-shell", *command])
    try:
        file = ROOT / "run/from-shell.pid"
        pid = await_("its process id", lambda: file.exists() and file.read_text().strip())
        yield pid
    finally:
        send("TERM", pid)
        try:
            process.wait(10)
        finally:
            process.kill()


def status(pid):
    """Returns /proc/PID/status of each thread, as dictionaries."""
    texts = inside("sh", "-c", f"tail -n +1 /proc/{pid}/task/*/status").stdout.split("==> ")[1:]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


def user(name):
    line = next(line for line in (ROOT / "etc/passwd").read_text().splitlines() if line.startswith(f"{name}:"))
    return line.split(":")[2:4]


@case("started by root from a shell, the daemon binds port 80 and drops all privileges")
def _():
    systemctl("stop", "tbtt.socket", "tbtt-udp.socket", "tbtt.service")
    listen = 'listen = ["[::]:80"]\n'
    configure(CONFIG.replace("[http]\n", f"[http]\n{listen}") + f'[udp]\n{listen}[daemon]\nuser = "_tbtt"\n')
    with from_shell(*DAEMON) as pid:
        await_("a response", lambda: response_to(lambda: announce(ONE, to=("127.0.0.1", 80))))
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
        # Other processes with the same uid have no access to its memory.
        ids = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        read = inside("setpriv", *ids, "cat", f"/proc/{pid}/environ", check=False)
        assert read.returncode != 0, "another process can read its environment"


@case("started by root without a configured user, the daemon refuses to run")
def _():
    configure(CONFIG)
    journal = Journal()
    refused = inside(*DAEMON, check=False)
    expect("exit status", refused.returncode, 77)
    line = await_("the log line", lambda: journal.find("^started as root, but no user is configured; "))
    expect("priority", line["PRIORITY"], "3")


@case("the service has no capabilities, a system call filter, and private namespaces")
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
        own, others = (inside("readlink", f"/proc/{process}/ns/{kind}").stdout for process in (pid, "1"))
        assert own != others, f"the service shares the {kind} namespace of the system"


# Whether user _tbtt can do it without the unit's sandbox, and with it. If both are refused, the uid is enough.
ATTEMPTS = {
    "read the configuration": ("yes", "yes"),
    "write the state": ("yes", "yes"),
    "log to syslog": ("yes", "yes"),
    "write to the temporary directory": ("yes", "yes"),
    "read the password hashes": ("no", "no"),
    "read a home directory": ("yes", "no"),
    "write outside the state directory": ("yes", "no"),
    "write to shared memory": ("yes", "no"),
    "execute a shell": ("yes", "no"),
    "open an outgoing connection": ("yes", "no"),
    "create an IPv6 socket": ("yes", "no"),
    "create a netlink socket": ("yes", "no"),
    "change the owner of a file": ("yes", "no"),
    "set the setuid bit": ("yes", "no"),
    "change its priority": ("yes", "no"),
    "create a shared memory segment": ("yes", "no"),
    "see processes of other users": ("yes", "no"),
    "trace a process": ("yes", "no"),
    "load a module": ("no", "no"),
    "mount a file system": ("no", "no"),
}


def attempt(unit):
    """Runs sandbox-probe in this unit; returns its results by name."""
    remove("/run/sandbox-probe")
    own = "Type=oneshot\nExecStart=/usr/lib/tbtt-perl /usr/lib/tbtt-sandbox-probe\nStandardOutput=file:/run/sandbox-probe\n"
    write("/run/systemd/system/tbtt-sandbox-probe.service", f"{unit}\n[Service]\n{own}")
    systemctl("daemon-reload")
    systemctl("start", "tbtt-sandbox-probe.service")
    lines = (ROOT / "run/sandbox-probe").read_text().splitlines()
    return dict(re.fullmatch("(.*?) (yes|no: .*)", line).groups() for line in lines)


@case("the unit's sandbox refuses actions that the user could do without it")
def _():
    fresh()
    # The unit permits to execute programs in /usr/lib only, so the interpreter is copied there.
    inside("cp", "/usr/bin/perl", "/usr/lib/tbtt-perl")
    inside("sh", "-ec", "mkdir -p /home /srv; chmod 1777 /srv; echo x >/home/attempt; chmod 644 /home/attempt")
    free = attempt("[Service]\nUser=_tbtt\n")
    remove("/tmp/attempt", "/srv/attempt", "/dev/shm/attempt", "/var/lib/tbtt/attempt")
    # The unit without the settings that start tbtt.
    unit = (ROOT / "usr/lib/systemd/system/tbtt.service").read_text()
    own = "Type|ExecStart|ExecReload|Sockets|Restart|RestartSec|WatchdogSec|Requires|Wants|After|WantedBy"
    unit, count = re.subn(f"(?m)^({own})=.*\n", "", unit)
    expect("removed lines", count, own.count("|") + 1)
    confined = attempt(unit)
    summary = {name: tuple(seen[name].split(":")[0] for seen in (free, confined)) for name in free}
    differing = {name: (free[name], confined[name]) for name in summary if summary[name] != ATTEMPTS.get(name)}
    expect("unexpected results", differing, {})
    expect("attempts", set(summary), set(ATTEMPTS))
    assert not (ROOT / "tmp/attempt").exists(), "the service shares the system's temporary directory"


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
