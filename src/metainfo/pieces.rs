//! The mapping of pieces to bytes of files, and the choice of a piece length.

/// Maximum number of pieces, except for the largest torrents: enough pieces for clients to share early, and few enough
/// for a small `.torrent` file.
const MAX_PIECES: u64 = 2048;

const MIN_LENGTH: u64 = 16 * 1024;

/// The maximum that some clients accept.
const MAX_LENGTH: u64 = 16 * 1024 * 1024;

/// Returns a piece length in bytes for `size` bytes of data: a power of two from 16 KiB to 16 MiB that results in about
/// 1,000 to 2,000 pieces.
pub fn choose_length(size: u64) -> u64 {
    size.div_ceil(MAX_PIECES)
        .clamp(MIN_LENGTH, MAX_LENGTH)
        .next_power_of_two()
}

/// A range of bytes in a file or in padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSpan {
    /// The index of the file. `None` for padding, which is bytes of zero.
    pub file: Option<usize>,
    /// The offset in bytes from the start of the file.
    pub offset: u64,
    /// The length in bytes, at least 1.
    pub length: u64,
}

/// The files of a torrent, concatenated and divided into pieces.
#[derive(Debug)]
pub struct Layout {
    piece_length: u64,
    /// The position and the span of each file and padding that is not empty, in order.
    spans: Vec<(u64, FileSpan)>,
    size: u64,
}

impl Layout {
    /// Places files one after the other. Each has a length and a flag for padding. `piece_length` is at least 1.
    pub fn packed(files: impl IntoIterator<Item = (u64, bool)>, piece_length: u64) -> Self {
        let mut layout = Self {
            piece_length,
            spans: Vec::new(),
            size: 0,
        };
        for (number, (length, pad)) in files.into_iter().enumerate() {
            layout.push((!pad).then_some(number), length);
        }
        layout
    }

    /// Places files of these lengths at piece boundaries, with padding between them (BEP 47).
    pub fn aligned(files: impl IntoIterator<Item = u64>, piece_length: u64) -> Self {
        let mut layout = Self::packed([], piece_length);
        for (number, length) in files.into_iter().enumerate() {
            if length > 0 {
                let excess = layout.size % piece_length;
                let padding = if excess == 0 {
                    0
                } else {
                    piece_length - excess
                };
                layout.push(None, padding);
            }
            layout.push(Some(number), length);
        }
        layout
    }

    fn push(&mut self, file: Option<usize>, length: u64) {
        if length > 0 {
            let offset = 0;
            self.spans.push((
                self.size,
                FileSpan {
                    file,
                    offset,
                    length,
                },
            ));
            self.size = self.size.saturating_add(length);
        }
    }

    /// Returns the bytes per piece. The last piece may be shorter.
    pub fn piece_length(&self) -> u64 {
        self.piece_length
    }

    /// Returns the number of pieces.
    pub fn pieces(&self) -> u64 {
        self.size.div_ceil(self.piece_length)
    }

    /// Returns all files and padding that are not empty.
    pub fn spans(&self) -> impl Iterator<Item = FileSpan> {
        self.spans.iter().map(|(_, span)| *span)
    }

    /// Returns the contents of a piece in order, or nothing if there is no such piece.
    pub fn piece(&self, number: u64) -> impl Iterator<Item = FileSpan> {
        let begin = number.saturating_mul(self.piece_length).min(self.size);
        let end = begin.saturating_add(self.piece_length).min(self.size);
        let first = self
            .spans
            .partition_point(|(start, span)| start.saturating_add(span.length) <= begin);
        self.spans[first..]
            .iter()
            .take_while(move |(start, _)| *start < end)
            .map(move |(start, span)| {
                let from = begin.max(*start);
                FileSpan {
                    offset: from - start,
                    length: end.min(start.saturating_add(span.length)) - from,
                    ..*span
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(file: Option<usize>, offset: u64, length: u64) -> FileSpan {
        FileSpan {
            file,
            offset,
            length,
        }
    }

    #[test]
    fn chosen_lengths_are_powers_of_two_within_bounds() {
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
        let pieces: Vec<Vec<FileSpan>> = (0..4).map(|n| layout.piece(n).collect()).collect();
        assert_eq!(layout.pieces(), 3);
        assert_eq!(
            pieces,
            [
                vec![span(Some(0), 0, 4)],
                vec![span(Some(0), 4, 1), span(None, 0, 3)],
                vec![span(Some(3), 0, 4)],
                vec![],
            ]
        );
    }

    #[test]
    fn aligned_files_share_no_piece() {
        let layout = Layout::aligned([5, 0, 4, 0, 1, 0], 4);
        let spans: Vec<FileSpan> = layout.spans().collect();
        assert_eq!(
            spans,
            [
                span(Some(0), 0, 5),
                span(None, 0, 3),
                span(Some(2), 0, 4),
                span(Some(4), 0, 1)
            ]
        );
        assert_eq!(layout.pieces(), 4);
        assert_eq!(layout.piece(3).collect::<Vec<_>>(), [span(Some(4), 0, 1)]);
        assert_eq!(layout.piece(u64::MAX).count(), 0);
    }
}
