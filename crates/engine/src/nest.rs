//! Nested values: structs become columns, lists of structs become child tables, or either becomes JSON.
//!
//! A [`Shape`] is compiled once from a schema; [`Shape::take_apart`] then turns each batch into one batch per table. Every row
//! remembers which root row it came from, so that parent and children are accepted or rejected together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, ListArray, StructArray, UInt32Array, cast::AsArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use trib_core::logical::{FieldExt, Logical};
use trib_core::name::system;
use trib_core::transform::Nesting;
use trib_core::{Error, Result};
use trib_kit::object;

/// How the rows of one table come out of nested rows.
pub struct Shape {
    /// What is added to the root table's name, joined by `__`: empty for the root, `items` for a child.
    pub suffix: Vec<String>,
    pub columns: Vec<Column>,
    /// 0 for the root; a child has this many index columns.
    pub depth: usize,
    children: Vec<(Vec<usize>, Shape)>,
}

pub struct Column {
    /// Named as the source has it, `user__name` for a flattened struct.
    pub field: FieldRef,
    /// The names that `field`'s is joined from.
    pub parts: Vec<String>,
    path: Vec<usize>,
    as_json: bool,
    /// The top-level column that it came from.
    pub top: usize,
}

impl Column {
    /// The value is a top-level column's as it is.
    pub fn is_whole(&self) -> bool {
        self.path.len() == 1 && !self.as_json
    }
}

/// The rows of one table, out of one batch.
pub struct Flat {
    pub columns: Vec<ArrayRef>,
    /// For each row: the root row that it belongs to. `None` for the root itself.
    pub origin: Option<UInt32Array>,
    /// Places in the lists, outermost first.
    pub indices: Vec<ArrayRef>,
}

impl Shape {
    /// `nesting` decides for each top-level column; `holds` says whether the destination can store a nested field as it is.
    pub fn compile(fields: &Fields, nesting: impl Fn(usize) -> Nesting, holds: impl Fn(&Field) -> bool) -> Self {
        let mut root = Shape { suffix: Vec::new(), columns: Vec::new(), depth: 0, children: Vec::new() };
        for (i, field) in fields.iter().enumerate() {
            root.add(vec![i], vec![field.name().clone()], field, nesting(i), &holds, i);
        }
        root
    }

    fn add(
        &mut self,
        path: Vec<usize>,
        parts: Vec<String>,
        field: &FieldRef,
        nesting: Nesting,
        holds: &impl Fn(&Field) -> bool,
        top: usize,
    ) {
        let name = parts.join("__");
        let deeper = |inner: &Field| parts.iter().cloned().chain([inner.name().clone()]).collect::<Vec<_>>();
        let plain = |as_json: bool| {
            let field = if as_json {
                Field::new(&name, DataType::Utf8, true).with_logical(Logical::Json)
            } else {
                // A value inside a struct is NULL when the struct is.
                field.as_ref().clone().with_name(&name).with_nullable(field.is_nullable() || path.len() > 1)
            };
            Column { field: Arc::new(field), parts: parts.clone(), path: path.clone(), as_json, top }
        };
        match (field.data_type(), nesting) {
            (DataType::Struct(inner), Nesting::Table) => {
                for (i, f) in inner.iter().enumerate() {
                    let inner_path = path.iter().copied().chain([i]).collect();
                    self.add(inner_path, deeper(f), f, nesting, holds, top);
                }
            }
            (DataType::List(item) | DataType::LargeList(item), Nesting::Table) if matches!(item.data_type(), DataType::Struct(_)) => {
                let mut child = Shape {
                    suffix: self.suffix.iter().chain(&parts).cloned().collect(),
                    columns: Vec::new(),
                    depth: self.depth + 1,
                    children: Vec::new(),
                };
                if let DataType::Struct(inner) = item.data_type() {
                    for (i, f) in inner.iter().enumerate() {
                        child.add(vec![i], vec![f.name().clone()], f, nesting, holds, top);
                    }
                }
                self.children.push((path, child));
            }
            (t, nesting) if t.is_nested() => self.columns.push(plain(nesting == Nesting::Json || !holds(field))),
            _ => self.columns.push(plain(false)),
        }
    }

    /// This table and all below it, parents first.
    pub fn tables(&self) -> Vec<&Shape> {
        let mut all = vec![self];
        for (_, child) in &self.children {
            all.extend(child.tables());
        }
        all
    }

    /// One [`Flat`] for each of [`Shape::tables`], in that order.
    pub fn take_apart(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Flat>> {
        let mut out = Vec::new();
        self.walk(columns, None, Vec::new(), rows, &mut out)?;
        Ok(out)
    }

    fn walk(
        &self,
        columns: &[ArrayRef],
        origin: Option<UInt32Array>,
        indices: Vec<ArrayRef>,
        rows: usize,
        out: &mut Vec<Flat>,
    ) -> Result<()> {
        let mut flat = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let array = descend(columns, &column.path)?;
            flat.push(if column.as_json {
                object::column(&Arc::new(Field::new("", array.data_type().clone(), true)), &array)?
            } else {
                array
            });
        }
        out.push(Flat { columns: flat, origin: origin.clone(), indices: indices.clone() });
        for (path, child) in &self.children {
            let list = as_list(&descend(columns, path)?)?;
            let mut parent_rows = Vec::new();
            let mut places = Vec::new();
            let mut elements = Vec::new();
            for row in (0..rows).filter(|r| list.is_valid(*r)) {
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                for element in start..end {
                    // A null in a list of structs is no row.
                    if list.values().is_valid(element) {
                        parent_rows.push(row as u32);
                        places.push((element - start) as i64);
                        elements.push(element as u32);
                    }
                }
            }
            let values = take(list.values(), &UInt32Array::from(elements), None)?;
            let values = values.as_struct_opt().ok_or_else(|| Error::internal("a child table is made of structs"))?;
            let parent_rows = UInt32Array::from(parent_rows);
            let child_origin = match &origin {
                None => parent_rows.clone(),
                Some(origin) => take(origin, &parent_rows, None)?.as_primitive().clone(),
            };
            let mut child_indices = indices.iter().map(|i| Ok(take(i, &parent_rows, None)?)).collect::<Result<Vec<_>>>()?;
            let count = places.len();
            child_indices.push(Arc::new(Int64Array::from(places)));
            child.walk(values.columns(), Some(child_origin), child_indices, count, out)?;
        }
        Ok(())
    }
}

/// Names of the index columns of a child at this depth, outermost first.
pub fn index_names(depth: usize) -> Vec<String> {
    (1..=depth).map(|d| if d == 1 { system::INDEX.to_owned() } else { format!("{}_{d}", system::INDEX) }).collect()
}

/// Follows a path of struct fields; what is inside a null struct is null.
fn descend(columns: &[ArrayRef], path: &[usize]) -> Result<ArrayRef> {
    let (first, rest) = path.split_first().ok_or_else(|| Error::internal("a path has at least one step"))?;
    let mut array = columns[*first].clone();
    for step in rest {
        let outer: &StructArray = array.as_struct_opt().ok_or_else(|| Error::internal("the path leads through structs"))?;
        let inner = outer.column(*step);
        let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
        array = make_array(inner.to_data().into_builder().nulls(nulls).build()?);
    }
    Ok(array)
}

fn as_list(array: &ArrayRef) -> Result<ListArray> {
    let list = match array.data_type() {
        DataType::LargeList(item) => cast(array, &DataType::List(item.clone()))?,
        _ => array.clone(),
    };
    list.as_list_opt::<i32>().cloned().ok_or_else(|| Error::internal("a child table is made of a list"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Int64Type, Schema};

    #[test]
    fn lists_of_structs_become_tables() {
        let item = DataType::Struct(Fields::from(vec![
            Field::new("sku", DataType::Utf8, true),
            Field::new(
                "tags",
                DataType::List(Arc::new(Field::new("item", DataType::Struct(vec![Field::new("t", DataType::Utf8, true)].into()), true))),
                true,
            ),
        ]));
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("user", DataType::Struct(vec![Field::new("name", DataType::Utf8, true)].into()), true),
            Field::new("items", DataType::List(Arc::new(Field::new("item", item, true))), true),
        ]);
        let json = r#"{"id":1,"user":{"name":"a"},"items":[{"sku":"x","tags":[{"t":"1"},{"t":"2"}]},{"sku":"y"}]}
            {"id":2,"user":null,"items":null}
            {"id":3,"user":{"name":null},"items":[{"sku":"z","tags":[{"t":"3"}]}]}"#;
        let batch = arrow::json::ReaderBuilder::new(Arc::new(schema.clone())).build(json.as_bytes()).unwrap().next().unwrap().unwrap();
        let shape = Shape::compile(schema.fields(), |_| Nesting::Table, |_| true);
        let names: Vec<_> = shape.tables().iter().map(|t| t.suffix.join("__")).collect();
        assert_eq!(names, ["", "items", "items__tags"]);
        let flats = shape.take_apart(batch.columns(), batch.num_rows()).unwrap();
        assert_eq!(shape.columns[1].field.name(), "user__name");
        assert_eq!(flats[0].columns[1].null_count(), 2);
        let origin = |i: usize| flats[i].origin.as_ref().unwrap().values().to_vec();
        assert_eq!(origin(1), [0, 0, 2]);
        assert_eq!(origin(2), [0, 0, 2]);
        let index = |i: usize| flats[2].indices[i].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((index(0), index(1)), (vec![0, 0, 0], vec![0, 1, 0]));
    }
}
