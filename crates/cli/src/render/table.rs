//! Tables of text.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

/// Narrower than this, a column of words is no longer readable.
const NARROW: usize = 9;

/// One column's heading.
pub struct Column {
    pub name: String,
    /// Numbers stand to the right.
    pub right: bool,
}

pub fn left(name: &str) -> Column {
    Column { name: name.to_owned(), right: false }
}

pub fn right(name: &str) -> Column {
    Column { name: name.to_owned(), right: true }
}

/// A table with a line below its header, no wider than `width`. When its columns do not find room side by side, each row
/// becomes a block of `name  value` lines.
pub fn render(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    match width {
        Some(width) if columns.len() > 1 && columns.len() * NARROW > width => blocks(columns, rows),
        _ => side_by_side(columns, rows, width),
    }
}

fn side_by_side(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_style(TableComponent::HeaderLines, '─');
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.try_into().unwrap_or(u16::MAX));
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(columns.iter().map(|c| c.name.as_str()));
    table.add_rows(rows);
    for (i, column) in columns.iter().enumerate() {
        if let Some(formatted) = table.column_mut(i) {
            formatted.set_padding((u16::from(i > 0), 1));
            if column.right {
                formatted.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn blocks(columns: &[Column], rows: &[Vec<String>]) -> String {
    let name_width = columns.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let block = |row: &Vec<String>| -> String {
        let line = |(column, value): (&Column, &String)| {
            let fill = " ".repeat(name_width - column.name.chars().count());
            format!("{}{fill}  {}\n", column.name, value.replace('\n', &format!("\n{}", " ".repeat(name_width + 2))))
        };
        columns.iter().zip(row).map(line).collect()
    };
    rows.iter().map(block).collect::<Vec<_>>().join("─\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["1", "Żółć"], ["200", "NULL"]].map(|r| r.map(str::to_owned).to_vec()).to_vec()
    }

    #[test]
    fn wide() {
        insta::assert_snapshot!(render(&[right("id"), left("name")], &rows(), Some(80)), @r"
         id  name
        ──────────
          1  Żółć
        200  NULL
        ");
    }

    #[test]
    fn narrow() {
        insta::assert_snapshot!(render(&[right("id"), left("name")], &rows(), Some(12)), @r"
        id    1
        name  Żółć
        ─
        id    200
        name  NULL
        ");
    }
}
