//! Which bytes of which files a torrent's pieces cover, and how long a piece should be.

/// Pieces of a torrent that is not small: enough for clients to share it early, few enough for a small `.torrent`.
const PIECES: u64 = 2048;

const LEAST: u64 = 16 * 1024;

/// What some clients take at most.
const MOST: u64 = 16 * 1024 * 1024;

/// A piece length in bytes for so much data: a power of two from 16 KiB to 16 MiB that comes to some 1,000 to 2,000 pieces.
pub fn choose_length(size: u64) -> u64 {
    size.div_ceil(PIECES).clamp(LEAST, MOST).next_power_of_two()
}

/// A run of bytes that a piece begins, continues or ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which file, counted as they were given; none is padding, bytes of zero.
    pub file: Option<usize>,
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// The files of a torrent, one behind the other.
#[derive(Debug)]
pub struct Layout {
    piece_length: u64,
    /// Where each run that is not empty starts, with its bytes; in their order.
    runs: Vec<(u64, Part)>,
    size: u64,
}

impl Layout {
    /// The files as they are listed, each a length and whether it is padding. `piece_length` is at least 1.
    pub fn packed(files: impl IntoIterator<Item = (u64, bool)>, piece_length: u64) -> Self {
        let mut layout = Self {
            piece_length,
            runs: Vec::new(),
            size: 0,
        };
        for (number, (length, pad)) in files.into_iter().enumerate() {
            layout.push((!pad).then_some(number), length);
        }
        layout
    }

    /// Files of these lengths, each from the start of a piece on, padding between them (BEP 47).
    pub fn aligned(files: impl IntoIterator<Item = u64>, piece_length: u64) -> Self {
        let mut layout = Self::packed([], piece_length);
        for (number, length) in files.into_iter().enumerate() {
            if length > 0 {
                let over = layout.size % piece_length;
                layout.push(None, if over == 0 { 0 } else { piece_length - over });
            }
            layout.push(Some(number), length);
        }
        layout
    }

    fn push(&mut self, file: Option<usize>, length: u64) {
        if length > 0 {
            let offset = 0;
            self.runs.push((
                self.size,
                Part {
                    file,
                    offset,
                    length,
                },
            ));
            self.size = self.size.saturating_add(length);
        }
    }

    /// Bytes of one piece, but for the last.
    pub fn piece_length(&self) -> u64 {
        self.piece_length
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> u64 {
        self.size.div_ceil(self.piece_length)
    }

    /// What is not empty, padding with it.
    pub fn runs(&self) -> impl Iterator<Item = Part> {
        self.runs.iter().map(|(_, part)| *part)
    }

    /// What the piece consists of, in order; nothing, if there is no such piece.
    pub fn piece(&self, number: u64) -> impl Iterator<Item = Part> {
        let begin = number.saturating_mul(self.piece_length).min(self.size);
        let end = begin.saturating_add(self.piece_length).min(self.size);
        let first = self
            .runs
            .partition_point(|(start, part)| start.saturating_add(part.length) <= begin);
        self.runs[first..]
            .iter()
            .take_while(move |(start, _)| *start < end)
            .map(move |(start, part)| {
                let from = begin.max(*start);
                Part {
                    offset: from - start,
                    length: end.min(start.saturating_add(part.length)) - from,
                    ..*part
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(file: Option<usize>, offset: u64, length: u64) -> Part {
        Part {
            file,
            offset,
            length,
        }
    }

    #[test]
    fn lengths_are_powers_of_two_within_bounds() {
        for (size, length) in [
            (1, 16 << 10),
            (32 << 20, 16 << 10),
            ((32 << 20) + 1, 32 << 10),
            (700 << 20, 512 << 10),
            (4 << 30, 2 << 20),
            (u64::MAX, 16 << 20),
        ] {
            assert_eq!(choose_length(size), length, "{size}");
        }
    }

    #[test]
    fn packed_files_share_pieces() {
        let layout = Layout::packed([(5, false), (0, false), (3, true), (4, false)], 4);
        let pieces: Vec<Vec<Part>> = (0..4).map(|n| layout.piece(n).collect()).collect();
        assert_eq!(layout.pieces(), 3);
        assert_eq!(
            pieces,
            [
                vec![part(Some(0), 0, 4)],
                vec![part(Some(0), 4, 1), part(None, 0, 3)],
                vec![part(Some(3), 0, 4)],
                vec![],
            ]
        );
    }

    #[test]
    fn aligned_files_have_pieces_of_their_own() {
        let layout = Layout::aligned([5, 0, 4, 0, 1, 0], 4);
        let runs: Vec<Part> = layout.runs().collect();
        assert_eq!(
            runs,
            [
                part(Some(0), 0, 5),
                part(None, 0, 3),
                part(Some(2), 0, 4),
                part(Some(4), 0, 1)
            ]
        );
        assert_eq!(layout.pieces(), 4);
        assert_eq!(layout.piece(3).collect::<Vec<_>>(), [part(Some(4), 0, 1)]);
        assert_eq!(layout.piece(u64::MAX).count(), 0);
    }
}
