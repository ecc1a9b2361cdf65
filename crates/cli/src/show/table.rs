//! Tables that are aligned, and no wider than the terminal.

use std::io::{self, IsTerminal, Write};

use super::ink::{Ink, Paint};

const GAP: usize = 2;

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    heading: &'static str,
    align: Align,
    shrinks: bool,
}

impl Column {
    /// A column that is as wide as its widest text.
    pub(crate) const fn new(heading: &'static str, align: Align) -> Self {
        Self { heading, align, shrinks: false }
    }

    /// A column whose texts are cut when the terminal is too narrow.
    pub(crate) const fn shrinking(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, shrinks: true }
    }
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A text in a colour.
    pub(crate) fn painted(text: impl ToString, paint: Paint) -> Self {
        Self { text: text.to_string(), paint }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(text, Paint::Plain)
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the table has columns.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Writes the table to standard output.
    pub(crate) fn print(&self) -> io::Result<()> {
        let width = terminal_width();
        let mut out = io::stdout().lock();
        self.write(&mut out, Ink::for_stdout(), width)?;
        out.flush()
    }

    /// Writes the table, cut to `width` characters if one is given.
    pub(crate) fn write(&self, out: &mut impl Write, ink: Ink, width: Option<usize>) -> io::Result<()> {
        let widths = self.widths(width);
        let headings = self.columns.iter().map(|column| Cell::painted(column.heading, Paint::Heading)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            let mut pending = 0;
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let text = cut(&cell.text, *width);
                let padding = width - text.chars().count();
                let before = if column.align == Align::Right { padding } else { 0 };
                if !text.is_empty() {
                    line.extend(std::iter::repeat_n(' ', pending + before));
                    line.push_str(&ink.paint(cell.paint, &text));
                    pending = padding - before + GAP;
                } else {
                    pending += width + GAP;
                }
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn widths(&self, most: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let texts = self.rows.iter().map(|row| row[index].text.chars().count());
                texts.chain([column.heading.len()]).max().unwrap_or(0)
            })
            .collect();
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let mut over = total.saturating_sub(most.unwrap_or(usize::MAX));
        for (width, column) in widths.iter_mut().zip(&self.columns).rev() {
            if column.shrinks {
                let narrow = width.saturating_sub(over).max(column.heading.len().max(8)).min(*width);
                over -= *width - narrow;
                *width = narrow;
            }
        }
        widths
    }
}

/// The text in one line, cut to `width` characters with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= width {
        return text.chars().map(line).collect();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).map(line).collect();
    cut.push('…');
    cut
}

/// How many characters a line of the terminal holds, if standard output is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[
            Column::new("NAME", Align::Left),
            Column::new("JOBS", Align::Right),
            Column::shrinking("WHAT"),
        ]);
        table.row(vec!["a".into(), 7.into(), "make test\nand more of it".into()]);
        table.row(vec!["longer".into(), 1_234.into(), "".into()]);
        table
    }

    fn written(width: Option<usize>) -> String {
        let mut out = Vec::new();
        sample().write(&mut out, Ink::NONE, width).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_end_of_spaces() {
        let lines = "NAME    JOBS  WHAT\na          7  make test and more of it\nlonger  1234\n";
        assert_eq!(written(None), lines);
    }

    #[test]
    fn what_may_shrink_is_cut_to_the_terminal() {
        let lines = "NAME    JOBS  WHAT\na          7  make te…\nlonger  1234\n";
        assert_eq!(written(Some(22)), lines);
        assert_eq!(written(Some(3)), lines, "never below eight characters");
    }
}
