//! The file an image is built from: a strict subset of the Dockerfile language.
//!
//! Read: FROM (once, first), RUN (a shell command, continued lines, here-documents), ENV (both
//! forms), WORKDIR, LABEL, comments. Everything else is a fault, never ignored: a recipe that
//! parses means here what it means to Docker. All faults are reported at once, each with its line.
//!
//! Knows nothing of stores, layers or sandboxes.

use std::fmt;

use api::{
    id::ImageRef,
    limit::{COMMAND_BYTES, RECIPE_BYTES},
};

mod line;
mod word;

pub use word::Word;

/// Faults reported of one recipe; past it only their number is. A file that is no recipe at all
/// has one on each line, and nobody reads more than a screenful.
const FAULTS: usize = 50;

/// Characters of an instruction shown in progress messages.
const TITLE_CHARS: usize = 120;

/// What the language has, for messages.
const SUPPORTED: &str = "supported are FROM, RUN, ENV, WORKDIR and LABEL";

/// A parsed recipe. Every step in it is well formed; what its variables expand to is known only
/// once the base image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The image to build on.
    pub base: ImageRef,
    /// Line of FROM, from 1.
    pub base_line: usize,
    /// The instructions after FROM, in order.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it begins, from 1.
    pub line: usize,
    /// The instruction without comments and continuation marks. Goes into the keys of its layer
    /// and of all layers after it.
    pub source: String,
    /// What it says.
    pub instruction: Instruction,
}

impl Step {
    /// The instruction's first line, cut to what fits one: for progress messages. A script in a
    /// here-document does well to begin with a comment that says what it is for.
    #[must_use]
    pub fn title(&self) -> String {
        let line = self.source.lines().next().unwrap_or_default();
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.char_indices().nth(TITLE_CHARS) {
            None => words,
            Some((end, _)) => format!("{}…", &words[..end]),
        }
    }
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Run this shell text.
    Run(String),
    /// Set these variables, each to its value.
    Env(Vec<(String, Word)>),
    /// Start commands in this directory.
    Workdir(Word),
    /// Note these facts about the image.
    Label(Vec<(String, Word)>),
}

/// Something wrong in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A recipe's faults, in the order of their lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    /// The first faults.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub more: usize,
}

impl RecipeError {
    /// One fault.
    pub(crate) fn one(line: usize, message: impl Into<String>) -> Self {
        Self { faults: vec![Fault { line, message: message.into() }], more: 0 }
    }
}

impl std::error::Error for RecipeError {}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}line {}: {}", fault.line, fault.message)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl Recipe {
    /// Parses a recipe.
    ///
    /// # Errors
    /// Every fault in it, at most fifty of them spelled out.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        if text.len() > RECIPE_BYTES {
            return Err(RecipeError::one(1, format!("a recipe has at most {RECIPE_BYTES} bytes")));
        }
        let mut parser = Parser { base: None, steps: Vec::new(), faults: Vec::new() };
        for line in line::split(text, &mut parser.faults) {
            if let Err(message) = parser.instruction(&line) {
                parser.faults.push(Fault { line: line.number, message });
            }
        }
        parser.finish()
    }
}

struct Parser {
    base: Option<(usize, Option<ImageRef>)>,
    steps: Vec<Step>,
    faults: Vec<Fault>,
}

impl Parser {
    fn instruction(&mut self, line: &line::Line) -> Result<(), String> {
        let keyword = line.keyword.to_ascii_uppercase();
        if keyword == "FROM" {
            return self.from(line);
        }
        let instruction = match keyword.as_str() {
            "RUN" => Instruction::Run(command(line)?),
            "ENV" => Instruction::Env(pairs(&keyword, &line.arguments, is_variable)?),
            "LABEL" => Instruction::Label(pairs(&keyword, &line.arguments, |_| true)?),
            "WORKDIR" => Instruction::Workdir(directory(&line.arguments)?),
            _ => return Err(refusal(&keyword)),
        };
        if self.base.is_none() {
            // Said once; the instructions themselves are still checked.
            self.base = Some((line.number, None));
            self.faults.push(Fault {
                line: line.number,
                message: "a recipe begins with FROM, as in FROM debian:bookworm".to_owned(),
            });
        }
        let source = match &instruction {
            Instruction::Run(command) => format!("{keyword} {command}"),
            _ => format!("{keyword} {}", line.arguments),
        };
        self.steps.push(Step { line: line.number, source, instruction });
        Ok(())
    }

    fn from(&mut self, line: &line::Line) -> Result<(), String> {
        if self.base.is_some() {
            return Err("FROM comes once and first; builds in stages are not supported".to_owned());
        }
        // Whatever is wrong with it, it is there.
        self.base = Some((line.number, None));
        let mut words = line.arguments.split_whitespace();
        let (Some(name), None) = (words.next(), words.next()) else {
            return Err("FROM takes one image, without AS or options".to_owned());
        };
        let base = name.parse::<ImageRef>().map_err(|error| format!("{name:?}: {error}"))?;
        self.base = Some((line.number, Some(base)));
        Ok(())
    }

    fn finish(mut self) -> Result<Recipe, RecipeError> {
        if self.base.is_none() {
            self.faults.push(Fault { line: 1, message: "the recipe has no FROM".to_owned() });
        }
        if let (Some((base_line, Some(base))), true) = (self.base, self.faults.is_empty()) {
            return Ok(Recipe { base, base_line, steps: self.steps });
        }
        self.faults.sort_by_key(|fault| fault.line);
        let more = self.faults.len().saturating_sub(FAULTS);
        self.faults.truncate(FAULTS);
        Err(RecipeError { faults: self.faults, more })
    }
}

/// Why an instruction is not supported, and what to do instead where there is something.
fn refusal(keyword: &str) -> String {
    let instead = match keyword {
        "COPY" | "ADD" => {
            "takes files from beside the recipe, which a build does not see; write them with a \
             here-document in RUN, or copy them into the sandbox afterwards"
        }
        "ARG" => "is not supported; use ENV",
        "USER" => "is not supported; commands run as root of the sandbox",
        "SHELL" => "is not supported; RUN uses /bin/sh -e",
        "CMD" | "ENTRYPOINT" => {
            "is not supported; a sandbox starts nothing by itself, each command is an exec"
        }
        "EXPOSE" | "VOLUME" | "HEALTHCHECK" | "STOPSIGNAL" | "ONBUILD" | "MAINTAINER" => {
            "is not supported and can be left out"
        }
        _ => return format!("{keyword:?} is no instruction; {SUPPORTED}"),
    };
    format!("{keyword} {instead} ({SUPPORTED})")
}

fn command(line: &line::Line) -> Result<String, String> {
    let command = line.command()?;
    if command.trim().is_empty() {
        return Err("RUN needs a command".to_owned());
    }
    if command.starts_with("--") {
        return Err("RUN options such as --mount are not supported".to_owned());
    }
    if command.starts_with('[') && serde_json::from_str::<Vec<String>>(command.trim()).is_ok() {
        return Err("RUN takes a shell command, not a list of arguments".to_owned());
    }
    if command.len() > COMMAND_BYTES {
        return Err(format!("a command has at most {COMMAND_BYTES} bytes"));
    }
    if command.contains('\0') {
        return Err("a command cannot hold a NUL byte".to_owned());
    }
    Ok(command)
}

/// `NAME=value NAME="other value"`, or `NAME value to the end of the line`.
fn pairs(
    keyword: &str,
    text: &str,
    is_name: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Word)>, String> {
    let form = || format!("{keyword} takes NAME=VALUE pairs; quote values with spaces");
    let first = text.split_whitespace().next().ok_or_else(form)?;
    let pairs = if first.contains('=') {
        word::words(text)?
            .into_iter()
            .map(|word| word.split_at_equals().ok_or_else(form))
            .collect::<Result<Vec<_>, _>>()?
    } else {
        let value = text[first.len()..].trim();
        if value.is_empty() {
            return Err(form());
        }
        vec![(first.to_owned(), word::phrase(value)?)]
    };
    match pairs.iter().find(|(name, _)| name.is_empty() || name.contains('\0') || !is_name(name)) {
        Some((name, _)) => Err(format!("{name:?} is no name for {keyword}")),
        None => Ok(pairs),
    }
}

/// Letters, digits and `_`, not beginning with a digit: what a shell can name.
fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn directory(text: &str) -> Result<Word, String> {
    if text.is_empty() {
        return Err("WORKDIR needs a directory".to_owned());
    }
    word::phrase(text)
}

#[cfg(test)]
mod tests;
