//! Elastic tab stops: Go's text/tabwriter, to the space.
//!
//! A column is a run of adjacent lines that all have a tab-terminated cell at that place; its width is that of its widest cell, plus padding.

pub struct TabWriter {
    min_width: usize,
    padding: usize,
}

/// What `kubectl get` uses.
pub const TABLE: TabWriter = TabWriter { min_width: 6, padding: 3 };
/// What `kubectl describe` uses.
pub const DESCRIBE: TabWriter = TabWriter { min_width: 0, padding: 2 };

impl TabWriter {
    pub fn format(&self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.strip_suffix('\n').unwrap_or(text).split('\n').map(|line| line.split('\t').collect()).collect();
        let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
        let most = lines.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..most.saturating_sub(1) {
            let mut start = 0;
            while start < lines.len() {
                // The last cell of a line is not tab-terminated, so it belongs to no column.
                if lines[start].len() <= column + 1 {
                    start += 1;
                    continue;
                }
                let end = (start..lines.len()).find(|at| lines[*at].len() <= column + 1).unwrap_or(lines.len());
                let widest = (start..end).map(|at| lines[at][column].chars().count()).max().unwrap_or(0);
                let width = (widest + self.padding).max(self.min_width);
                (start..end).for_each(|at| widths[at][column] = width);
                start = end;
            }
        }
        let mut out = String::with_capacity(text.len() * 2);
        for (cells, widths) in lines.iter().zip(&widths) {
            for (at, cell) in cells.iter().enumerate() {
                out.push_str(cell);
                if at + 1 < cells.len() {
                    out.extend(std::iter::repeat_n(' ', widths[at].saturating_sub(cell.chars().count())));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Columns whose widths never shrink, for watching.
#[derive(Default)]
pub struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    pub fn rows(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), TABLE.min_width);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + TABLE.padding);
            }
        }
        let mut out = String::new();
        for row in rows {
            for (at, cell) in row.iter().enumerate() {
                out.push_str(cell);
                if at + 1 < row.len() {
                    out.extend(std::iter::repeat_n(' ', self.widths[at] - cell.chars().count()));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_runs_of_lines() {
        assert_eq!(DESCRIBE.format("Name:\tx\nNamespace:\ty\nplain\nA:\tb\n"), "Name:       x\nNamespace:  y\nplain\nA:  b\n");
        assert_eq!(TABLE.format("NAME\tAGE\na\t5s\n"), "NAME   AGE\na      5s\n");
        assert_eq!(TABLE.format("A\tB\nx\ty\n"), "A     B\nx     y\n");
    }
}
