//! Where a source file can be changed, and into what.

use std::{cmp::Reverse, collections::BTreeMap, ops::Range};

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::{
    Attribute, BinOp, Block, Expr, GenericArgument, Lit, Pat, PathArguments, ReturnType, Signature, Type, UnOp,
    spanned::Spanned,
    visit::{self, Visit},
};

/// A place in a source file, and what may stand there instead.
pub struct Site {
    /// Bytes of the file: an expression, or nothing at the start of a function's body.
    pub range: Range<usize>,
    pub line: usize,
    pub function: String,
    pub changes: Vec<Change>,
}

pub struct Change {
    /// For people.
    pub about: String,
    /// An expression of the same type as the one at the site or, at the start of a body, as what the function gives.
    pub text: String,
}

/// The sites of a file in their order, those inside another behind it. `functions`: only inside of these, where they are named.
pub fn find(source: &str, functions: Option<&[&str]>) -> Result<Vec<Site>> {
    let file = syn::parse_file(source).context("the file does not parse")?;
    let mut finder = Finder { source, functions, inside: Vec::new(), sites: BTreeMap::new() };
    finder.visit_file(&file);
    Ok(finder.sites.into_values().collect())
}

/// Calls whose arguments are only read by people.
const ERRORS: [&str; 5] = ["Err", "invalid", "shape_error", "spec_error", "overflow"];
/// Methods of which the same holds.
const ERROR_METHODS: [&str; 4] = ["map_err", "ok_or_else", "expect", "expect_err"];

struct Finder<'a> {
    source: &'a str,
    functions: Option<&'a [&'a str]>,
    /// Names of the functions around what is visited.
    inside: Vec<String>,
    sites: BTreeMap<(usize, Reverse<usize>), Site>,
}

impl Finder<'_> {
    fn text(&self, node: &impl Spanned) -> String {
        self.source[node.span().byte_range()].to_string()
    }

    fn wanted(&self) -> bool {
        let named = |functions: &[&str]| self.inside.iter().any(|name| functions.contains(&name.as_str()));
        !self.inside.is_empty() && self.functions.is_none_or(named)
    }

    fn add(&mut self, range: Range<usize>, span: Span, about: impl Into<String>, text: impl Into<String>) {
        if !self.wanted() {
            return;
        }
        let site = self.sites.entry((range.start, Reverse(range.end))).or_insert_with(|| Site {
            range,
            line: span.start().line,
            function: self.inside.join("::"),
            changes: Vec::new(),
        });
        let text = text.into();
        // One change by two rules, such as a condition that is a call which gives a bool, is one mutant.
        if site.changes.iter().all(|change| change.text != text) {
            site.changes.push(Change { about: about.into(), text });
        }
    }

    /// A change of an expression.
    fn change(&mut self, expr: &impl Spanned, about: impl Into<String>, text: impl Into<String>) {
        self.add(expr.span().byte_range(), expr.span(), about, text);
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, block: &Block) {
        // Nothing can be asked at compile time; and what `fmt` writes is for people.
        if is_test(attributes) || signature.constness.is_some() || signature.ident == "fmt" {
            return;
        }
        self.inside.push(signature.ident.to_string());
        let start = block.brace_token.span.open().byte_range().end;
        for value in results(&signature.output) {
            self.add(start..start, signature.ident.span(), format!("returns {value} at once"), value);
        }
        self.visit_block(block);
        self.inside.pop();
    }

    fn binary(&mut self, expr: &syn::ExprBinary) {
        if has_let(&expr.left) || has_let(&expr.right) {
            return;
        }
        let (left, right, old) = (self.text(&*expr.left), self.text(&*expr.right), self.text(&expr.op));
        let others: &[&str] = match expr.op {
            BinOp::Add(_) => &["-"],
            BinOp::Sub(_) => &["+"],
            BinOp::Mul(_) => &["+"],
            BinOp::Div(_) => &["*"],
            BinOp::Rem(_) => &["/"],
            BinOp::And(_) => &["||"],
            BinOp::Or(_) => &["&&"],
            BinOp::Shl(_) => &[">>"],
            BinOp::Shr(_) => &["<<"],
            BinOp::Eq(_) => &["!="],
            BinOp::Ne(_) => &["=="],
            BinOp::Lt(_) => &["<=", ">="],
            BinOp::Le(_) => &["<", ">"],
            BinOp::Gt(_) => &[">=", "<="],
            BinOp::Ge(_) => &[">", "<"],
            BinOp::AddAssign(_) => &["-="],
            BinOp::SubAssign(_) => &["+="],
            BinOp::MulAssign(_) => &["+="],
            BinOp::DivAssign(_) => &["*="],
            _ => &[],
        };
        let assigns = old.ends_with('=') && !["==", "!=", "<=", ">="].contains(&old.as_str());
        for new in others {
            // What is assigned to must stay as it is: parentheses would be taken for a value.
            let text = if assigns { format!("{left} {new} ({right})") } else { format!("({left}) {new} ({right})") };
            self.change(expr, format!("`{old}` becomes `{new}`"), text);
        }
        // One condition of several is left out. The left side is looked at where it is the first; else it is itself such an expression.
        if matches!(expr.op, BinOp::And(_) | BinOp::Or(_)) {
            self.change(expr, format!("without `{old} {}`", short(&right)), left.clone());
            if !matches!(&*expr.left, Expr::Binary(inner) if matches!(inner.op, BinOp::And(_) | BinOp::Or(_))) {
                self.change(expr, format!("without `{} {old}`", short(&left)), right);
            }
        }
    }

    fn unary(&mut self, expr: &syn::ExprUnary) {
        if matches!(expr.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let about = format!("without `{}`", self.text(&expr.op));
            self.change(expr, about, self.text(&*expr.expr));
        }
    }

    fn literal(&mut self, expr: &syn::ExprLit) {
        let old = self.text(expr);
        let others = match &expr.lit {
            Lit::Int(int) => match int.base10_parse::<u128>() {
                Ok(1) => vec![format!("2{}", int.suffix()), format!("0{}", int.suffix())],
                Ok(value) => vec![format!("{}{}", value + 1, int.suffix())],
                Err(_) => vec![],
            },
            Lit::Float(float) => float
                .base10_parse::<f64>()
                .map(|value| format!("{:?}{}", value + 1.0, float.suffix()))
                .into_iter()
                .collect(),
            Lit::Bool(bool) => vec![(!bool.value).to_string()],
            _ => vec![],
        };
        for new in others {
            self.change(expr, format!("`{old}` becomes `{new}`"), new);
        }
    }

    fn method(&mut self, expr: &syn::ExprMethodCall) {
        let (receiver, name) = (self.text(&*expr.receiver), expr.method.to_string());
        let arguments: Vec<String> = expr.args.iter().map(|argument| self.text(argument)).collect();
        let all = arguments.join(", ");
        let other = match name.as_str() {
            "min" => "max",
            "max" => "min",
            "checked_add" => "checked_sub",
            "checked_sub" | "checked_mul" => "checked_add",
            "wrapping_add" => "wrapping_sub",
            "wrapping_sub" => "wrapping_add",
            "saturating_sub" => "abs_diff",
            "is_some_and" => "is_none_or",
            "is_none_or" => "is_some_and",
            "any" => "all",
            "all" => "any",
            "min_by_key" => "max_by_key",
            _ => "",
        };
        if !other.is_empty() {
            self.change(expr, format!("`{name}` becomes `{other}`"), format!("({receiver}).{other}({all})"));
        }
        match (name.as_str(), &arguments[..]) {
            ("div_ceil", [by]) => self.change(expr, "`div_ceil` becomes `/`", format!("({receiver}) / ({by})")),
            ("rem_euclid", [by]) => self.change(expr, "`rem_euclid` becomes `%`", format!("({receiver}) % ({by})")),
            ("clamp", [least, most]) => {
                self.change(expr, "without the clamp's upper end", format!("({receiver}).max({least})"));
                self.change(expr, "without the clamp's lower end", format!("({receiver}).min({most})"));
            }
            ("next_multiple_of" | "saturating_add" | "saturating_mul" | "filter" | "abs", _) => {
                self.change(expr, format!("without `{name}`"), receiver.clone());
            }
            ("contains" | "is_empty" | "is_multiple_of" | "is_some" | "is_none" | "is_nan", _) => {
                self.change(expr, format!("`!` before `{name}`"), format!("!({})", self.text(expr)));
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    // What is worked out at compile time, or is no expression.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_path(&mut self, _: &'ast syn::Path) {}
    fn visit_angle_bracketed_generic_arguments(&mut self, _: &'ast syn::AngleBracketedGenericArguments) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
        self.visit_expr(&expr.expr);
    }

    /// A pattern is none either, but for its guard.
    fn visit_pat(&mut self, pat: &'ast Pat) {
        if let Pat::Guard(guarded) = pat {
            if !has_let(&guarded.guard) {
                let about = |value: bool| format!("the guard is {value}");
                self.change(&*guarded.guard, about(true), "true");
                self.change(&*guarded.guard, about(false), "false");
            }
            self.visit_expr(&guarded.guard);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let last = match &*call.func {
            Expr::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        if !last.is_some_and(|name| ERRORS.contains(&name.as_str())) {
            visit::visit_expr_call(self, call);
        }
    }

    fn visit_expr_struct(&mut self, value: &'ast syn::ExprStruct) {
        let error = value.path.segments.iter().any(|segment| segment.ident.to_string().ends_with("Error"));
        if !error {
            visit::visit_expr_struct(self, value);
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.unary(unary),
            Expr::Lit(literal) => self.literal(literal),
            Expr::MethodCall(call) => {
                if ERROR_METHODS.contains(&call.method.to_string().as_str()) {
                    return self.visit_expr(&call.receiver);
                }
                self.method(call);
            }
            // Conditions that no operator makes.
            Expr::If(choice) if matches!(&*choice.cond, Expr::Path(_) | Expr::Field(_) | Expr::Call(_)) => {
                self.change(&*choice.cond, "`!` before the condition", format!("!({})", self.text(&*choice.cond)));
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("test"))
}

/// Whether conditions bind a name, which is possible in `if` and `while` alone.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// What a function of such a result may give instead of all that it does.
fn results(output: &ReturnType) -> Vec<&'static str> {
    let ReturnType::Type(_, of) = output else { return vec![] };
    let Type::Path(path) = &**of else { return vec![] };
    let Some(last) = path.path.segments.last() else { return vec![] };
    match last.ident.to_string().as_str() {
        "bool" => vec!["true", "false"],
        "Option" => vec!["None"],
        "u32" | "u64" | "usize" => vec!["1"],
        "Result" if first_is_unit(&last.arguments) => vec!["Ok(())"],
        _ => vec![],
    }
}

fn first_is_unit(arguments: &PathArguments) -> bool {
    let PathArguments::AngleBracketed(list) = arguments else { return false };
    matches!(list.args.first(), Some(GenericArgument::Type(Type::Tuple(tuple))) if tuple.elems.is_empty())
}

/// The first line of a text, at most so long.
fn short(text: &str) -> String {
    const MOST: usize = 48;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.len() => format!("{line}…"),
        None => line.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(source: &str) -> Vec<String> {
        let sites = find(source, None).expect("sites");
        let of = |site: Site| site.changes.into_iter().map(|change| change.text).collect::<Vec<_>>();
        sites.into_iter().flat_map(of).collect()
    }

    #[test]
    fn operators_literals_and_results() {
        assert_eq!(changes("fn f(a: u32) -> bool { a < 4 }"), ["true", "false", "(a) <= (4)", "(a) >= (4)", "5"]);
        assert_eq!(changes("fn f(a: bool, b: bool) { g(!a && b) }"), ["(!a) || (b)", "!a", "b", "a"]);
        assert_eq!(changes("fn f(a: &mut u32) { *a += 3; }"), ["*a -= (3)", "4"]);
        assert_eq!(
            changes("fn f(a: u32) { g(a.div_ceil(n).min(1)) }"),
            ["(a.div_ceil(n)).max(1)", "(a) / (n)", "2", "0"]
        );
        assert_eq!(changes("fn f() { match a { b if c == d => {} _ => {} } }"), ["true", "false", "(c) != (d)"]);
    }

    #[test]
    fn what_is_left_alone() {
        for source in [
            "const A: u32 = 1 + 2;",
            "const fn f() -> u32 { 1 + 2 }",
            "#[cfg(test)] mod tests { fn f() -> u32 { 1 + 2 } }",
            "impl fmt::Display for A { fn fmt(&self) -> bool { 1 < 2 } }",
            "fn f() -> Result<u32> { Err(Error::invalid(op, format!(\"{}\", 1 + 2), 3)) }",
            "fn f() { if let Some(a) = b && c {} }",
            "fn f() { g::<2>([x; 3], vec![1 + 2]) }",
        ] {
            assert_eq!(changes(source), [""; 0], "{source}");
        }
        let source = "fn f() { g(1 + x) } fn h() { g(!x) }";
        assert_eq!(find(source, Some(&["h"])).expect("sites").len(), 1);
    }
}
