//! The output of `top`: the state and the busiest releases, updated until the user quits. It uses escape sequences that
//! every terminal has, and no library.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tbtt::status::report::StatusReport;

use super::arguments::Sort;
use super::client::Error;
use super::text::Style;
use super::{Exit, fetch_report, releases, status};

/// Switches to the alternate screen and hides the cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Moves the cursor to the bottom right corner, and requests its position: the size of the terminal.
const REQUEST_SIZE: &str = "\x1b[999;999H\x1b[6n";

/// Rows and columns, until the terminal has reported its size.
const DEFAULT_SIZE: (usize, usize) = (24, 80);

const KEY_HELP: &str = "q quits; sort by: n name, s seeders, l leechers, d downloads, z size";

/// Runs until the user quits.
pub(super) fn top(socket: &Path, interval_secs: u16, sort: Sort) -> Result<Exit, Error> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        eprintln!(
            "tbttctl: top requires a terminal; use tbttctl status or tbttctl torrents instead"
        );
        return Ok(Exit::Usage);
    }
    // Before the screen is switched, so that an error stays visible.
    let first = fetch_report(socket)?;
    let terminal_error = |error| Error::Failed(format!("cannot use the terminal: {error}"));
    let screen = Screen::enter().map_err(terminal_error)?;
    let result = update(
        socket,
        first,
        Duration::from_secs(interval_secs.into()),
        sort,
    );
    drop(screen);
    result.map(|()| Exit::Success).map_err(terminal_error)
}

fn update(
    socket: &Path,
    first: StatusReport,
    interval: Duration,
    mut sort: Sort,
) -> io::Result<()> {
    let (mut report, mut error) = (first, None);
    let mut size = DEFAULT_SIZE;
    loop {
        write(&page(&report, error.as_ref(), sort, size))?;
        let next = Instant::now() + interval;
        while let Some(keys) = keys_until(next)? {
            for key in keys {
                match key {
                    Key::Quit => return Ok(()),
                    Key::Sort(by) => sort = by,
                    Key::Size(now) => size = now,
                }
            }
            write(&page(&report, error.as_ref(), sort, size).replace(REQUEST_SIZE, ""))?;
        }
        match fetch_report(socket) {
            Ok(current) => (report, error) = (current, None),
            // Continue: the daemon may be restarting.
            Err(failed) => error = Some(failed),
        }
    }
}

/// Formats the whole screen.
fn page(report: &StatusReport, error: Option<&Error>, sort: Sort, size: (usize, usize)) -> String {
    let (rows, columns) = size;
    let style = Style::of_stdout();
    let mut lines: Vec<String> = status::summary(report, style)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.push(match error {
        Some(error) => style.red(&error.to_string().replace('\n', "; ")),
        None => String::new(),
    });
    lines.push(style.bold(releases::HEADINGS));
    let mut sorted: Vec<_> = report.releases.iter().collect();
    releases::sort(&mut sorted, sort);
    let room = rows.saturating_sub(lines.len() + 1);
    let shown = sorted.into_iter().take(room);
    lines.extend(shown.map(|release| releases::row(release, report.now, style)));
    lines.truncate(rows.saturating_sub(1));
    let mut page = String::from("\x1b[H");
    for line in &lines {
        let _ = write!(page, "{}\x1b[K\r\n", cut(line, columns));
    }
    let _ = write!(page, "\x1b[J\x1b[{rows};1H{}", cut(KEY_HELP, columns));
    page + REQUEST_SIZE
}

/// Cuts a line to the width of the screen. Escape sequences for colors have no width.
fn cut(line: &str, columns: usize) -> String {
    let (mut cut, mut width, mut in_escape) = (String::new(), 0, false);
    for character in line.chars() {
        match character {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ if width == columns => continue,
            _ => {
                width += 1;
            }
        }
        cut.push(character);
    }
    cut
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Quit,
    Sort(Sort),
    /// The size that the terminal reports: rows and columns.
    Size((usize, usize)),
}

/// Waits for keys. Returns `None` at the deadline.
fn keys_until(deadline: Instant) -> io::Result<Option<Vec<Key>>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout =
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let stdin = io::stdin();
    match poll(
        &mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)],
        timeout,
    ) {
        Ok(0) => return Ok(None),
        // Interrupted by a signal, such as SIGCONT after Ctrl-Z.
        Err(Errno::EINTR) => return Ok(Some(Vec::new())),
        ready => ready?,
    };
    // As large as the buffer of standard input, so that no input stays in that buffer, which poll does not see.
    let mut input = [0; 8192];
    let length = stdin.lock().read(&mut input)?;
    // The terminal was closed.
    if length == 0 {
        return Ok(Some(vec![Key::Quit]));
    }
    Ok(Some(keys(&input[..length])))
}

fn keys(input: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = input;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        keys.extend(match byte {
            b'q' | b'Q' | 3 => Some(Key::Quit),
            b'n' => Some(Key::Sort(Sort::Name)),
            b's' => Some(Key::Sort(Sort::Seeders)),
            b'l' => Some(Key::Sort(Sort::Leechers)),
            b'd' => Some(Key::Sort(Sort::Downloads)),
            b'z' => Some(Key::Sort(Sort::Size)),
            0x1b => {
                let end = after.iter().position(|byte| byte.is_ascii_alphabetic());
                let (sequence, after) = after.split_at(end.map_or(after.len(), |end| end + 1));
                rest = after;
                size(sequence).map(Key::Size)
            }
            _ => None,
        });
    }
    keys
}

/// Parses `[rows;columnsR`.
fn size(sequence: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(sequence).ok()?;
    let (rows, columns) = text.strip_prefix('[')?.strip_suffix('R')?.split_once(';')?;
    let size = (rows.parse().ok()?, columns.parse().ok()?);
    (size.0 > 0 && size.1 > 0).then_some(size)
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The terminal in a mode that returns each key immediately and echoes none. Dropping it restores the terminal.
struct Screen(Termios);

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Without ISIG, Ctrl-C arrives as a key, and the terminal is restored.
        raw.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        let screen = Self(before);
        write(ENTER)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal was closed, there is nothing to restore.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_keys_and_size_reports() {
        assert_eq!(keys(b"q"), [Key::Quit]);
        assert_eq!(keys(b"\x03"), [Key::Quit]);
        let expected = [Key::Size((50, 132)), Key::Sort(Sort::Seeders)];
        assert_eq!(keys(b"\x1b[50;132Rs"), expected);
        assert_eq!(keys(b"\x1b[Ax\x1b"), [], "other keys are ignored");
    }

    #[test]
    fn cuts_lines_to_the_width_of_the_screen() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!(cut("äöü", 2), "äö");
    }

    #[test]
    fn page_fits_on_the_screen() {
        let mut report = StatusReport::default();
        report.releases.resize_with(100, Default::default);
        for rows in [1, 5, 24] {
            let page = page(&report, None, Sort::Name, (rows, 80));
            assert_eq!(page.matches("\r\n").count(), rows - 1, "{rows}");
        }
    }
}
