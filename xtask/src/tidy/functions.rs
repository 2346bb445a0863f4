//! Lengths of functions in formatted source: a function ends at the first brace that stands where its `fn` line begins.

/// A function with its place and length.
#[derive(Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// The line of its signature, from 1.
    pub line: usize,
    /// Lines from there to its closing brace.
    pub lines: usize,
}

/// Functions of more than `max` lines.
pub fn longer_than(text: &str, max: usize) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &&str| {
            let Some(rest) = line.strip_prefix(indent) else { return false };
            rest == "}" || (rest.starts_with(')') && rest.ends_with(';'))
        };
        // One line, or a signature without a body.
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let Some(length) = lines[i..].iter().position(is_end) else { continue };
        if length + 1 > max {
            found.push(Function { name, line: i + 1, lines: length + 1 });
        }
    }
    found
}

/// The name, if a function's signature begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    loop {
        if let Some(rest) = words.strip_prefix("fn ") {
            return rest.split(['(', '<']).next();
        }
        let (word, rest) = words.split_once(' ')?;
        let is_qualifier = word.starts_with("pub") || matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "default");
        if !is_qualifier {
            return None;
        }
        words = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let text = "\
//! X.
impl X {
    pub(crate) async fn four(
        &self,
    ) {
        if x {
        }
    }
    fn one() {}
    fn declared(&self) -> u8;
    fn wide(
        &self,
    );
}
/// fn doc() {
const fn three<T>() {
    g();
}
";
        let all = longer_than(text, 0);
        let expected = [("four", 3, 6), ("wide", 11, 3), ("three", 16, 3)];
        assert_eq!(all.iter().map(|f| (f.name, f.line, f.lines)).collect::<Vec<_>>(), expected);
        assert_eq!(longer_than(text, 5).len(), 1);
        assert_eq!(longer_than(text, 6), []);
    }

    #[test]
    fn names() {
        let check = |line, expected| assert_eq!(function_name(line), expected, "{line}");
        check("fn a() {", Some("a"));
        check("    pub unsafe extern \"C\" fn b<T>(", Some("b"));
        check("    let f = fn_like();", None);
        check("// fn c() {", None);
        check("", None);
    }
}
