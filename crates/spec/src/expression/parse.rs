//! From words to a [`Term`], by recursive descent: `||`, `&&`, comparisons, `!`, then what is looked up and called.

use serde_json::Value;

use super::words::{self, Word};
use super::{Expression, ExpressionError, Function, MAX_DEPTH, MAX_EXPRESSION_BYTES, Operator, Term};
use crate::nearest::did_you_mean;

/// What ended an expression.
#[derive(Debug)]
pub(super) enum End {
    /// The text.
    Text,
    /// `}}`, which begins here.
    Braces(usize),
}

/// The expression that begins at `from`.
pub(super) fn expression(text: &str, from: usize) -> Result<(Expression, End), ExpressionError> {
    let (word, start, next) = words::next(text, from)?;
    let mut parser = Parser { text, from, word, start, next, inside: 0 };
    let Deep { term, .. } = parser.either()?;
    let end = match parser.word {
        Word::End => End::Text,
        Word::Braces => End::Braces(parser.start),
        Word::Identifier(_) | Word::Literal(_) => {
            return Err(parser.wrong("two terms stand side by side; put an operator like `==` or `&&` between them"));
        }
        _ => return Err(parser.wrong("this doesn't belong here")),
    };
    Ok((Expression::of(term), end))
}

/// A term and how deep it nests.
struct Deep {
    term: Term,
    depth: usize,
}

struct Parser<'a> {
    text: &'a str,
    /// Where the expression begins.
    from: usize,
    /// The word that is next, where it begins, and where it ends.
    word: Word,
    start: usize,
    next: usize,
    /// In how many parentheses and arguments we are.
    inside: usize,
}

impl Parser<'_> {
    fn wrong(&self, problem: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.text, self.start, problem)
    }

    /// Takes the word and goes on to the one after it.
    fn advance(&mut self) -> Result<Word, ExpressionError> {
        if self.next - self.from > MAX_EXPRESSION_BYTES {
            return Err(self.wrong(format!("an expression has at most {MAX_EXPRESSION_BYTES} bytes")));
        }
        let (word, start, next) = words::next(self.text, self.next)?;
        (self.start, self.next) = (start, next);
        Ok(std::mem::replace(&mut self.word, word))
    }

    fn take(&mut self, expected: &Word, told: &str) -> Result<(), ExpressionError> {
        if self.word != *expected {
            return Err(self.wrong(told));
        }
        self.advance().map(drop)
    }

    fn deepen(&self, term: Term, depth: usize) -> Result<Deep, ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(format!("nests deeper than {MAX_DEPTH} levels")));
        }
        Ok(Deep { term, depth })
    }

    fn binary(&self, operator: Operator, left: Deep, right: Deep) -> Result<Deep, ExpressionError> {
        let depth = left.depth.max(right.depth) + 1;
        self.deepen(Term::Binary(operator, Box::new(left.term), Box::new(right.term)), depth)
    }

    fn either(&mut self) -> Result<Deep, ExpressionError> {
        let mut left = self.both()?;
        while self.word == Word::Operator(Operator::Or) {
            self.advance()?;
            let right = self.both()?;
            left = self.binary(Operator::Or, left, right)?;
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Deep, ExpressionError> {
        let mut left = self.comparison()?;
        while self.word == Word::Operator(Operator::And) {
            self.advance()?;
            let right = self.comparison()?;
            left = self.binary(Operator::And, left, right)?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Deep, ExpressionError> {
        let left = self.negation()?;
        let Word::Operator(operator) = self.word else { return Ok(left) };
        if matches!(operator, Operator::And | Operator::Or) {
            return Ok(left);
        }
        self.advance()?;
        let right = self.negation()?;
        if matches!(self.word, Word::Operator(next) if !matches!(next, Operator::And | Operator::Or)) {
            return Err(self.wrong("comparisons don't chain; join two with `&&`"));
        }
        self.binary(operator, left, right)
    }

    fn negation(&mut self) -> Result<Deep, ExpressionError> {
        let mut negations = 0;
        while self.word == Word::Not {
            self.advance()?;
            negations += 1;
        }
        let mut term = self.lookup()?;
        for _ in 0..negations {
            let depth = term.depth + 1;
            term = self.deepen(Term::Not(Box::new(term.term)), depth)?;
        }
        Ok(term)
    }

    fn lookup(&mut self) -> Result<Deep, ExpressionError> {
        let mut of = self.primary()?;
        loop {
            let by = match self.word {
                Word::Dot => {
                    self.advance()?;
                    let key = match &self.word {
                        Word::Identifier(key) => key.clone(),
                        // `outputs.true` is a key like any other.
                        Word::Literal(Value::Bool(key)) => key.to_string(),
                        Word::Literal(Value::Null) => "null".to_owned(),
                        _ => return Err(self.wrong("a name follows a dot; write others as `['name']`")),
                    };
                    self.advance()?;
                    Deep { term: Term::Literal(Value::String(key)), depth: 0 }
                }
                Word::OpenBracket => {
                    self.advance()?;
                    let by = self.nested()?;
                    self.take(&Word::CloseBracket, "a `]` is missing here")?;
                    by
                }
                _ => return Ok(of),
            };
            let depth = of.depth.max(by.depth) + 1;
            of = self.deepen(Term::Member(Box::new(of.term), Box::new(by.term)), depth)?;
        }
    }

    /// An expression inside of another. What it nests in is counted on the way down: it is the parser that recurses.
    fn nested(&mut self) -> Result<Deep, ExpressionError> {
        self.inside += 1;
        if self.inside > MAX_DEPTH {
            return Err(self.wrong(format!("nests deeper than {MAX_DEPTH} levels")));
        }
        let term = self.either()?;
        self.inside -= 1;
        Ok(term)
    }

    fn primary(&mut self) -> Result<Deep, ExpressionError> {
        match &self.word {
            Word::Literal(_) => {
                let Word::Literal(value) = self.advance()? else { return Err(self.wrong("a value is missing here")) };
                Ok(Deep { term: Term::Literal(value), depth: 0 })
            }
            Word::Open => {
                self.advance()?;
                let term = self.nested()?;
                self.take(&Word::Close, "a `)` is missing here")?;
                Ok(term)
            }
            Word::Identifier(name) => {
                let name = name.clone();
                // Looked for before going on, so that an unknown one is told with its place.
                let function = Function::ALL.into_iter().find(|function| function.as_str() == name);
                let unknown = self.wrong(format!(
                    "there is no function `{name}()`{}",
                    did_you_mean(&name, Function::ALL.map(Function::as_str))
                ));
                self.advance()?;
                if self.word != Word::Open {
                    return match function {
                        Some(function) if function.asks_status() => {
                            Err(self.wrong(format!("`{name}` is a function; write `{name}()`")))
                        }
                        _ => Ok(Deep { term: Term::Context(name), depth: 0 }),
                    };
                }
                self.call(function.ok_or(unknown)?)
            }
            Word::End | Word::Braces => Err(self.wrong("something is missing here")),
            _ => Err(self.wrong("a value or a name belongs here")),
        }
    }

    fn call(&mut self, function: Function) -> Result<Deep, ExpressionError> {
        self.advance()?;
        let (mut arguments, mut depth) = (Vec::new(), 0);
        while self.word != Word::Close {
            if !arguments.is_empty() {
                self.take(&Word::Comma, "a `,` or `)` is missing here")?;
            }
            let argument = self.nested()?;
            depth = argument.depth.max(depth);
            arguments.push(argument.term);
        }
        let (least, most) = function.arity();
        if !(least..=most).contains(&arguments.len()) {
            let wanted = match (least, most) {
                (0, 0) => "no arguments".to_owned(),
                (1, 1) => "one argument".to_owned(),
                (a, b) if a == b => format!("{a} arguments"),
                (a, b) => format!("{a} to {b} arguments"),
            };
            return Err(self.wrong(format!("{}() takes {wanted}, not {}", function.as_str(), arguments.len())));
        }
        self.advance()?;
        self.deepen(Term::Call(function, arguments), depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_expression_knows_the_names_it_asks_for() {
        for (text, used) in [
            ("matrix.os == 'linux' && !cancelled()", &["matrix.os"][..]),
            ("steps['run tests'].outputs.n > 3", &["steps['run tests'].outputs.n"]),
            ("needs.build-it.result != needs.b.result", &["needs.build-it.result", "needs.b.result"]),
            ("env[matrix.name]", &["env", "matrix.name"]),
            ("fromJSON(needs.a.outputs.list)[0].x", &["needs.a.outputs.list"]),
            ("'it''s' == \"x\"", &[]),
        ] {
            if text.contains('"') {
                assert!(Expression::parse(text).expect_err(text).problem.contains("single quotes"));
            } else {
                assert_eq!(names(text), used, "{text}");
            }
        }
    }

    #[test]
    fn operators_bind_as_usual() {
        let term = |text| Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).term().clone();
        for (short, full) in [
            ("true || false && true", "true || (false && true)"),
            ("!true == false", "(!true) == false"),
            ("1 < 2 && 2 < 3", "(1 < 2) && (2 < 3)"),
            ("env.a.b", "env['a']['b']"),
            ("true && false && true", "(true && false) && true"),
        ] {
            assert_eq!(term(short), term(full), "{short}");
        }
    }

    #[test]
    fn status_functions_are_known() {
        let status = |text| Expression::parse(text).expect(text).status_functions().to_vec();
        assert_eq!(status("failure() || failure() && always()"), [Function::Failure, Function::Always]);
        assert_eq!(status("contains('failure()', 'f')"), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, offset, told) in [
            ("", 0, "missing"),
            ("a b", 2, "side by side"),
            ("a = b", 2, "=="),
            ("a & b", 2, "&&"),
            ("sucess()", 0, "did you mean `success`"),
            ("success", 7, "success()"),
            ("contains('a')", 12, "2 arguments"),
            ("always(1)", 8, "no arguments"),
            ("(a", 2, "`)`"),
            ("a['b'", 5, "`]`"),
            ("'open", 0, "no end"),
            ("1 < 2 < 3", 6, "chain"),
            ("a.1", 2, "['name']"),
            ("a }} b", 2, "before its text ends"),
            ("a; b", 1, "means nothing"),
            ("1.2.3", 0, "number"),
            ("!", 1, "missing"),
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert!(error.offset == offset && error.problem.contains(told), "{text}: {} {error}", error.offset);
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        for text in [
            "(".repeat(100_000),
            format!("{}true", "!".repeat(3_000)),
            format!("a{}", ".b".repeat(1_000)),
            format!("true{}", " && true".repeat(200)),
            format!("'{}'", "x".repeat(MAX_EXPRESSION_BYTES)),
            "env[".repeat(1_000),
            "toJSON(".repeat(500),
        ] {
            let error = Expression::parse(&text).expect_err(&text).problem;
            assert!(error.contains("deeper") || error.contains("at most"), "{error}");
        }
    }
}
