//! How each language's interpreter is started: programs that come with the agent, run by what the
//! image has.

use api::{
    error::{ApiError, ErrorCode},
    interpreter::Language,
};

/// What runs a language.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The image's program, found on `PATH`.
    pub(super) program: &'static str,
    /// Its arguments, its own name first.
    pub(super) arguments: &'static [&'static str],
    /// What it is sent first: the files of its program by name, as JSON.
    pub(super) sources: &'static [(&'static str, &'static str)],
    /// For people: what the image must have.
    needs: &'static str,
}

const PYTHON: Recipe = Recipe {
    program: "python3",
    arguments: &["python3", "-c", include_str!("python/boot.py")],
    sources: &[
        ("_sandbar", ""),
        ("_sandbar.kernel", include_str!("python/kernel.py")),
        ("_sandbar.shell", include_str!("python/shell.py")),
        ("_sandbar.chart", include_str!("python/chart.py")),
        ("_sandbar.table", include_str!("python/table.py")),
    ],
    needs: "Python 3.9 or later with IPython 8 or later (`pip install ipython`)",
};

impl Recipe {
    pub(super) fn of(language: Language) -> Result<&'static Self, ApiError> {
        match language {
            Language::Python => Ok(&PYTHON),
            Language::JavaScript | Language::TypeScript | Language::Bash => Err(unavailable(
                language,
                language.as_str(),
                "this version of the agent does not have it",
            )),
        }
    }

    /// The image lacks what the language needs.
    pub(super) fn unavailable(&self, language: Language, missing: &str, why: &str) -> ApiError {
        let text = format!("{why}; it needs {}", self.needs);
        unavailable(language, missing, &text)
    }
}

fn unavailable(language: Language, missing: &str, why: &str) -> ApiError {
    let text = format!("the {language} interpreter is not available in this image: {why}");
    ApiError::new(ErrorCode::InterpreterNotAvailable, text)
        .with("language", language.as_str())
        .with("missing", missing)
}
