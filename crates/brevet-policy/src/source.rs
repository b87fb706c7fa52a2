//! Splits a policy file into single policies, so that each has a line: Cedar's public API gives no locations.
//!
//! Only as much of Cedar's lexical grammar is known here as it takes to find the `;` that ends a policy: strings
//! and comments. The pieces put together are the file, so Cedar sees every byte, and a misjudged boundary could
//! only make Cedar refuse a piece.

use std::iter;

/// One policy's part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// From the end of the policy before up to and with the `;`: comments and blank lines before the policy are
    /// its own.
    pub(crate) text: &'a str,
    /// The line of the first thing that is neither blank nor comment, counted from one.
    pub(crate) line: u32,
    /// How deep its brackets nest.
    pub(crate) nesting: usize,
}

/// The policies of a file in order. What follows the last `;` is a piece only if it is more than blanks and
/// comments.
pub(crate) fn pieces(mut rest: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut line = 1;
    iter::from_fn(move || {
        let Extent { bytes, first_line, end_line, nesting } = extent(rest, line);
        let (text, after) = rest.split_at_checked(bytes)?;
        (rest, line) = (after, end_line);
        Some(Piece { text, line: first_line?, nesting })
    })
}

struct Extent {
    bytes: usize,
    first_line: Option<u32>,
    end_line: u32,
    nesting: usize,
}

#[derive(Clone, Copy)]
enum State {
    Code,
    /// After a `/` that may begin a comment.
    Slash,
    Comment,
    String,
    /// After a backslash in a string.
    Escape,
}

/// How far the policy at the beginning of `text` reaches.
fn extent(text: &str, mut line: u32) -> Extent {
    let mut state = State::Code;
    let mut first_line = None;
    let (mut open, mut nesting) = (0_usize, 0);
    for (at, byte) in text.bytes().enumerate() {
        let after_slash = matches!(state, State::Slash);
        state = match (state, byte) {
            (State::Code | State::Slash, b';') => {
                let first_line = first_line.or(Some(line));
                return Extent { bytes: at + 1, first_line, end_line: line, nesting };
            }
            (State::Slash, b'/') => State::Comment,
            (State::Code, b'/') => State::Slash,
            (State::Code | State::Slash, b'"') => State::String,
            (State::Comment, b'\n' | b'\r') | (State::String, b'"') => State::Code,
            (State::String, b'\\') => State::Escape,
            (State::Escape, _) => State::String,
            (State::Comment | State::String, _) => state,
            (State::Code | State::Slash, _) => State::Code,
        };
        let blank = matches!(state, State::Slash | State::Comment) || byte.is_ascii_whitespace();
        if !blank || (after_slash && !matches!(state, State::Comment)) {
            first_line = first_line.or(Some(line));
        }
        if matches!(state, State::Code) {
            match byte {
                b'(' | b'[' | b'{' => open += 1,
                b')' | b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            nesting = nesting.max(open);
        }
        if byte == b'\n' {
            line = line.saturating_add(1);
        }
    }
    if matches!(state, State::Slash) {
        first_line = first_line.or(Some(line));
    }
    Extent { bytes: text.len(), first_line, end_line: line, nesting }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<(&str, u32)> {
        pieces(text).map(|piece| (piece.text, piece.line)).collect()
    }

    #[test]
    fn a_policy_ends_at_a_semicolon_outside_strings_and_comments() {
        assert_eq!(split("permit;"), [("permit;", 1)]);
        assert_eq!(split("a;b;"), [("a;", 1), ("b;", 1)]);
        assert_eq!(
            split("// a; b\n\n@id(\"x;\\\";\")\npermit; // c;\n"),
            [("// a; b\n\n@id(\"x;\\\";\")\npermit;", 3)]
        );
        assert_eq!(
            split("a // x;\n / \"\n//\" ;\n;\nb;"),
            [("a // x;\n / \"\n//\" ;", 1), ("\n;", 4), ("\nb;", 5)]
        );
    }

    #[test]
    fn a_carriage_return_ends_a_comment_as_it_does_in_cedar() {
        assert_eq!(split("// a\rb;\r\nc;"), [("// a\rb;", 1), ("\r\nc;", 2)]);
    }

    #[test]
    fn blanks_and_comments_are_no_policy_but_an_unfinished_one_is() {
        assert_eq!(split(""), []);
        assert_eq!(split(" \n // nothing; here"), []);
        assert_eq!(split("a;\n\npermit"), [("a;", 1), ("\n\npermit", 3)]);
        assert_eq!(split("\n\"a;"), [("\n\"a;", 2)]);
        assert_eq!(split("/"), [("/", 1)]);
        assert_eq!(split("/\n"), [("/\n", 1)]);
        assert_eq!(split("\n/ x"), [("\n/ x", 2)]);
    }

    #[test]
    fn only_brackets_of_the_policy_itself_nest() {
        let nesting = |text| pieces(text).map(|piece| piece.nesting).collect::<Vec<_>>();
        assert_eq!(nesting("a;([{}]);()[];\"((\" // ((\n;/(("), [0, 3, 1, 0, 2]);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_file(text in "([;\"/\\\\\\s a\u{e9}]|//){0,40}") {
            let whole: String = pieces(&text).map(|piece| piece.text).collect();
            let rest = text.strip_prefix(whole.as_str());
            prop_assert!(rest.is_some_and(|rest| pieces(rest).next().is_none()));
        }
    }
}
