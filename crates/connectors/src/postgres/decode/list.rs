//! Arrays of one dimension.

use arrow::array::ListArray;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::FieldRef;
use trib_core::Result;

use super::column::{Column, Missing, Unfit, WrongType};
use super::rows::Fields;
use super::value::{Bad, take_i32};

pub struct List {
    items: Column,
    lengths: Vec<u32>,
    /// Where the items of the arrays stand that are being decoded.
    at: Vec<u32>,
}

impl List {
    pub fn new(items: Column) -> Self {
        Self { items, lengths: Vec::new(), at: Vec::new() }
    }

    pub fn decode(&mut self, fields: Fields<'_>, missing: &mut Missing) -> Result<(), WrongType> {
        self.at.clear();
        missing.fill_from(&mut self.lengths, fields.placed(), |(start, bytes)| items(bytes, start, &mut self.at))?;
        self.items.decode(fields.within(&self.at))
    }

    pub fn finish(&mut self, item: &FieldRef, nulls: Option<NullBuffer>, unfit: &mut Unfit) -> Result<ListArray> {
        let (items, bad) = self.items.finish(item)?;
        let offsets = OffsetBuffer::from_lengths(self.lengths.drain(..).map(|length| length as usize));
        // One reason for a list is enough.
        let mut bad: Vec<_> =
            bad.into_iter().map(|(place, reason)| (offsets.partition_point(|first| *first as usize <= place) - 1, reason)).collect();
        bad.dedup_by_key(|(row, _)| *row);
        unfit.extend(bad);
        Ok(ListArray::try_new(item.clone(), offsets, items, nulls)?)
    }
}

/// Notes where the items of one array stand, which begins at `start`; gives how many there are.
///
/// `array_send` of `src/backend/utils/adt/arrayfuncs.c`: dimensions, whether there are NULLs, the element type, then for each dimension
/// its length and lower bound, then the elements.
fn items(bytes: &[u8], start: usize, at: &mut Vec<u32>) -> Result<u32, Bad> {
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest)?;
    let (_has_nulls, _element) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
    match dimensions {
        0 => Ok(0),
        1 => {
            let (length, bound) = (take_i32(&mut rest)?, take_i32(&mut rest)?);
            if bound != 1 {
                return Err(Bad::Row(format!("the array begins at {bound}, and a list has no bounds; `arrays: text` keeps them")));
            }
            let length = u32::try_from(length).map_err(|_| Bad::Type)?;
            for _ in 0..length {
                at.push((start + bytes.len() - rest.len()) as u32);
                if let Ok(length) = usize::try_from(take_i32(&mut rest)?) {
                    rest = rest.get(length..).ok_or(Bad::Type)?;
                }
            }
            Ok(length)
        }
        n => Err(Bad::Row(format!("the array has {n} dimensions, and a list has one; `arrays: text` keeps them"))),
    }
}
