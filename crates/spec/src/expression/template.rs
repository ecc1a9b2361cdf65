//! Texts with expressions in them: `lib-${{ matrix.os }}.so`.

use super::parse::{End, expression};
use super::{Expression, ExpressionError};

/// A text with expressions in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Stands as it is.
    Text(String),
    /// Stands for its value.
    Expression(Expression),
}

impl Template {
    /// Whether a text has expressions in it, or tries to.
    #[must_use]
    pub fn is_in(text: &str) -> bool {
        text.contains("${{")
    }

    /// Reads a text. To have `${{` in what comes out, write `${{ '${{' }}`.
    ///
    /// # Errors
    /// What is wrong with the first expression that is, and where in the text.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut pieces = Vec::new();
        let mut from = 0;
        while let Some(begin) = text[from..].find("${{").map(|at| from + at) {
            if begin > from {
                pieces.push(Piece::Text(text[from..begin].to_owned()));
            }
            let (expression, end) = expression(text, begin + 3)?;
            let End::Braces(end) = end else {
                return Err(ExpressionError::new(text, begin, "this expression has no end; close it with `}}`"));
            };
            pieces.push(Piece::Expression(expression));
            from = end + 2;
        }
        if from < text.len() {
            pieces.push(Piece::Text(text[from..].to_owned()));
        }
        Ok(Self { pieces })
    }

    /// Its parts, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Its expressions, in order.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Expression(expression) => Some(expression),
            Piece::Text(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_texts_and_expressions() {
        let pieces = |text| {
            let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let words = template.pieces().iter().map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Expression(expression) => format!("<{}>", expression.names().len()),
            });
            words.collect::<Vec<_>>()
        };
        assert_eq!(pieces("a ${{ matrix.b }}c${{'}}'}}"), ["a ", "<1>", "c", "<0>"]);
        assert_eq!(pieces("${{ a }}"), ["<1>"]);
        assert_eq!(pieces("$HOME ${x} }}"), ["$HOME ${x} }}"]);
        assert_eq!(pieces(""), Vec::<String>::new());
    }

    #[test]
    fn an_expression_that_is_wrong_is_told_with_its_place_in_the_text() {
        for (text, offset) in [("x ${{ a", 2), ("x ${{ a b }}", 8), ("${{ }}", 4)] {
            assert_eq!(Template::parse(text).expect_err(text).offset, offset, "{text}");
        }
    }
}
