//! What an answer must be.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::body::Body;
use super::kind::Cause;
use super::message::{Broken, Response, broken};

#[derive(Debug, Clone)]
pub enum Expect {
    /// A line with the serving pid.
    Pid,
    Exactly(Arc<[u8]>),
    /// The text, with `{}` for any part of a line, and `{generation}` for one that names the
    /// generation.
    Like(Arc<Template>),
    /// What the first answer was, but for its numbers.
    First(Arc<OnceLock<Body>>),
    /// The body sent, or its SHA-256 digest in hexadecimal; else as the first answer.
    Echo {
        body: Arc<[u8]>,
        first: Arc<OnceLock<Body>>,
    },
    Anything,
}

/// Text with places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    first: String,
    /// Each place with the text after it; true where the place names the generation.
    rest: Vec<(bool, String)>,
}

impl Template {
    pub const GENERATION: &str = "{generation}";

    pub fn new(text: &str) -> Self {
        let mut template = Self { first: String::new(), rest: Vec::new() };
        let mut left = text.trim_end();
        loop {
            let place = [("{}", false), (Self::GENERATION, true)]
                .into_iter()
                .filter_map(|(word, named)| left.find(word).map(|at| (at, word, named)))
                .min();
            let (before, after) = place.map_or((left, ""), |(at, word, _)| (&left[..at], &left[at + word.len()..]));
            match template.rest.last_mut() {
                Some((_, text)) => before.clone_into(text),
                None if template.first.is_empty() => before.clone_into(&mut template.first),
                None => {}
            }
            let Some((.., named)) = place else { return template };
            template.rest.push((named, String::new()));
            left = after;
        }
    }

    pub fn names_generation(&self) -> bool {
        self.rest.iter().any(|(named, _)| *named)
    }

    /// `None`: it does not fit. Otherwise what stands for the generation.
    pub fn read<'a>(&self, body: &'a str) -> Option<Option<&'a str>> {
        let mut left = body.trim_end().strip_prefix(self.first.as_str())?;
        let mut generation = None;
        for (n, (named, text)) in self.rest.iter().enumerate() {
            let last = n + 1 == self.rest.len();
            let end = if last { left.strip_suffix(text.as_str())?.len() } else { left.find(text.as_str())? };
            let value = &left[..end];
            if value.contains('\n') {
                return None;
            }
            if *named {
                generation = Some(value);
            }
            left = &left[end + text.len()..];
        }
        left.is_empty().then_some(generation)
    }
}

impl Expect {
    /// What the answer says of who gave it.
    pub(super) fn check(&self, response: &Response) -> Result<Option<String>, Broken> {
        let Response { status, body: answer, .. } = response;
        if !(200..300).contains(status) {
            return Err(broken(Cause::Status, format!("{status} {:?}", answer.shown())));
        }
        let differs = |expected: u64| {
            let (length, shown) = (answer.length(), answer.shown());
            let detail = format!("{length} bytes that differ from the {expected} expected: {shown:?}…");
            Err(broken(Cause::WrongBody, detail))
        };
        match self {
            Self::Anything => Ok(None),
            Self::Pid => {
                let text = answer.whole().and_then(|body| std::str::from_utf8(body).ok());
                let line = text.and_then(|body| body.strip_suffix('\n'));
                let pid = line.filter(|line| line.parse::<u32>().is_ok());
                pid.map(|pid| Some(pid.to_owned()))
                    .ok_or_else(|| broken(Cause::WrongBody, format!("{:?} is no pid", answer.shown())))
            }
            Self::Exactly(body) if answer.is(body) => Ok(None),
            Self::Exactly(body) => differs(body.len() as u64),
            Self::Like(template) => {
                match answer.whole().and_then(|_| template.read(&answer.text()).map(|who| who.map(str::to_owned))) {
                    Some(generation) => Ok(generation),
                    None => Err(broken(Cause::WrongBody, format!("{:?} is not what was expected", answer.shown()))),
                }
            }
            Self::Echo { body, .. } if answer.is(body) => Ok(None),
            Self::Echo { body, first } => {
                let digest = format!("{:x}", Sha256::digest(body));
                if answer.text().to_ascii_lowercase().contains(&digest) {
                    return Ok(None);
                }
                Self::First(Arc::clone(first)).check(response)
            }
            Self::First(first) => {
                let expected = first.get_or_init(|| answer.clone());
                if answer.is_like(expected) { Ok(None) } else { differs(expected.length()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Response {
        Response { status: 200, close: false, body: body.as_bytes().into(), generation: None }
    }

    #[test]
    fn templates() {
        let read = |template: &str, body: &'static str| Template::new(template).read(body);
        assert_eq!(read("hello", "hello\n"), Some(None));
        assert_eq!(read("hello", "hello!"), None);
        assert_eq!(read("pid {}, generation {generation}\n", "pid 7, generation 12\n"), Some(Some("12")));
        assert_eq!(read("{generation}", "v1-a\n"), Some(Some("v1-a")));
        assert_eq!(read("a{}b{}c", "a1b2c"), Some(None));
        assert_eq!(read("a{}b", "a1\n2b"), None, "within a line");
        assert_eq!(read("a{}b", "ab extra"), None);
        assert!(Template::new("{generation}").names_generation() && !Template::new("x{}").names_generation());
    }

    #[test]
    fn first_answers() {
        let first = Expect::First(Arc::new(OnceLock::new()));
        assert!(first.check(&answer("pid 7, generation 9\n")).is_ok());
        assert!(first.check(&answer("pid 123, generation 10\n")).is_ok());
        assert_eq!(first.check(&answer("pid 123, gen\n")).unwrap_err().cause, Cause::WrongBody);
    }

    #[test]
    fn echoes() {
        let echo = Expect::Echo { body: (*b"abc").into(), first: Arc::new(OnceLock::new()) };
        assert!(echo.check(&answer("abc")).is_ok());
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3\n";
        assert!(echo.check(&answer(digest)).is_ok());
        assert!(echo.check(&answer("thanks")).is_ok());
        assert_eq!(echo.check(&answer("sorry")).unwrap_err().cause, Cause::WrongBody);
    }
}
