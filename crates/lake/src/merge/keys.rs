//! The staged keys of one bucket, in memory.

use std::hash::{BuildHasher, RandomState};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;
use trib_core::{Error, Result};

/// One of the parts that keys are cut into by hash.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub at: u64,
    pub of: u64,
    /// One for all buckets of a merge, so that they agree.
    hasher: RandomState,
}

impl Bucket {
    pub fn all() -> Self {
        Self { at: 0, of: 1, hasher: RandomState::new() }
    }

    /// The same keys in twice as many buckets.
    pub fn halved(&self) -> Self {
        Self { at: 0, of: self.of * 2, hasher: self.hasher.clone() }
    }

    pub fn next(&self) -> Option<Self> {
        (self.at + 1 < self.of).then(|| Self { at: self.at + 1, ..self.clone() })
    }

    fn holds(&self, hash: u64) -> bool {
        (hash >> 32) % self.of == self.at
    }
}

/// The staged row that wins for a key.
#[derive(Clone, Debug)]
pub struct Entry {
    start: u32,
    len: u32,
    pub seq: i64,
    /// Which staged file, and which row of it.
    pub file: u32,
    pub row: u32,
    /// The key is to be deleted.
    pub delete: bool,
    pub met: Met,
}

/// Whether the table has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    No,
    Yes,
    /// It has it, with the very values that were staged.
    Same,
}

/// Index of keys. Keys are compared byte by byte in Arrow's row format, so equality is exact, and their order is the columns' order.
pub struct KeyIndex {
    bucket: Bucket,
    converter: RowConverter,
    first: RowConverter,
    /// Bounds in the log say nothing of NULLs, and of NaN.
    unbounded: bool,
    bytes: Vec<u8>,
    pub entries: Vec<Entry>,
    /// What the entry's row holds besides its key; for history.
    pub prints: Vec<u128>,
    table: HashTable<u32>,
    limit: usize,
    order: Vec<u32>,
    /// Of the rows of one key the first stays, not the last.
    first_wins: bool,
}

/// The index would grow beyond its limit.
pub struct Full;

impl KeyIndex {
    pub fn new(fields: &[Field], bucket: Bucket, limit: usize) -> Result<Self> {
        let sorts: Vec<SortField> = fields.iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let first = sorts.first().cloned().ok_or_else(|| Error::internal("a merge has no key"))?;
        Ok(Self {
            bucket,
            converter: RowConverter::new(sorts)?,
            first: RowConverter::new(vec![first])?,
            unbounded: fields.first().is_some_and(|f| matches!(f.data_type(), DataType::Float32 | DataType::Float64)),
            bytes: Vec::new(),
            entries: Vec::new(),
            prints: Vec::new(),
            table: HashTable::new(),
            // Offsets have 32 bits.
            limit: limit.min(u32::MAX as usize / 2),
            order: Vec::new(),
            first_wins: false,
        })
    }

    /// Of the rows of one key the one with the least sequence stays, as `insert` wants it.
    #[must_use]
    pub fn first_wins(mut self, first_wins: bool) -> Self {
        self.first_wins = first_wins;
        self
    }

    pub fn convert(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The key's hash when it belongs to this bucket.
    pub fn hash(&self, key: &[u8]) -> Option<u64> {
        let hash = self.bucket.hasher.hash_one(key);
        self.bucket.holds(hash).then_some(hash)
    }

    /// Notes NULLs among the keys.
    pub fn saw(&mut self, columns: &[ArrayRef]) {
        self.unbounded |= columns.iter().any(|c| c.null_count() > 0);
    }

    /// Takes a staged row in. Of the rows of one key the one with the greatest sequence stays, or the least where the first wins.
    pub fn offer(&mut self, hash: u64, key: &[u8], mut entry: Entry, print: Option<u128>) -> Result<(), Full> {
        let Self { bytes, entries, table, prints, .. } = self;
        let range = |e: &Entry| e.start as usize..(e.start + e.len) as usize;
        if let Some(&at) = table.find(hash, |&at| bytes[range(&entries[at as usize])] == *key) {
            let at = at as usize;
            let stays = if self.first_wins { entries[at].seq <= entry.seq } else { entries[at].seq > entry.seq };
            if !stays {
                (entry.start, entry.len) = (entries[at].start, entries[at].len);
                entries[at] = entry;
                if let Some(print) = print {
                    prints[at] = print;
                }
            }
            return Ok(());
        }
        if bytes.len() + key.len() + (entries.len() + 1) * PER_ENTRY > self.limit {
            return Err(Full);
        }
        (entry.start, entry.len) = (bytes.len() as u32, key.len() as u32);
        bytes.extend_from_slice(key);
        let at = entries.len() as u32;
        entries.push(entry);
        prints.extend(print);
        let hasher = &self.bucket.hasher;
        table.insert_unique(hash, at, |&at| hasher.hash_one(&bytes[range(&entries[at as usize])]));
        Ok(())
    }

    /// What it takes of its limit.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * PER_ENTRY
    }

    pub fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.table.find(hash, |&at| self.key(at) == key).map(|&at| at as usize)
    }

    fn key(&self, at: u32) -> &[u8] {
        let entry = &self.entries[at as usize];
        &self.bytes[entry.start as usize..(entry.start + entry.len) as usize]
    }

    /// Makes [`KeyIndex::touches`] possible. No rows may be offered afterwards.
    pub fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| self.key(a).cmp(self.key(b)));
        self.order = order;
    }

    /// Whether a key's first column may lie within these bounds (arrays of one value, both ends included).
    pub fn touches(&self, least: &ArrayRef, greatest: &ArrayRef) -> Result<bool> {
        if self.unbounded {
            return Ok(true);
        }
        // The columns of a key stand one after the other in its bytes, so those of the first are a prefix.
        let least = self.first.convert_columns(std::slice::from_ref(least))?;
        let greatest = self.first.convert_columns(std::slice::from_ref(greatest))?;
        let (least, greatest) = (least.row(0), greatest.row(0));
        let (least, greatest): (&[u8], &[u8]) = (least.as_ref(), greatest.as_ref());
        let at = self.order.partition_point(|&at| self.key(at) < least);
        Ok(self.order.get(at).is_some_and(|&at| {
            let key = self.key(at);
            &key[..key.len().min(greatest.len())] <= greatest
        }))
    }
}

/// Bytes that an entry takes besides its key: itself, its place in the order and its slot in a table that is half full.
const PER_ENTRY: usize = size_of::<Entry>() + 4 + 12;

impl Entry {
    pub fn new(seq: i64, file: usize, row: usize, delete: bool) -> Self {
        Self { start: 0, len: 0, seq, file: file as u32, row: row as u32, delete, met: Met::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn index(limit: usize) -> KeyIndex {
        let fields = [Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        KeyIndex::new(&fields, Bucket::all(), limit).unwrap()
    }

    fn fill(index: &mut KeyIndex, rows: &[(i64, &str)]) -> Result<(), Full> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        ];
        let keys = index.convert(&columns).unwrap();
        for (i, key) in keys.iter().enumerate() {
            let hash = index.hash(key.as_ref()).unwrap();
            index.offer(hash, key.as_ref(), Entry::new(i as i64, 0, i, false), None)?;
        }
        Ok(())
    }

    #[test]
    fn the_last_row_of_a_key_wins() {
        let mut index = index(1 << 20);
        assert!(fill(&mut index, &[(1, "a"), (2, "b"), (1, "a"), (1, "b")]).is_ok());
        let mut rows: Vec<u32> = index.entries.iter().map(|e| e.row).collect();
        rows.sort_unstable();
        assert_eq!(rows, [1, 2, 3]);
    }

    #[test]
    fn ranges() {
        let mut index = index(1 << 20);
        assert!(fill(&mut index, &[(10, "x"), (20, "y"), (-5, "z")]).is_ok());
        index.sort();
        let one = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
        for (least, greatest, expected) in [(0, 9, false), (0, 10, true), (10, 10, true), (11, 19, false), (21, 99, false), (-9, -5, true)]
        {
            assert_eq!(index.touches(&one(least), &one(greatest)).unwrap(), expected, "{least}..{greatest}");
        }
    }

    #[test]
    fn the_limit_holds() {
        let rows: Vec<(i64, &str)> = (0..1000).map(|i| (i, "some text")).collect();
        assert!(fill(&mut index(10_000), &rows).is_err());
    }
}
