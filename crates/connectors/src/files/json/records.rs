//! Where one JSON record ends and the next begins.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};
use trib_core::{Code, Error, Result};

use super::super::window::Window;

/// A record longer than this ends the read.
const LONGEST: usize = 64 << 20;

/// How records follow each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// One per line.
    Lines,
    /// Inside one array.
    Array,
    /// With nothing but white space between.
    Concatenated,
}

/// A file's bytes, handed out as whole records.
pub struct Records<'a> {
    window: Window<'a>,
    framing: Framing,
    ended: bool,
}

/// Some records: their places in `bytes`, of which the first stands on `line`.
pub struct Found<'a> {
    pub bytes: &'a [u8],
    pub line: u64,
}

impl<'a> Records<'a> {
    pub fn new(mut window: Window<'a>, lines: bool) -> Result<Self> {
        window.begin()?;
        let mut framing = if lines { Framing::Lines } else { Framing::Concatenated };
        if !lines {
            let first = window.bytes().iter().position(|b| !b.is_ascii_whitespace());
            if let Some(first) = first.filter(|n| window.bytes()[*n] == b'[') {
                window.consume(first + 1);
                framing = Framing::Array;
            }
        }
        Ok(Self { window, framing, ended: false })
    }

    pub fn offset(&self) -> u64 {
        self.window.offset
    }

    /// The next records, at most about `bytes` of them.
    pub fn next(&mut self, bytes: usize, ranges: &mut Vec<Range<usize>>) -> Result<Option<Found<'_>>> {
        if self.window.is_low() {
            self.window.fill()?;
        }
        while !self.ended {
            ranges.clear();
            let used = match self.framing {
                Framing::Lines => lines(self.window.bytes(), self.window.at_end, bytes, ranges),
                framing => {
                    let (used, ended) = self.values(framing, bytes, ranges)?;
                    self.ended = ended;
                    used
                }
            };
            if used > 0 {
                let line = self.window.line;
                self.window.consume(used);
                return Ok(Some(Found { bytes: self.window.consumed(used), line }));
            }
            if self.window.at_end || self.ended {
                break;
            }
            if self.window.bytes().len() > LONGEST {
                return Err(self.window.too_long(LONGEST));
            }
            self.window.fill()?;
        }
        Ok(None)
    }

    /// Whole values at the window's beginning, and whether the file's last one is among them.
    fn values(&self, framing: Framing, bytes: usize, ranges: &mut Vec<Range<usize>>) -> Result<(usize, bool)> {
        let text = self.window.bytes();
        let at_end = self.window.at_end;
        let fault = |at: usize, reason: &'static str| {
            let line = self.window.line + memchr_iter(b'\n', &text[..at]).count() as u64;
            Err(Error::new(Code::DataInvalid, reason).file(self.window.file, Some(line as usize), None))
        };
        let mut used = 0;
        loop {
            let comma = framing == Framing::Array;
            let Some(start) = text[used..].iter().position(|b| !(b.is_ascii_whitespace() || comma && *b == b',')).map(|n| used + n) else {
                if at_end && framing == Framing::Array {
                    return fault(text.len(), "the file ends in the middle of its JSON array");
                }
                return Ok((text.len(), at_end));
            };
            if framing == Framing::Array && text[start] == b']' {
                return Ok((start + 1, true));
            }
            match value_end(text, start, at_end) {
                Some(end) => {
                    ranges.push(start..end);
                    used = end;
                }
                None if at_end => return fault(start, "the file ends in the middle of a JSON value"),
                None => return Ok((used, false)),
            }
            if used >= bytes {
                return Ok((used, false));
            }
        }
    }
}

fn lines(text: &[u8], at_end: bool, bytes: usize, ranges: &mut Vec<Range<usize>>) -> usize {
    let mut used = 0;
    while used < bytes {
        let (end, next) = match memchr(b'\n', &text[used..]) {
            Some(n) => (used + n, used + n + 1),
            None if at_end && used < text.len() => (text.len(), text.len()),
            None => break,
        };
        if text[used..end].iter().any(|b| !b.is_ascii_whitespace()) {
            ranges.push(used..end);
        }
        used = next;
    }
    used
}

/// The end of the value that begins at `start`; whether it is a right one is seen when it is parsed.
fn value_end(text: &[u8], start: usize, at_end: bool) -> Option<usize> {
    if !matches!(text[start], b'{' | b'[' | b'"') {
        let length = text[start..].iter().position(|b| b.is_ascii_whitespace() || matches!(b, b',' | b']' | b'{' | b'['));
        return match length {
            // Never nothing, or reading would not move on.
            Some(n) => Some(start + n.max(1)),
            None => at_end.then_some(text.len()),
        };
    }
    let (mut at, mut depth) = (start, 0usize);
    while let Some(b) = text.get(at) {
        match b {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                at += 1;
                loop {
                    at += memchr2(b'"', b'\\', text.get(at..)?)?;
                    if text[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}
