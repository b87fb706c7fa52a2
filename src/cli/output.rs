//! What a command answers with: a table for people, JSON for programs, names for the shell.
//!
//! A table is made of the cells that a row gives, and no row gives a secret.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::exit::Failure;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people, without secrets.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Resource names, one a line.
    Name,
}

/// Something that is answered with. Its JSON form is complete, secrets included.
pub(super) trait Row: Serialize {
    /// The columns of the table.
    const COLUMNS: &'static [&'static str];

    /// One cell a column; empty where there is nothing.
    fn cells(&self) -> Vec<String>;

    /// The resource name, if it has one.
    fn name(&self) -> Option<&str>;
}

/// Prints one.
pub(super) fn one<R: Row>(format: Format, row: &R) -> Result<(), Failure> {
    match format {
        Format::Json => json(row),
        Format::Table | Format::Jsonl | Format::Name => many(format, std::slice::from_ref(row)),
    }
}

/// Prints a list.
pub(super) fn many<R: Row>(format: Format, rows: &[R]) -> Result<(), Failure> {
    match format {
        Format::Table => text(&table(rows)),
        Format::Json => json(rows),
        Format::Jsonl => {
            let lines = rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n"));
            text(&lines.collect::<serde_json::Result<String>>()?)
        }
        Format::Name => {
            text(&rows.iter().filter_map(Row::name).flat_map(|name| [name, "\n"]).collect::<String>())
        }
    }
}

/// Prints the head of a table whose rows come one by one.
pub(super) fn head<R: Row>(format: Format) -> Result<(), Failure> {
    if format == Format::Table { text(&(R::COLUMNS.join("  ") + "\n")) } else { Ok(()) }
}

/// Prints one of the rows that come one by one. How wide the later ones are is not known.
pub(super) fn line<R: Row>(format: Format, row: &R) -> Result<(), Failure> {
    if format != Format::Table {
        return one(format, row);
    }
    let cells = row.cells();
    let cells: Vec<&str> = cells.iter().map(|cell| shown(cell)).collect();
    text(&(cells.join("  ") + "\n"))
}

/// Prints one JSON document.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints a text as it is.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn table<R: Row>(rows: &[R]) -> String {
    let head = R::COLUMNS.iter().map(|column| (*column).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| shown(cell).chars().count()).max()
    };
    let widths: Vec<usize> = (0..R::COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", shown(cell))).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

const fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample(&'static str, &'static str);

    impl Row for Sample {
        const COLUMNS: &'static [&'static str] = &["NAME", "B"];
        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_owned()]
        }
        fn name(&self) -> Option<&str> {
            Some(self.0)
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [Sample("longer", "x"), Sample("é", "")];
        assert_eq!(table(&rows), "NAME    B\nlonger  x\né       -\n");
        assert_eq!(table::<Sample>(&[]), "NAME  B\n");
    }
}
