//! Expressions of Python, as stream maps have them, in SQL: names, literals, comparisons, arithmetic and a few functions. What is not understood is `None`, never
//! something near it.

/// Whether SQL knows it to be text, which Python's `+` joins.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Text,
    Other,
}

struct Sql {
    text: String,
    is: Type,
}

/// The expression in SQL. `itself` is the property that `self` stands for.
pub fn to_sql(python: &str, itself: Option<&str>) -> Option<String> {
    let tokens = tokens(python)?;
    let mut parser = Parser { tokens: &tokens, at: 0, itself };
    let sql = parser.either()?;
    (parser.at == tokens.len()).then_some(sql.text)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    const SIGNS: [&str; 20] = ["==", "!=", "<=", ">=", "**", "//", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", ".", ":"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length;
        if first.is_alphabetic() || first == '_' {
            length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..length].to_owned()));
        } else if first.is_ascii_digit() {
            length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest[..length].parse::<f64>().ok()?;
            tokens.push(Token::Number(rest[..length].to_owned()));
        } else if matches!(first, '\'' | '"') {
            let end = rest[1..].find(first)?;
            let inside = &rest[1..=end];
            // Escapes are Python's own.
            if inside.contains('\\') {
                return None;
            }
            tokens.push(Token::Text(inside.to_owned()));
            length = end + 2;
        } else {
            let sign = SIGNS.into_iter().find(|s| rest.starts_with(s))?;
            tokens.push(Token::Sign(sign));
            length = sign.len();
        }
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    itself: Option<&'a str>,
}

fn other(text: String) -> Sql {
    Sql { text, is: Type::Other }
}

fn column(name: &str) -> Sql {
    other(format!("\"{}\"", name.replace('"', "\"\"")))
}

fn literal(text: &str) -> Sql {
    Sql { text: format!("'{}'", text.replace('\'', "''")), is: Type::Text }
}

impl Parser<'_> {
    fn sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(is);
        is
    }

    fn word(&mut self, word: &str) -> bool {
        let is = matches!(self.tokens.get(self.at), Some(Token::Name(n)) if n == word);
        self.at += usize::from(is);
        is
    }

    fn either(&mut self) -> Option<Sql> {
        let mut left = self.both()?;
        while self.word("or") {
            left = other(format!("{} or {}", left.text, self.both()?.text));
        }
        Some(left)
    }

    fn both(&mut self) -> Option<Sql> {
        let mut left = self.negated()?;
        while self.word("and") {
            left = other(format!("{} and {}", left.text, self.negated()?.text));
        }
        Some(left)
    }

    fn negated(&mut self) -> Option<Sql> {
        if self.word("not") { Some(other(format!("not {}", self.negated()?.text))) } else { self.compared() }
    }

    fn compared(&mut self) -> Option<Sql> {
        let left = self.sum()?;
        for (python, sql) in [("==", "="), ("!=", "<>"), ("<=", "<="), (">=", ">="), ("<", "<"), (">", ">")] {
            if self.sign(python) {
                if self.word("None") {
                    let is = match python {
                        "==" => "is null",
                        "!=" => "is not null",
                        _ => return None,
                    };
                    return Some(other(format!("{} {is}", left.text)));
                }
                return Some(other(format!("{} {sql} {}", left.text, self.sum()?.text)));
            }
        }
        if self.word("is") {
            let not = if self.word("not") { "not " } else { "" };
            return self.word("None").then(|| other(format!("{} is {not}null", left.text)));
        }
        let not = if self.word("not") { "not " } else { "" };
        if self.word("in") {
            let list = self.list()?;
            return Some(other(format!("{} {not}in ({list})", left.text)));
        }
        not.is_empty().then_some(left)
    }

    fn list(&mut self) -> Option<String> {
        let close = if self.sign("[") {
            "]"
        } else if self.sign("(") {
            ")"
        } else {
            return None;
        };
        self.arguments(close).map(|items| items.into_iter().map(|i| i.text).collect::<Vec<_>>().join(", "))
    }

    fn arguments(&mut self, close: &str) -> Option<Vec<Sql>> {
        let mut items = Vec::new();
        while !self.sign(close) {
            items.push(self.either()?);
            if !self.sign(",") && !matches!(self.tokens.get(self.at), Some(Token::Sign(s)) if *s == close) {
                return None;
            }
        }
        Some(items)
    }

    fn sum(&mut self) -> Option<Sql> {
        let mut left = self.product()?;
        loop {
            if self.sign("+") {
                let right = self.product()?;
                let text = left.is == Type::Text || right.is == Type::Text;
                let joint = if text { "||" } else { "+" };
                left = Sql { text: format!("{} {joint} {}", left.text, right.text), is: if text { Type::Text } else { Type::Other } };
            } else if self.sign("-") {
                left = other(format!("{} - {}", left.text, self.product()?.text));
            } else {
                return Some(left);
            }
        }
    }

    fn product(&mut self) -> Option<Sql> {
        let mut left = self.single()?;
        loop {
            if self.sign("*") {
                left = other(format!("{} * {}", left.text, self.single()?.text));
            } else if self.sign("/") {
                // Python's division never truncates.
                left = other(format!("cast({} as double) / {}", left.text, self.single()?.text));
            } else {
                return Some(left);
            }
        }
    }

    fn single(&mut self) -> Option<Sql> {
        if self.sign("-") {
            return Some(other(format!("-{}", self.single()?.text)));
        }
        let mut value = self.primary()?;
        while self.sign(".") {
            let Some(Token::Name(method)) = self.tokens.get(self.at).cloned() else { return None };
            self.at += 1;
            if !self.sign("(") {
                return None;
            }
            let arguments = self.arguments(")")?;
            value = called(&method, &value, &arguments)?;
        }
        Some(value)
    }

    fn primary(&mut self) -> Option<Sql> {
        let token = self.tokens.get(self.at)?.clone();
        self.at += 1;
        match token {
            Token::Number(n) => Some(other(n)),
            Token::Text(text) => Some(literal(&text)),
            Token::Sign("(") => {
                let inner = self.either()?;
                self.sign(")").then(|| Sql { text: format!("({})", inner.text), is: inner.is })
            }
            Token::Sign(_) => None,
            Token::Name(name) => self.named(&name),
        }
    }

    fn named(&mut self, name: &str) -> Option<Sql> {
        match name {
            "True" => return Some(other("true".to_owned())),
            "False" => return Some(other("false".to_owned())),
            "None" => return Some(other("null".to_owned())),
            "self" => return self.itself.map(column),
            "_" | "record" => {
                let Some(Token::Text(key)) = self.tokens.get(self.at + 1).cloned() else { return None };
                let indexed = self.sign("[");
                self.at += 1;
                return (indexed && self.sign("]")).then(|| column(&key));
            }
            // What a stream map has besides the record.
            "config" | "fake" | "datetime" | "lambda" | "if" | "else" | "for" | "and" | "or" | "not" | "in" | "is" => return None,
            _ => {}
        }
        if self.sign("(") {
            let arguments = self.arguments(")")?;
            let [value] = arguments.as_slice() else { return None };
            let value = &value.text;
            let text = |text: String| Some(Sql { text, is: Type::Text });
            return match name {
                "md5" => text(format!("md5({value})")),
                "str" => text(format!("cast({value} as varchar)")),
                "int" => Some(other(format!("cast({value} as bigint)"))),
                "float" => Some(other(format!("cast({value} as double)"))),
                "bool" => Some(other(format!("cast({value} as boolean)"))),
                "len" => Some(other(format!("length({value})"))),
                _ => None,
            };
        }
        Some(column(name))
    }
}

fn called(method: &str, on: &Sql, arguments: &[Sql]) -> Option<Sql> {
    let text = |text: String| Some(Sql { text, is: Type::Text });
    let on = &on.text;
    match (method, arguments) {
        ("lower", []) => text(format!("lower({on})")),
        ("upper", []) => text(format!("upper({on})")),
        ("strip", []) => text(format!("trim({on})")),
        ("replace", [from, to]) => text(format!("replace({on}, {}, {})", from.text, to.text)),
        ("startswith", [start]) => Some(other(format!("starts_with({on}, {})", start.text))),
        ("endswith", [end]) => Some(other(format!("ends_with({on}, {})", end.text))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood() {
        let cases = [
            ("status == 'active' and amount > 10", r#""status" = 'active' and "amount" > 10"#),
            ("not (a is None or b != None)", r#"not ("a" is null or "b" is not null)"#),
            ("record['user id'] in ['a', 'b']", r#""user id" in ('a', 'b')"#),
            ("md5(email.lower() + \"salt's\")", r#"md5(lower("email") || 'salt''s')"#),
            ("_['x'] / 2", r#"cast("x" as double) / 2"#),
            ("str(self)", r#"cast("itself" as varchar)"#),
            ("first + ' ' + last", r#""first" || ' ' || "last""#),
            ("email.endswith('@x.org')", r#"ends_with("email", '@x.org')"#),
            ("-1.5 * x - 2", r#"-1.5 * "x" - 2"#),
        ];
        for (python, sql) in cases {
            assert_eq!(to_sql(python, Some("itself")).as_deref(), Some(sql), "{python}");
        }
    }

    #[test]
    fn what_is_not() {
        for python in [
            "",
            "fake.name()",
            "config['salt']",
            "x if y else z",
            "f'{x}'",
            "x ** 2",
            "x.unknown()",
            "md5(a, b)",
            "a b",
            "'\\n'",
            "x[0]",
            "a < None",
        ] {
            assert_eq!(to_sql(python, None), None, "{python}");
        }
    }
}
