//! What an image says about the commands that run in it.

use std::{collections::BTreeMap, path::Component};

use api::limit::{ENV_VAR_BYTES, ENV_VARS, LABEL_BYTES, LABELS, PATH_BYTES};
use serde::{Deserialize, Serialize};

use crate::{
    recipe::{Instruction, Word},
    rootfs::{PATH, WORKSPACE},
};

/// Environment, working directory and labels. Written into an image's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Environment of every command.
    pub(crate) env: BTreeMap<String, String>,
    /// Directory commands start in; absolute.
    pub(crate) workdir: String,
    /// Facts about the image, for people and programs.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Settings {
    /// What holds in a base layer: Debian's PATH, and the workspace that every base layer has.
    pub(crate) fn base() -> Self {
        Self {
            env: BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]),
            workdir: WORKSPACE.to_owned(),
            labels: BTreeMap::new(),
        }
    }

    /// Carries out an instruction that changes settings; RUN changes none.
    ///
    /// All variables of one instruction expand to what held before it, as in Docker.
    ///
    /// # Errors
    /// What is over its limit or no directory, as a sentence for the recipe's author.
    pub(crate) fn apply(&mut self, instruction: &Instruction) -> Result<(), String> {
        match instruction {
            Instruction::Run(_) => {}
            Instruction::Env(pairs) => {
                let before = self.env.clone();
                for (name, value) in pairs {
                    insert(&mut self.env, name, value.expand(&before), ENV_VARS, ENV_VAR_BYTES)?;
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    let value = value.expand(&self.env);
                    insert(&mut self.labels, name, value, LABELS, LABEL_BYTES)?;
                }
            }
            Instruction::Workdir(word) => self.workdir = self.directory(word)?,
        }
        Ok(())
    }

    /// An absolute path without `.`; a relative one starts at the working directory so far.
    fn directory(&self, word: &Word) -> Result<String, String> {
        let path = word.expand(&self.env);
        if path.is_empty() {
            return Err("the directory is empty once its variables are filled in".to_owned());
        }
        let mut clean = String::new();
        for part in std::path::Path::new(&self.workdir).join(&path).components() {
            match part {
                Component::Normal(name) => {
                    clean.push('/');
                    // Made of two `str`, so it is UTF-8 throughout.
                    clean.push_str(&name.to_string_lossy());
                }
                Component::ParentDir => return Err(format!("{path:?}: write it without ..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if clean.len() > PATH_BYTES {
            return Err(format!("a path has at most {PATH_BYTES} bytes"));
        }
        Ok(if clean.is_empty() { "/".to_owned() } else { clean })
    }
}

fn insert(
    map: &mut BTreeMap<String, String>,
    name: &str,
    value: String,
    most: usize,
    most_bytes: usize,
) -> Result<(), String> {
    if name.len() + value.len() > most_bytes {
        return Err(format!("{name} and its value have more than {most_bytes} bytes"));
    }
    map.insert(name.to_owned(), value);
    if map.len() > most {
        return Err(format!("an image has at most {most} of them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    fn settings(instructions: &str) -> Result<Settings, String> {
        let recipe = Recipe::parse(&format!("FROM x\n{instructions}")).unwrap();
        let mut settings = Settings::base();
        recipe.steps.iter().try_for_each(|step| settings.apply(&step.instruction))?;
        Ok(settings)
    }

    #[test]
    fn variables_expand_to_what_held_before_their_instruction() {
        let settings = settings("ENV A=1\nENV A=2 B=$A PATH=/x:$PATH\nLABEL l=$B-$A").unwrap();

        assert_eq!(settings.env["B"], "1");
        assert_eq!(settings.env["PATH"], format!("/x:{PATH}"));
        assert_eq!(settings.labels["l"], "1-2");
    }

    #[test]
    fn a_workdir_is_absolute_clean_and_stands_on_the_one_before() {
        for (instructions, expected) in [
            ("", "/workspace"),
            ("WORKDIR /", "/"),
            ("WORKDIR /a//b/./c/", "/a/b/c"),
            ("WORKDIR /a\nWORKDIR b", "/a/b"),
            ("ENV H=/h\nWORKDIR $H/x y", "/h/x y"),
        ] {
            assert_eq!(settings(instructions).unwrap().workdir, expected, "{instructions:?}");
        }
        for bad in ["WORKDIR ..", "WORKDIR /a/../b", "WORKDIR $NONE"] {
            assert!(settings(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_variable_that_doubles_itself_meets_the_limit() {
        let doubling = format!("ENV A={}\n{}", "x".repeat(1024), "ENV A=$A$A\n".repeat(7));

        assert!(settings(&doubling[..doubling.len() - 11 * 2]).is_ok());
        assert!(settings(&doubling).unwrap_err().contains("bytes"));
    }
}
