//! Tables on a terminal: columns aligned with two spaces between, the last one ragged.

use std::fmt;

/// Rows of texts under headings.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with headings and no rows.
    pub(crate) fn new(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                if column + 1 == N {
                    writeln!(f, "{cell}")?;
                } else {
                    write!(f, "{cell:width$}  ", width = widths[column])?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["ID", "STATE", "AGE"]);
        table.row(["a-long-name".to_owned(), "ä".to_owned(), "5s".to_owned()]);
        table.row(["b".to_owned(), "stopped".to_owned(), "2d".to_owned()]);
        assert_eq!(
            table.to_string(),
            "ID           STATE    AGE\n\
             a-long-name  ä        5s\n\
             b            stopped  2d\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(Table::new(["ID", "AGE"]).to_string(), "ID  AGE\n");
    }
}
