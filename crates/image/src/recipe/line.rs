//! Cuts a recipe into instructions: comments, continued lines, here-documents.

use super::Fault;

/// One instruction, its lines joined.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    /// Its first word.
    pub(super) keyword: String,
    /// What follows the first word, without spaces around it.
    pub(super) arguments: String,
    /// The here-documents that its arguments announce, in order.
    documents: Vec<Document>,
}

/// A here-document: `<<NAME`, its lines, `NAME`.
#[derive(Debug)]
struct Document {
    name: String,
    /// `<<-`: leading tabs are no part of the lines.
    is_indented: bool,
    lines: Vec<String>,
}

impl Line {
    /// The shell text of a RUN.
    ///
    /// `RUN <<EOF` alone makes the document the script; beside a command the document is the
    /// shell's to read.
    pub(super) fn command(&self) -> Result<String, String> {
        if let ([document], true) = (&*self.documents, self.is_document_alone()) {
            let untabbed = |line: &String| line.trim_start_matches('\t').to_owned();
            let lines: Vec<_> = match document.is_indented {
                true => document.lines.iter().map(untabbed).collect(),
                false => document.lines.clone(),
            };
            let script = lines.join("\n");
            return if script.starts_with("#!") {
                Err("a here-document is run by /bin/sh; it cannot name another program".to_owned())
            } else {
                Ok(script)
            };
        }
        let mut text = self.arguments.clone();
        for document in &self.documents {
            for line in document.lines.iter().chain([&document.name]) {
                text.push('\n');
                text.push_str(line);
            }
        }
        if !self.documents.is_empty() {
            text.push('\n');
        }
        Ok(text)
    }

    fn is_document_alone(&self) -> bool {
        self.arguments.starts_with("<<") && !self.arguments.contains(char::is_whitespace)
    }
}

/// Cuts `text` into instructions; what cannot be cut goes to `faults`.
pub(super) fn split(text: &str, faults: &mut Vec<Fault>) -> Vec<Line> {
    let mut source = Source { lines: text.lines().collect(), next: 0 };
    let mut found = Vec::new();
    while let Some((number, first)) = source.take() {
        if is_comment(first) {
            if is_other_escape(first) {
                faults.push(Fault {
                    line: number,
                    message: "the escape character is the backslash, no other".to_owned(),
                });
            }
            continue;
        }
        if first.trim().is_empty() {
            continue;
        }
        let mut fault = |line, message: String| faults.push(Fault { line, message });
        let text = source.join(first, &mut fault);
        let text = text.trim();
        let (keyword, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let mut line = Line {
            number,
            keyword: keyword.to_owned(),
            arguments: arguments.trim().to_owned(),
            documents: Vec::new(),
        };
        if keyword.eq_ignore_ascii_case("RUN") {
            for (name, is_indented) in announced(&line.arguments) {
                let lines = source.document(&name, is_indented).unwrap_or_else(|| {
                    fault(number, format!("the here-document {name} has no end"));
                    Vec::new()
                });
                line.documents.push(Document { name, is_indented, lines });
            }
        }
        found.push(line);
    }
    found
}

struct Source<'a> {
    lines: Vec<&'a str>,
    /// Index of the line that comes next.
    next: usize,
}

impl<'a> Source<'a> {
    /// The next line and its number, from 1.
    fn take(&mut self) -> Option<(usize, &'a str)> {
        let line = self.lines.get(self.next)?;
        self.next += 1;
        Some((self.next, line))
    }

    /// `first` with the lines that continue it.
    fn join(&mut self, first: &str, fault: &mut impl FnMut(usize, String)) -> String {
        let mut text = String::new();
        let mut part = first;
        let mut number = self.next;
        while let Some(head) = part.trim_end().strip_suffix('\\') {
            text.push_str(head);
            part = loop {
                let Some((at, line)) = self.take() else {
                    fault(number, "the file ends in a continued line".to_owned());
                    return text;
                };
                number = at;
                if line.trim().is_empty() {
                    fault(at, "an empty line inside a continued instruction".to_owned());
                } else if !is_comment(line) {
                    break line;
                }
            };
        }
        text.push_str(part);
        text
    }

    /// The lines up to `name`; `None` when the file ends first.
    fn document(&mut self, name: &str, is_indented: bool) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let (_, line) = self.take()?;
            let end = if is_indented { line.trim_start_matches('\t') } else { line };
            if end == name {
                return Some(lines);
            }
            lines.push(line.to_owned());
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `# escape=` with something else than a backslash: a parser directive that changes the language.
fn is_other_escape(comment: &str) -> bool {
    let directive = comment.trim_start().trim_start_matches('#').trim();
    let value = directive.split_once('=').filter(|(name, _)| name.trim() == "escape");
    value.is_some_and(|(_, value)| value.trim() != "\\")
}

/// Names of the here-documents that a command announces, each with whether it is `<<-`.
///
/// A mark stands outside quotes at the start of a word, as Docker has it, so that a shift in
/// shell arithmetic or a here-string is none.
fn announced(command: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut word_starts = true;
    let mut rest = command;
    while let Some(c) = rest.chars().next() {
        if quote.is_none()
            && word_starts
            && let Some((name, is_indented, after)) = mark(rest)
        {
            found.push((name, is_indented));
            rest = after;
            word_starts = false;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match (quote, c) {
            (None | Some('"'), '\\') => rest = rest.get(1..).unwrap_or(rest),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        word_starts = quote.is_none() && c.is_whitespace();
    }
    found
}

/// Reads `<<NAME`, `<<-NAME`, `<<"NAME"` or `<<'NAME'`, after a descriptor's number perhaps: the
/// name, whether `-`, what follows.
fn mark(text: &str) -> Option<(String, bool, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (text, is_indented) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let text = if quote.is_some() { &text[1..] } else { text };
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let after = match quote {
        Some(quote) => after.strip_prefix(quote)?,
        None => after,
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_name.then(|| (name.to_owned(), is_indented, after))
}
