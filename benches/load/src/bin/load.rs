//! The load generator. It sends requests to a tracker, checks each response, and prints a line of JSON.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tbtt_load::population::{Population, Spread};
use tbtt_load::request::{Plan, RequestKind};
use tbtt_load::system::{pin_to_core, process_cpu_time};
use tbtt_load::tally::Tally;
use tbtt_load::{http, udp};

const USAGE: &str = "\
usage: load CASE [KEY=VALUE]... [-- COMMAND]

CASE http-close http-keepalive udp            announces of random peers
     http-scrape udp-scrape                   scrapes of five random torrents
     http-fill udp-fill                       one announce of each peer
     start                                    runs COMMAND until it responds to an http-close announce
     hashes                                   prints the info-hashes in hex, for an allow list

KEY  port=6969        port of the tracker on 127.0.0.1
     pid=N            process whose CPU time is measured
     core=N           core to run on; with start, COMMAND runs on core 0 in this case
     requests=100000  seconds=10              limits of the run; it ends at the first limit
     window=64        requests in flight at a time
     peers=1000000    torrents=10000          spread=zipf|uniform|even
     addresses=4096   number of addresses of the peers
     numwant=50       number of peers that an announce requests
     connects=0       number of connects in 1000 UDP requests
     seed=1           seed of torrents and peers";

struct Arguments {
    case: String,
    port: u16,
    pid: Option<u32>,
    core: Option<usize>,
    requests: u64,
    seconds: u64,
    window: usize,
    peers: u32,
    torrents: u32,
    spread: Spread,
    addresses: u32,
    numwant: u32,
    connects: u32,
    seed: u64,
    command: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(fault) => {
            eprintln!("load: {fault}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match arguments.run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("load {}: {fault}", arguments.case);
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            case: words.next().ok_or("CASE is missing")?,
            port: 6969,
            pid: None,
            core: None,
            requests: 100_000,
            seconds: 10,
            window: 64,
            peers: 1_000_000,
            torrents: 10_000,
            spread: Spread::Zipf,
            addresses: 4096,
            numwant: 50,
            connects: 0,
            seed: 1,
            command: Vec::new(),
        };
        while let Some(word) = words.next() {
            if word == "--" {
                arguments.command.extend(words.by_ref());
                break;
            }
            let (key, value) = word
                .split_once('=')
                .ok_or(format!("{word}: not KEY=VALUE"))?;
            arguments
                .set(key, value)
                .map_err(|fault| format!("{word}: {fault}"))?;
        }
        if arguments.window == 0 || arguments.window > 60_000 {
            return Err("window must be 1 to 60000".into());
        }
        Ok(arguments)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| "not a number".to_owned());
        let small = || value.parse::<u32>().map_err(|_| "not a number".to_owned());
        match key {
            "port" => self.port = value.parse().map_err(|_| "not a port")?,
            "pid" => self.pid = Some(small()?),
            "core" => self.core = Some(small()? as usize),
            "requests" => self.requests = number()?,
            "seconds" => self.seconds = number()?,
            "window" => self.window = small()? as usize,
            "peers" => self.peers = small()?,
            "torrents" => self.torrents = small()?,
            "addresses" => self.addresses = small()?,
            "numwant" => self.numwant = small()?,
            "connects" => self.connects = small()?,
            "seed" => self.seed = number()?,
            "spread" => {
                self.spread = match value {
                    "zipf" => Spread::Zipf,
                    "uniform" => Spread::Uniform,
                    "even" => Spread::Even,
                    _ => return Err("must be zipf, uniform or even".into()),
                }
            }
            _ => return Err("unknown key".into()),
        }
        Ok(())
    }

    fn run(&self) -> Result<String, String> {
        let population = Population::new(
            self.seed,
            self.torrents,
            self.peers,
            self.addresses.min(self.peers),
            self.spread,
        )?;
        if self.case == "hashes" {
            return Ok(hashes(&population));
        }
        let kind = match self.case.as_str() {
            "http-close" | "http-keepalive" | "udp" | "start" => RequestKind::Announce,
            "http-scrape" | "udp-scrape" if self.torrents < 5 => {
                return Err("torrents must be at least 5 for a scrape".into());
            }
            "http-scrape" | "udp-scrape" => RequestKind::Scrape,
            "http-fill" | "udp-fill" => RequestKind::Fill,
            _ => return Err("unknown case; run load without arguments for a list".into()),
        };
        let plan = Plan {
            to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port),
            kind,
            requests: if kind == RequestKind::Fill {
                u64::MAX
            } else {
                self.requests
            },
            max_duration: Duration::from_secs(self.seconds),
            window: self.window,
            numwant: self.numwant,
            close: matches!(self.case.as_str(), "http-close" | "http-scrape" | "start"),
            connects: self.connects,
            // Each process picks other peers of the same population.
            seed: self.seed.wrapping_add(u64::from(std::process::id())),
        };
        if self.case == "start" {
            return self.start(&plan, &population).map_err(|e| e.to_string());
        }
        if let Some(core) = self.core {
            pin_to_core(core).map_err(|error| format!("core {core}: {error}"))?;
        }
        self.measure(&plan, &population).map_err(|e| e.to_string())
    }

    fn measure(&self, plan: &Plan, population: &Population) -> io::Result<String> {
        let connected = if self.case.starts_with("udp") {
            Some(udp::connect(plan, population)?)
        } else {
            None
        };
        let own = std::process::id();
        let before = (Instant::now(), self.server_cpu()?, process_cpu_time(own)?);
        let tally = match connected {
            Some(connected) => connected.run()?,
            None => http::run(plan, population)?,
        };
        let wall = before.0.elapsed();
        let server = self.server_cpu()?.saturating_sub(before.1);
        Ok(self.line(&tally, wall, server, process_cpu_time(own)? - before.2))
    }

    fn server_cpu(&self) -> io::Result<Duration> {
        self.pid.map_or(Ok(Duration::ZERO), process_cpu_time)
    }

    fn line(&self, tally: &Tally, wall: Duration, server: Duration, own: Duration) -> String {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let each = |sum: f64| sum / tally.answered.max(1) as f64;
        let share = |time: Duration| time.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        let quantile = |share| micros(tally.latency.quantile(share));
        let mut line = format!(
            "{{\"ask\": \"{}\", \"answered\": {}, \"failed\": {}, \"wall_s\": {:.4}, \"per_s\": {:.0}, ",
            self.case,
            tally.answered,
            tally.failed(),
            wall.as_secs_f64(),
            tally.answered as f64 / wall.as_secs_f64().max(1e-9),
        );
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "\"server_us\": {:.3}, \"server_busy\": {:.3}, \"load_us\": {:.3}, \"load_busy\": {:.3}, \
             \"entries\": {:.2}, \"bytes\": {:.0}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \
             \"faults\": {{",
            each(micros(server)),
            share(server),
            each(micros(own.saturating_sub(tally.idle))),
            share(own.saturating_sub(tally.idle)),
            each(tally.entries as f64),
            each(tally.bytes as f64),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
        );
        for (index, (fault, count)) in tally.faults.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(line, "{comma}\"{fault}\": {count}");
        }
        line + "}}"
    }

    /// Measures the time from the start of the command to its first response.
    fn start(&self, plan: &Plan, population: &Population) -> io::Result<String> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(io::Error::other("COMMAND is missing"));
        };
        let plan = Plan {
            requests: 1,
            window: 1,
            ..plan.clone()
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if self.core.is_some() {
            pin_to_core(0)?;
        }
        let started = Instant::now();
        let mut server = KillOnDrop(command.spawn()?);
        if let Some(core) = self.core {
            pin_to_core(core)?;
        }
        while started.elapsed() < plan.max_duration {
            if http::run(&plan, population).is_ok_and(|tally| tally.answered == 1) {
                let milliseconds = started.elapsed().as_secs_f64() * 1e3;
                return Ok(format!("{{\"ask\": \"start\", \"ms\": {milliseconds:.3}}}"));
            }
            if let Some(status) = server.0.try_wait()? {
                return Err(io::Error::other(format!("{program}: {status}")));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Err(io::Error::other("no response in time"))
    }
}

/// A process that is killed when dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the info-hashes of all torrents in hex, each on its own line.
fn hashes(population: &Population) -> String {
    let lines: Vec<String> = (0..population.torrents())
        .map(|torrent| {
            let hash = population.info_hash(torrent);
            hash.iter().map(|byte| format!("{byte:02x}")).collect()
        })
        .collect();
    lines.join("\n")
}
