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
        ("_sandbar.warm", include_str!("python/warm.py")),
    ],
    needs: "Python 3.9 or later with IPython 8 or later (`pip install ipython`)",
};

const NODE_ARGUMENTS: [&str; 3] = ["node", "-e", include_str!("node/boot.cjs")];
const NODE_KERNEL: (&str, &str) = ("kernel", include_str!("node/kernel.cjs"));
const NODE_SHOW: (&str, &str) = ("show", include_str!("node/show.cjs"));
const NODE_TRANSLATE: (&str, &str) = ("translate", include_str!("node/translate.cjs"));

const JAVASCRIPT: Recipe = Recipe {
    program: "node",
    arguments: &NODE_ARGUMENTS,
    sources: &[("language", "javascript"), NODE_KERNEL, NODE_SHOW, NODE_TRANSLATE],
    needs: "Node 20 or later",
};

const TYPESCRIPT: Recipe = Recipe {
    sources: &[("language", "typescript"), NODE_KERNEL, NODE_SHOW, NODE_TRANSLATE],
    needs: "Node 20 or later and the package typescript 5 (`npm install --global typescript`)",
    ..JAVASCRIPT
};

impl Recipe {
    /// Python's, the one whose interpreter can be kept.
    pub(super) fn python() -> &'static Self {
        &PYTHON
    }

    /// Of a language whose interpreter is a process of its own; bash's is a session.
    pub(super) fn of(language: Language) -> Option<&'static Self> {
        match language {
            Language::Python => Some(&PYTHON),
            Language::JavaScript => Some(&JAVASCRIPT),
            Language::TypeScript => Some(&TYPESCRIPT),
            Language::Bash => None,
        }
    }

    /// The image lacks what the language needs.
    pub(super) fn unavailable(&self, language: Language, missing: &str, why: &str) -> ApiError {
        let text = format!(
            "the {language} interpreter is not available in this image: {why}; it needs {}",
            self.needs
        );
        ApiError::new(ErrorCode::InterpreterNotAvailable, text)
            .with("language", language.as_str())
            .with("missing", missing)
    }
}
