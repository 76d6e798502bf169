//! Words of ENV, LABEL and WORKDIR: quotes, escapes and variables.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// A text with variables in it, to be filled in when the environment is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable {
        name: String,
        /// `${NAME:-text}`: what an unset or empty variable stands for.
        otherwise: Option<String>,
        /// `${NAME:+text}`: what any other variable stands for.
        instead: Option<String>,
    },
}

impl Word {
    /// The text, with variables from `env`; a variable that is not there is empty.
    #[must_use]
    pub fn expand(&self, env: &BTreeMap<String, String>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Variable { name, otherwise, instead } => {
                    let value = env.get(name).map(String::as_str).filter(|value| !value.is_empty());
                    let value = match value {
                        Some(value) => instead.as_deref().unwrap_or(value),
                        None => otherwise.as_deref().unwrap_or(""),
                    };
                    text.push_str(value);
                }
            }
        }
        text
    }

    /// `NAME=rest` as its two sides; `None` when it has no such form.
    pub(super) fn split_at_equals(mut self) -> Option<(String, Self)> {
        let Some(Piece::Text(first)) = self.0.first_mut() else { return None };
        let (name, value) = first.split_once('=')?;
        let (name, value) = (name.to_owned(), value.to_owned());
        *first = value;
        Some((name, self))
    }

    fn push(&mut self, c: char) {
        if let Some(Piece::Text(text)) = self.0.last_mut() {
            text.push(c);
        } else {
            self.0.push(Piece::Text(c.to_string()));
        }
    }
}

/// Cuts `text` into words at spaces outside quotes.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut chars = text.chars().peekable();
    let mut words = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        words.push(word(&mut chars, char::is_whitespace)?);
    }
}

/// Reads all of `text` as one word, spaces included.
pub(super) fn phrase(text: &str) -> Result<Word, String> {
    word(&mut text.chars().peekable(), |_| false)
}

fn word(chars: &mut Peekable<Chars<'_>>, ends: fn(char) -> bool) -> Result<Word, String> {
    let mut word = Word::default();
    let mut quote = None;
    while let Some(c) = chars.next_if(|c| quote.is_some() || !ends(*c)) {
        match (quote, c) {
            (_, '\0') => return Err("a NUL byte".to_owned()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (Some('\''), _) => word.push(c),
            (_, '$') => variable(chars, &mut word)?,
            (None, '\\') => word.push(chars.next().ok_or("nothing follows the backslash")?),
            (Some(_), '\\') => {
                // Inside double quotes a backslash stands for itself before anything else.
                let escaped = chars.next_if(|c| matches!(c, '"' | '$' | '\\'));
                word.push(escaped.unwrap_or('\\'));
            }
            _ => word.push(c),
        }
    }
    match quote {
        Some(open) => Err(format!("a quote {open} is not closed")),
        None => Ok(word),
    }
}

/// Reads what follows a `$`.
fn variable(chars: &mut Peekable<Chars<'_>>, word: &mut Word) -> Result<(), String> {
    if chars.next_if_eq(&'{').is_none() {
        let name = name(chars);
        if name.is_empty() {
            word.push('$');
        } else {
            word.0.push(Piece::Variable { name, otherwise: None, instead: None });
        }
        return Ok(());
    }
    let name = name(chars);
    let body: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
    if chars.next().is_none() {
        return Err("a ${ is not closed".to_owned());
    }
    let text = |rest: &str| Some(rest.to_owned());
    let (otherwise, instead) = if let Some(rest) = body.strip_prefix(":-") {
        (text(rest), None)
    } else if let Some(rest) = body.strip_prefix(":+") {
        (None, text(rest))
    } else {
        (None, None)
    };
    let is_plain = body.is_empty() || otherwise.is_some() || instead.is_some();
    if name.is_empty() || !is_plain || body.contains(['$', '"', '\'', '\\']) {
        return Err(format!(
            "${{{name}{body}}}: supported are ${{NAME}}, ${{NAME:-text}} and ${{NAME:+text}}"
        ));
    }
    word.0.push(Piece::Variable { name, otherwise, instead });
    Ok(())
}

fn name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| {
        c.is_ascii_alphabetic() || *c == '_' || (!name.is_empty() && c.is_ascii_digit())
    }) {
        name.push(c);
    }
    name
}
