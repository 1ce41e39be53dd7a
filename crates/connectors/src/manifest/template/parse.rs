//! From text to `ast`: `minijinja` reads Jinja's syntax, and what it reads is lowered here into our own tree.
//!
//! Only its parser is used, not its values: see the decision on template semantics in `docs/adr`.

use minijinja::Value as Constant;
use minijinja::machinery::{Token, ast as jinja, parse as parse_jinja, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::arguments::{Argument, Call};
use super::ast::{Binary, Compare, Expr, Stmt, Target};
use super::error::TemplateError;
use super::{filters, predicates};

/// Tokens that can nest an expression, in one tag. The parser recurses on some of them without a bound of its own.
const MAX_OPERATORS: usize = 1_000;
/// How deep the tree may be.
const MAX_DEPTH: usize = 160;
const MAX_SOURCE: usize = 128 << 10;

type Lowered<T> = Result<T, TemplateError>;

pub(super) fn parse(source: &str) -> Lowered<Vec<Stmt>> {
    check_size(source)?;
    let tree = parse_jinja(source, "template", SyntaxConfig::default()).map_err(|error| syntax_error(&error))?;
    match &tree {
        jinja::Stmt::Template(template) => Lowering { depth: 0 }.block(&template.children),
        _ => Err(TemplateError::Syntax("it is not a template".into())),
    }
}

fn syntax_error(error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().unwrap_or("a tag or expression is malformed");
    TemplateError::Syntax(match error.line() {
        Some(line) if line > 1 => format!("{detail}, in line {line}"),
        _ => detail.to_owned(),
    })
}

fn check_size(source: &str) -> Lowered<()> {
    if source.len() > MAX_SOURCE {
        return Err(TemplateError::Syntax("it is longer than 128 KiB".into()));
    }
    let (mut operators, mut branches) = (0, 0);
    for token in tokenize(source, false, SyntaxConfig::default()) {
        match token.map_err(|error| syntax_error(&error))?.0 {
            Token::VariableStart | Token::BlockStart => operators = 0,
            Token::Ident("elif") => branches += 1,
            Token::Ident("not" | "and" | "or" | "if" | "else" | "is" | "in") => operators += 1,
            Token::TemplateData(_)
            | Token::Ident(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::BraceOpen
            | Token::BraceClose
            | Token::BracketClose
            | Token::ParenClose => {}
            _ => operators += 1,
        }
        if operators > MAX_OPERATORS || branches > MAX_DEPTH {
            return Err(too_deep());
        }
    }
    Ok(())
}

fn too_deep() -> TemplateError {
    TemplateError::Syntax("it nests too deeply".into())
}

struct Lowering {
    depth: usize,
}

impl Lowering {
    fn deeper<T>(&mut self, lower: impl FnOnce(&mut Self) -> Lowered<T>) -> Lowered<T> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep());
        }
        self.depth += 1;
        let lowered = lower(self);
        self.depth -= 1;
        lowered
    }

    fn block(&mut self, statements: &[jinja::Stmt<'_>]) -> Lowered<Vec<Stmt>> {
        self.deeper(|this| statements.iter().map(|statement| this.statement(statement)).collect())
    }

    fn statement(&mut self, statement: &jinja::Stmt<'_>) -> Lowered<Stmt> {
        Ok(match statement {
            jinja::Stmt::EmitRaw(raw) => Stmt::Text(raw.raw.into()),
            jinja::Stmt::EmitExpr(emit) => Stmt::Emit(self.expr(&emit.expr)?),
            jinja::Stmt::IfCond(branch) => Stmt::If {
                test: self.expr(&branch.expr)?,
                then: self.block(&branch.true_body)?,
                otherwise: self.block(&branch.false_body)?,
            },
            jinja::Stmt::ForLoop(each) if !each.recursive => Stmt::For {
                target: self.target(&each.target)?,
                over: self.expr(&each.iter)?,
                filter: each.filter_expr.as_ref().map(|filter| self.expr(filter)).transpose()?,
                body: self.block(&each.body)?,
                otherwise: self.block(&each.else_body)?,
            },
            jinja::Stmt::WithBlock(with) => Stmt::With {
                bindings: with
                    .assignments
                    .iter()
                    .map(|(target, value)| Ok((self.target(target)?, self.expr(value)?)))
                    .collect::<Lowered<_>>()?,
                body: self.block(&with.body)?,
            },
            jinja::Stmt::Set(set) => Stmt::Set { target: self.target(&set.target)?, value: self.expr(&set.expr)? },
            jinja::Stmt::SetBlock(set) => Stmt::Capture {
                target: Some(self.target(&set.target)?),
                filter: set.filter.as_ref().map(|filter| self.expr(filter)).transpose()?,
                body: self.block(&set.body)?,
            },
            jinja::Stmt::FilterBlock(block) => {
                Stmt::Capture { target: None, filter: Some(self.expr(&block.filter)?), body: self.block(&block.body)? }
            }
            jinja::Stmt::AutoEscape(_) | jinja::Stmt::Do(_) | jinja::Stmt::ForLoop(_) | jinja::Stmt::Template(_) => {
                return Err(TemplateError::Syntax("it uses a statement that connectors do not have".into()));
            }
        })
    }

    fn target(&mut self, target: &jinja::Expr<'_>) -> Lowered<Target> {
        self.deeper(|this| match target {
            jinja::Expr::Var(name) => Ok(Target::Name(name.id.into())),
            jinja::Expr::List(names) => Ok(Target::Unpack(names.items.iter().map(|name| this.target(name)).collect::<Lowered<_>>()?)),
            jinja::Expr::GetAttr(attribute) => match &attribute.expr {
                jinja::Expr::Var(name) => Ok(Target::Attribute(name.id.into(), attribute.name.into())),
                _ => Err(TemplateError::Syntax("only an attribute of a namespace can be set".into())),
            },
            _ => Err(TemplateError::Syntax("only a name can be set".into())),
        })
    }

    fn boxed(&mut self, expr: &jinja::Expr<'_>) -> Lowered<Box<Expr>> {
        self.expr(expr).map(Box::new)
    }

    fn expr(&mut self, expr: &jinja::Expr<'_>) -> Lowered<Expr> {
        self.deeper(|this| this.expr_here(expr))
    }

    fn expr_here(&mut self, expr: &jinja::Expr<'_>) -> Lowered<Expr> {
        Ok(match expr {
            jinja::Expr::Var(name) => Expr::Name(name.id.into()),
            jinja::Expr::Const(constant) => constant_expr(&constant.value)?,
            jinja::Expr::List(list) => Expr::List(self.exprs(&list.items)?),
            jinja::Expr::Tuple(tuple) => Expr::Tuple(self.exprs(&tuple.items)?),
            jinja::Expr::Map(map) => Expr::Dict(self.exprs(&map.keys)?.into_iter().zip(self.exprs(&map.values)?).collect()),
            jinja::Expr::GetAttr(get) => Expr::Attribute(self.boxed(&get.expr)?, get.name.into()),
            jinja::Expr::GetItem(get) => Expr::Item(self.boxed(&get.expr)?, self.boxed(&get.subscript_expr)?),
            jinja::Expr::Slice(slice) => {
                let mut part = |part: &Option<jinja::Expr<'_>>| part.as_ref().map(|part| self.expr(part)).transpose();
                let parts = Box::new([part(&slice.start)?, part(&slice.stop)?, part(&slice.step)?]);
                Expr::Slice(self.boxed(&slice.expr)?, parts)
            }
            jinja::Expr::Call(call) => Expr::Call(self.boxed(&call.expr)?, self.call(&call.args)?),
            jinja::Expr::Filter(filter) => {
                let subject = match &filter.expr {
                    Some(subject) => self.boxed(subject)?,
                    None => Box::new(Expr::Captured),
                };
                let found =
                    filters::find(filter.name).ok_or_else(|| TemplateError::Syntax(format!("there is no filter `{}`", filter.name)))?;
                Expr::Filter(subject, found, self.call(&filter.args)?)
            }
            jinja::Expr::Test(test) => {
                let found =
                    predicates::find(test.name).ok_or_else(|| TemplateError::Syntax(format!("there is no test `{}`", test.name)))?;
                Expr::Test(self.boxed(&test.expr)?, found, self.call(&test.args)?)
            }
            jinja::Expr::UnaryOp(unary) => match unary.op {
                jinja::UnaryOpKind::Not => Expr::Not(self.boxed(&unary.expr)?),
                jinja::UnaryOpKind::Neg => Expr::Negate(self.boxed(&unary.expr)?),
            },
            jinja::Expr::BinOp(binary) => self.binary(binary)?,
            jinja::Expr::Compare(compare) => Expr::Compare(
                self.boxed(&compare.expr)?,
                compare.ops.iter().map(|op| Ok((compare_kind(op.op), self.expr(&op.expr)?))).collect::<Lowered<_>>()?,
            ),
            jinja::Expr::IfExpr(branch) => Expr::If {
                test: self.boxed(&branch.test_expr)?,
                then: self.boxed(&branch.true_expr)?,
                otherwise: branch.false_expr.as_ref().map(|otherwise| self.boxed(otherwise)).transpose()?,
            },
        })
    }

    fn binary(&mut self, binary: &jinja::BinOp<'_>) -> Lowered<Expr> {
        let (left, right) = (self.boxed(&binary.left)?, self.boxed(&binary.right)?);
        let compare = |kind, left, right: Box<Expr>| Expr::Compare(left, vec![(kind, *right)]);
        Ok(match binary.op {
            jinja::BinOpKind::ScAnd => Expr::And(left, right),
            jinja::BinOpKind::ScOr => Expr::Or(left, right),
            jinja::BinOpKind::Add => Expr::Binary(Binary::Add, left, right),
            jinja::BinOpKind::Sub => Expr::Binary(Binary::Subtract, left, right),
            jinja::BinOpKind::Mul => Expr::Binary(Binary::Multiply, left, right),
            jinja::BinOpKind::Div => Expr::Binary(Binary::Divide, left, right),
            jinja::BinOpKind::FloorDiv => Expr::Binary(Binary::FloorDivide, left, right),
            jinja::BinOpKind::Rem => Expr::Binary(Binary::Remainder, left, right),
            jinja::BinOpKind::Pow => Expr::Binary(Binary::Power, left, right),
            jinja::BinOpKind::Concat => Expr::Binary(Binary::Concat, left, right),
            jinja::BinOpKind::Eq => compare(Compare::Equal, left, right),
            jinja::BinOpKind::Ne => compare(Compare::NotEqual, left, right),
            jinja::BinOpKind::Lt => compare(Compare::Less, left, right),
            jinja::BinOpKind::Lte => compare(Compare::LessOrEqual, left, right),
            jinja::BinOpKind::Gt => compare(Compare::Greater, left, right),
            jinja::BinOpKind::Gte => compare(Compare::GreaterOrEqual, left, right),
            jinja::BinOpKind::In => compare(Compare::In, left, right),
        })
    }

    fn exprs(&mut self, exprs: &[jinja::Expr<'_>]) -> Lowered<Vec<Expr>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn call(&mut self, arguments: &[jinja::CallArg<'_>]) -> Lowered<Call> {
        let arguments = arguments
            .iter()
            .map(|argument| {
                Ok(match argument {
                    jinja::CallArg::Pos(value) => Argument::Positional(self.expr(value)?),
                    jinja::CallArg::Kwarg(name, value) => Argument::Named((*name).into(), self.expr(value)?),
                    jinja::CallArg::PosSplat(value) => Argument::Splat(self.expr(value)?),
                    jinja::CallArg::KwargSplat(value) => Argument::NamedSplat(self.expr(value)?),
                })
            })
            .collect::<Lowered<_>>()?;
        Ok(Call { arguments })
    }
}

fn compare_kind(kind: jinja::CompareOpKind) -> Compare {
    match kind {
        jinja::CompareOpKind::Eq => Compare::Equal,
        jinja::CompareOpKind::Ne => Compare::NotEqual,
        jinja::CompareOpKind::Lt => Compare::Less,
        jinja::CompareOpKind::Lte => Compare::LessOrEqual,
        jinja::CompareOpKind::Gt => Compare::Greater,
        jinja::CompareOpKind::Gte => Compare::GreaterOrEqual,
        jinja::CompareOpKind::In => Compare::In,
        jinja::CompareOpKind::NotIn => Compare::NotIn,
    }
}

fn constant_expr(value: &Constant) -> Lowered<Expr> {
    use minijinja::value::ValueKind;
    Ok(match value.kind() {
        ValueKind::None | ValueKind::Undefined => Expr::None,
        ValueKind::Bool => Expr::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => {
            Expr::Int(i128::try_from(value.clone()).map_err(|_| TemplateError::Syntax("a number in it is too large".into()))?)
        }
        ValueKind::Number => {
            Expr::Float(f64::try_from(value.clone()).map_err(|_| TemplateError::Syntax("a number in it cannot be read".into()))?)
        }
        _ => Expr::Str(value.as_str().unwrap_or_default().into()),
    })
}
