//! Columns as Go's tabwriter lays them out with kubeadm's settings: at least ten wide, three blanks between.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Rows of cells; the last cell of a row ends its line.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count() + PADDING);
        cells.max().unwrap_or(0).max(MIN_WIDTH)
    };
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                out.push_str(cell);
            } else {
                out.push_str(&format!("{cell:<width$}", width = width(column)));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_stand_in_columns() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(super::columns(&[row(&["A", "LONG HEADER", "C"]), row(&["longer than ten", "b", "c"])]), "A                 LONG HEADER   C\nlonger than ten   b             c\n");
        assert_eq!(super::columns(&[row(&["A", "B"])]), "A         B\n");
    }
}
