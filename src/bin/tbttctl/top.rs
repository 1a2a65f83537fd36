//! The living view: figures and the busiest releases, as plain as a terminal has been for forty years.

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
use super::{Exit, figures, releases, status};

/// Another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Goes to the last corner there is, and asks where that is.
const ASK_SIZE: &str = "\x1b[999;999H\x1b[6n";

/// Until the terminal has said how large it is.
const SIZE: (usize, usize) = (24, 80);

const KEYS: &str = "q quits; sort by: n name, s seeders, l leechers, d downloads, z size";

/// Shows until it is told to end.
pub(super) fn top(socket: &Path, interval_secs: u16, sort: Sort) -> Result<Exit, Error> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        eprintln!("tbttctl: top needs a terminal; elsewhere use status and torrents");
        return Ok(Exit::Usage);
    }
    // Whoever cannot ask at all hears why, and sees no screen.
    let first = figures(socket)?;
    let broken = |error| Error::Failed(format!("the terminal cannot be used: {error}"));
    let screen = Screen::enter().map_err(broken)?;
    let shown = show(
        socket,
        first,
        Duration::from_secs(interval_secs.into()),
        sort,
    );
    drop(screen);
    shown.map(|()| Exit::Success).map_err(broken)
}

fn show(socket: &Path, first: StatusReport, interval: Duration, mut sort: Sort) -> io::Result<()> {
    let (mut seen, mut trouble) = (first, None);
    let mut size = SIZE;
    loop {
        write(&page(&seen, trouble.as_ref(), sort, size))?;
        let next = Instant::now() + interval;
        while let Some(keys) = keys_until(next)? {
            for key in keys {
                match key {
                    Key::End => return Ok(()),
                    Key::Sort(by) => sort = by,
                    Key::Size(now) => size = now,
                }
            }
            write(&page(&seen, trouble.as_ref(), sort, size).replace(ASK_SIZE, ""))?;
        }
        match figures(socket) {
            Ok(figures) => (seen, trouble) = (figures, None),
            // It may be restarting.
            Err(error) => trouble = Some(error),
        }
    }
}

/// All that the screen shows.
fn page(
    figures: &StatusReport,
    trouble: Option<&Error>,
    sort: Sort,
    size: (usize, usize),
) -> String {
    let (rows, columns) = size;
    let style = Style::of_stdout();
    let mut lines: Vec<String> = status::head(figures, style)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.push(match trouble {
        Some(error) => style.red(&error.to_string().replace('\n', "; ")),
        None => String::new(),
    });
    lines.push(style.bold(releases::HEADINGS));
    let mut sorted: Vec<_> = figures.releases.iter().collect();
    releases::sort(&mut sorted, sort);
    let room = rows.saturating_sub(lines.len() + 1);
    let shown = sorted.into_iter().take(room);
    lines.extend(shown.map(|release| releases::row(release, figures.now, style)));
    lines.truncate(rows.saturating_sub(1));
    let mut page = String::from("\x1b[H");
    for line in &lines {
        let _ = write!(page, "{}\x1b[K\r\n", cut(line, columns));
    }
    let _ = write!(page, "\x1b[J\x1b[{rows};1H{}", cut(KEYS, columns));
    page + ASK_SIZE
}

/// As much of a line as fits, colours not counted.
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
    End,
    Sort(Sort),
    /// The terminal's answer: rows and columns.
    Size((usize, usize)),
}

/// Keys that come before the time, `None` if none does.
fn keys_until(next: Instant) -> io::Result<Option<Vec<Key>>> {
    let left = next.saturating_duration_since(Instant::now());
    let timeout =
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let stdin = io::stdin();
    match poll(
        &mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)],
        timeout,
    ) {
        Ok(0) => return Ok(None),
        // Halted, and set going again.
        Err(Errno::EINTR) => return Ok(Some(Vec::new())),
        ready => ready?,
    };
    // As long as what stands before it holds, so that this keeps nothing back.
    let mut input = [0; 8192];
    let length = stdin.lock().read(&mut input)?;
    // The terminal is gone.
    if length == 0 {
        return Ok(Some(vec![Key::End]));
    }
    Ok(Some(keys(&input[..length])))
}

fn keys(input: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = input;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        keys.extend(match byte {
            b'q' | b'Q' | 3 => Some(Key::End),
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

/// Of `[rows;columnsR`.
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

/// The terminal, which gives each key at once and echoes none, until this is dropped.
struct Screen(Termios);

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Signals too, so that Ctrl-C is a key like others and leaves nothing behind.
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
        // If the terminal is gone, there is nothing to put right.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_answers_are_told_apart() {
        assert_eq!(keys(b"q"), [Key::End]);
        assert_eq!(keys(b"\x03"), [Key::End]);
        let expected = [Key::Size((50, 132)), Key::Sort(Sort::Seeders)];
        assert_eq!(keys(b"\x1b[50;132Rs"), expected);
        assert_eq!(keys(b"\x1b[Ax\x1b"), [], "arrows and others do nothing");
    }

    #[test]
    fn a_line_is_cut_where_the_screen_ends() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!(cut("äöü", 2), "äö");
    }

    #[test]
    fn a_page_fills_the_screen_and_no_more() {
        let mut figures = StatusReport::default();
        figures.releases.resize_with(100, Default::default);
        for rows in [1, 5, 24] {
            let page = page(&figures, None, Sort::Name, (rows, 80));
            assert_eq!(page.matches("\r\n").count(), rows - 1, "{rows}");
        }
    }
}
