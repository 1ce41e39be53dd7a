//! A sliding window over a file's bytes that knows which line it is on.

use std::io::Read;

use memchr::memchr_iter;
use trib_core::{Code, Error, Result};

use super::input::unwrap_io;

const SIZE: usize = 1 << 20;

pub struct Window<'a> {
    input: Box<dyn Read + Send>,
    pub file: &'a str,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Nothing follows what is in the window.
    pub at_end: bool,
    /// Number of the line that the window begins on.
    pub line: u64,
    /// Offset of the window's beginning in the input.
    pub offset: u64,
}

impl<'a> Window<'a> {
    /// `input` begins on `line` of `file`.
    pub fn new(input: Box<dyn Read + Send>, file: &'a str, line: u64) -> Self {
        Self { input, file, buffer: vec![0; SIZE], start: 0, end: 0, at_end: false, line, offset: 0 }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Bytes that were consumed by the last call of [`Window::consume`], before anything else was called.
    pub fn consumed(&self, bytes: usize) -> &[u8] {
        &self.buffer[self.start - bytes..self.start]
    }

    pub fn is_low(&self) -> bool {
        self.end - self.start < SIZE / 4 && !self.at_end
    }

    /// Reads on until the window is full; a window that is full already grows.
    pub fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        while self.end < self.buffer.len() && !self.at_end {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unwrap_io(e).file(self.file, Some(self.line as usize), None)),
            }
        }
        Ok(())
    }

    /// Moves on.
    pub fn consume(&mut self, bytes: usize) {
        self.line += memchr_iter(b'\n', &self.buffer[self.start..self.start + bytes]).count() as u64;
        self.offset += bytes as u64;
        self.start += bytes;
    }

    /// Moves back over what was just consumed, to the place that the window had then.
    pub fn unread(&mut self, offset: u64, line: u64) {
        self.start -= (self.offset - offset) as usize;
        (self.offset, self.line) = (offset, line);
    }

    /// Leaves out a byte order mark. Text in UTF-16 is refused.
    pub fn begin(&mut self) -> Result<()> {
        self.fill()?;
        if matches!(self.bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
            return Err(Error::new(Code::Unsupported, "the file is UTF-16")
                .file(self.file, None, None)
                .hint("convert it: `iconv -f utf-16 -t utf-8 FILE`"));
        }
        if self.bytes().starts_with(&[0xef, 0xbb, 0xbf]) {
            self.consume(3);
        }
        Ok(())
    }

    /// What a record that does not end within `limit` bytes is.
    pub fn too_long(&self, limit: usize) -> Error {
        Error::new(Code::DataInvalid, "a record is longer than allowed").detail(format!("no end within {limit} bytes")).file(
            self.file,
            Some(self.line as usize),
            None,
        )
    }
}
