//! Where rows and their fields stand in the stream.
//!
//! The stream is a header of 19 bytes and an extension, then for each row a 16-bit number of columns and for each column a
//! 32-bit length (-1 for NULL) and its bytes; a row of -1 columns ends it. Integers are big-endian.
//! Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use trib_core::Result;

use super::{BLOCK, malformed};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Rows that came, and the beginning of one whose end has not come.
pub struct Rows {
    columns: usize,
    bytes: Vec<u8>,
    /// Offsets in `bytes` of the fields' lengths, row by row.
    fields: Vec<u32>,
    len: usize,
    /// Where the whole rows end.
    end: usize,
    started: bool,
    ended: bool,
}

impl Rows {
    pub fn new(columns: usize) -> Self {
        Self { columns, bytes: Vec::with_capacity(BLOCK + BLOCK / 8), fields: Vec::new(), len: 0, end: 0, started: false, ended: false }
    }

    /// Rows that are whole.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the next piece of the stream.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.bytes.extend_from_slice(piece);
        if u32::try_from(self.bytes.len()).is_err() {
            return Err(malformed());
        }
        if !self.started && !self.start()? {
            return Ok(());
        }
        while self.next_row()? {}
        Ok(())
    }

    /// The fields of one column in all rows that are whole.
    pub fn column(&self, column: usize) -> Fields<'_> {
        Fields { bytes: &self.bytes, at: self.fields.get(column..).unwrap_or_default(), step: self.columns }
    }

    /// The bytes of the rows that are whole, with the places where each begins and the last ends. They are forgotten here.
    pub fn take_whole(&mut self) -> (Vec<u8>, Vec<i32>) {
        // The number of columns stands before the first field.
        let starts = self.fields.iter().step_by(self.columns).map(|at| at - 2);
        let places = starts.chain([self.end as u32]).map(u32::cast_signed).collect();
        let mut rest = Vec::with_capacity(self.bytes.len() + self.bytes.len() / 8);
        rest.extend_from_slice(&self.bytes[self.end..]);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        self.fields.clear();
        (self.len, self.end) = (0, 0);
        (bytes, places)
    }

    /// Forgets the rows that are whole.
    pub fn clear(&mut self) {
        self.bytes.drain(..self.end);
        // A row may have been large.
        self.bytes.shrink_to(2 * BLOCK);
        self.fields.clear();
        (self.len, self.end) = (0, 0);
    }

    /// Passes over the header. False when it is not whole.
    fn start(&mut self) -> Result<bool> {
        let Some(header) = self.bytes.first_chunk::<19>() else { return Ok(false) };
        if header[..11] != *SIGNATURE {
            return Err(malformed());
        }
        let end = 19 + u32::from_be_bytes([header[15], header[16], header[17], header[18]]) as usize;
        if self.bytes.len() < end {
            return Ok(false);
        }
        self.end = end;
        self.started = true;
        Ok(true)
    }

    /// Notes where the fields of the next row stand. False when it is not whole.
    fn next_row(&mut self) -> Result<bool> {
        let Some(count) = chunk(&self.bytes, self.end) else { return Ok(false) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.ended = true;
            return Ok(false);
        }
        if usize::try_from(count) != Ok(self.columns) {
            return Err(malformed());
        }
        let known = self.fields.len();
        let mut at = self.end + 2;
        for _ in 0..count {
            let Some(length) = chunk(&self.bytes, at) else { break };
            self.fields.push(at as u32);
            at += 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        }
        if self.fields.len() < known + self.columns || at > self.bytes.len() {
            self.fields.truncate(known);
            return Ok(false);
        }
        self.end = at;
        self.len += 1;
        Ok(true)
    }
}

/// Fields of one type: a column's, or those of its arrays.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: &'a [u32],
    step: usize,
}

impl<'a> Fields<'a> {
    pub fn len(self) -> usize {
        self.at.len().div_ceil(self.step)
    }

    /// The bytes of each; `None` for NULL.
    pub fn values(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.placed().map(|placed| placed.map(|(_, value)| value))
    }

    /// The bytes of each, and where they stand.
    pub fn placed(self) -> impl Iterator<Item = Option<(usize, &'a [u8])>> {
        self.at.iter().step_by(self.step).map(move |at| {
            let at = *at as usize;
            let length = usize::try_from(i32::from_be_bytes(*chunk(self.bytes, at)?)).ok()?;
            Some((at + 4, self.bytes.get(at + 4..at + 4 + length)?))
        })
    }

    /// Fields that stand within these.
    pub fn within<'b>(self, at: &'b [u32]) -> Fields<'b>
    where
        'a: 'b,
    {
        Fields { bytes: self.bytes, at, step: 1 }
    }
}

#[inline]
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}
