//! Rows in columns, the way kubectl prints them.

/// Prints a heading and rows, each column as wide as its widest cell.
pub fn print(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut width: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&width)
            .map(|(cell, w)| format!("{cell}{}", " ".repeat(w - cell.chars().count().min(*w))))
            .collect();
        out += padded.join("   ").trim_end();
        out.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), "é".to_owned()],
        ];
        assert_eq!(
            super::print(&["NAME", "V"], &rows),
            "NAME   V\na      x\nlong   é\n"
        );
    }
}
