//! Cuts Rust source into tokens: enough of the grammar to read paths and the names of items.

/// The words and marks of the source, without comments, strings and whatever is only for tests.
///
/// `::` is one token, each other mark is one of its own; literals are left out, lifetimes too.
pub(crate) fn code(source: &str) -> Vec<&str> {
    split(&all(source)).0
}

/// The words and marks of that which is only for tests.
pub(crate) fn tests(source: &str) -> Vec<&str> {
    split(&all(source)).1
}

/// The words and marks of the whole source.
pub(crate) fn all(source: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(c) = rest.chars().next() {
        let length = literal(rest).unwrap_or_else(|| {
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let length = if word > 0 { word } else { mark(rest, c) };
            if !c.is_whitespace() {
                found.push(&rest[..length]);
            }
            length
        });
        rest = &rest[length..];
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn mark(rest: &str, first: char) -> usize {
    if rest.starts_with("::") { 2 } else { first.len_utf8() }
}

/// The length of the comment, string, character or lifetime that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        return Some(comment.find("*/").map_or(rest.len(), |at| at + 4));
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|p| {
        rest.strip_prefix(p).is_some_and(|r| r.starts_with(['"', '\'']) || (p.ends_with('r') && is_raw(r)))
    })?;
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.find('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let text = &body[hashes + 1..];
        return Some(prefix.len() + hashes + 1 + text.find(&end).map_or(text.len(), |at| at + end.len()));
    }
    if let Some(text) = body.strip_prefix('"') {
        return Some(prefix.len() + 1 + closing(text, '"'));
    }
    let text = &body[1..];
    let character = text.starts_with('\\') || text.chars().nth(1) == Some('\'');
    let length = if character { closing(text, '\'') } else { text.find(|c| !is_word(c)).unwrap_or(text.len()) };
    Some(prefix.len() + 1 + length)
}

fn is_raw(rest: &str) -> bool {
    let quoted = rest.trim_start_matches('#');
    quoted.len() < rest.len() && quoted.starts_with('"')
}

/// The length of what stands before the end of a literal, and of the mark that ends it.
fn closing(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            c if c == end && !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Tells from the others the items that stand under a `#[cfg(test)]`, or under one that names
/// `test` among others.
fn split<'a>(tokens: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut kept, mut of_tests, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        let conditions = [&["test", ")"][..], &["all", "(", "test", ","]];
        let cfg = tokens[at..].strip_prefix(&["#", "[", "cfg", "("]);
        if cfg.is_some_and(|cfg| conditions.iter().any(|test| cfg.starts_with(test))) {
            let end = end_of_item(tokens, at);
            of_tests.extend(&tokens[at..end]);
            at = end;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    (kept, of_tests)
}

/// The end of the item that begins at `at`: its `;` or its `}` outside of all brackets.
fn end_of_item(tokens: &[&str], at: usize) -> usize {
    let mut depth = 0;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth < 0 || (depth == 0 && matches!(*token, ";" | "}" | ",")) {
            // What ends the surrounding block is not ours; a `use a::{b};` ends at its semicolon.
            let own = usize::from(depth == 0) + usize::from(tokens.get(n + 1) == Some(&";"));
            return n + own;
        }
    }
    tokens.len()
}

#[test]
fn literals_and_tests_are_left_out() {
    let source = r##"
        use a::{b, c}; // crate::d
        /* crate::e */ fn f<'x>(q: char) -> &'x str { g("crate::\"h", 'i', '\'', b"j", r#"k"l"#) }
        #[cfg(test)]
        use m::{n, o};
        #[cfg(test)]
        mod tests { use p; }
        #[cfg(all(test, feature = "s"))]
        mod more_tests { use t; }
        fn r() {}
    "##;
    let told = code(source).join(" ");
    assert_eq!(told, "use a :: { b , c } ; fn f < > ( q : char ) - > & str { g ( , , , , ) } fn r ( ) { }");
    assert!(tests(source).join(" ").ends_with("mod more_tests { use t ; }"));
}
