//! Cutting one file where records begin.

use std::io::Read;
use std::ops::Range;

use memchr::{memchr, memchr_iter};
use trib_core::Result;

use super::dialect::Dialect;
use super::record::{Closing, closing};

const WINDOW: usize = 4 << 20;

/// A piece of a file, and the number of its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub bytes: Range<u64>,
    pub line: u64,
}

/// Cuts a file into about `pieces` of equal size. `input` begins at `start`, where a record begins, on line `line`; the file has `size` bytes.
///
/// A newline inside quotes ends no record, and only reading from the beginning tells what is inside quotes. So this reads up
/// to the last cut, jumping from quote to quote, which costs a small part of what parsing does.
pub fn pieces(mut input: Box<dyn Read + Send>, dialect: &Dialect, start: u64, line: u64, size: u64, pieces: u64) -> Result<Vec<Piece>> {
    let mut walk = Walk { window: Vec::new(), base: start, lines: line, at_end: false };
    let mut cuts = vec![(start, line)];
    let mut quoted_until = 0;
    for i in 1..pieces {
        let target = start + (size - start) / pieces * i;
        let Some(cut) = walk.record_after(&mut *input, dialect, target, &mut quoted_until)? else { break };
        if cut.0 < size && cuts.last().is_some_and(|last| cut.0 > last.0) {
            cuts.push(cut);
        }
    }
    let ends = cuts.iter().skip(1).map(|c| c.0).chain([size]);
    Ok(cuts.iter().zip(ends).map(|((from, line), to)| Piece { bytes: *from..to, line: *line }).collect())
}

struct Walk {
    window: Vec<u8>,
    /// Offset of the window in the file.
    base: u64,
    /// Number of the line that the window begins on.
    lines: u64,
    at_end: bool,
}

impl Walk {
    /// The first beginning of a record at or after `target`, with its line. `from` is where the last call has ended, in the window.
    fn record_after(&mut self, input: &mut dyn Read, dialect: &Dialect, target: u64, from: &mut usize) -> Result<Option<(u64, u64)>> {
        loop {
            // Outside of quotes from `from` to the next field that a quote opens.
            let opening = dialect.quote.and_then(|q| self.opening(q, dialect.delimiter, *from));
            let plain_end = opening.unwrap_or(self.window.len());
            let wanted = (target.saturating_sub(1).saturating_sub(self.base) as usize).max(*from);
            if wanted < plain_end
                && let Some(n) = memchr(b'\n', &self.window[wanted..plain_end])
            {
                let cut = wanted + n + 1;
                *from = cut;
                return Ok(Some((self.base + cut as u64, self.lines + count(&self.window[..cut]))));
            }
            match opening {
                Some(at) => match closing(&self.window, at, self.at_end, dialect) {
                    Closing::At { quote, .. } => {
                        *from = quote + 1;
                        continue;
                    }
                    // The reader goes on at the next line, and so does this.
                    Closing::Never(_) => {
                        if let Some(n) = memchr(b'\n', &self.window[at..]) {
                            *from = at + n;
                            continue;
                        }
                        *from = at;
                    }
                    Closing::Unknown => *from = at,
                },
                None => *from = self.window.len(),
            }
            if self.at_end {
                return Ok(None);
            }
            self.slide(input, from)?;
        }
    }

    /// The next quote that opens a field.
    fn opening(&self, quote: u8, delimiter: u8, from: usize) -> Option<usize> {
        memchr_iter(quote, &self.window[from..]).map(|n| from + n).find(|at| match at.checked_sub(1) {
            None => true,
            Some(before) => matches!(self.window[before], b'\n') || self.window[before] == delimiter,
        })
    }

    /// Drops what lies before `from`, except the byte that tells whether a field begins there, and reads on.
    fn slide(&mut self, input: &mut dyn Read, from: &mut usize) -> Result<()> {
        let keep = from.saturating_sub(1);
        self.lines += count(&self.window[..keep]);
        self.base += keep as u64;
        self.window.drain(..keep);
        *from -= keep;
        let had = self.window.len();
        let got = input.take(WINDOW as u64).read_to_end(&mut self.window)?;
        self.at_end = got == 0;
        debug_assert_eq!(self.window.len(), had + got);
        Ok(())
    }
}

fn count(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::csv::dialect::CsvConfig;
    use crate::files::csv::record::{Limits, Records, scan};
    use proptest::prelude::*;

    proptest! {
        /// The pieces, parsed one by one, give the records of the whole: with quotes anywhere, closed or not.
        #[test]
        fn pieces_hold_whole_records(text in "([a,\"\n]|\"\"|,\"a\nb\",|a\n){0,60}", n in 1u64..6) {
            let dialect = CsvConfig::default().dialect(false).unwrap();
            let parse = |bytes: &[u8]| {
                let mut records = Records::default();
                let (mut all, mut at) = (Vec::new(), 0);
                while at < bytes.len() {
                    let used = scan(&bytes[at..], true, &dialect, Limits { width: None, records: 1 }, &mut records);
                    for i in 0..records.len() {
                        let (from, to) = records.span(i);
                        all.push(bytes[at + from..at + to].to_vec());
                    }
                    all.extend(records.broken.iter().map(|b| bytes[at + b.start..at + b.end].to_vec()));
                    at += used;
                }
                all
            };
            let bytes = text.as_bytes();
            let pieces = pieces(Box::new(std::io::Cursor::new(bytes.to_vec())), &dialect, 0, 1, bytes.len() as u64, n).unwrap();
            let mut got = Vec::new();
            for piece in &pieces {
                let (from, to) = (piece.bytes.start as usize, piece.bytes.end as usize);
                prop_assert_eq!(piece.line, 1 + count(&bytes[..from]));
                got.extend(parse(&bytes[from..to]));
            }
            prop_assert_eq!(got, parse(bytes));
        }
    }
}
