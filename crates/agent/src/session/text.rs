//! Shell text that the agent writes.
//!
//! Each builtin is called by `\builtin` and the like, so that neither aliases nor functions of the
//! session stand in its place.

use std::collections::BTreeMap;

use api::{error::ApiError, exec::Command};

use super::report::{REPORT_BYTES, Report};
use crate::process::check;

const START: &str = include_str!("start.bash");
const LOOP: &str = include_str!("loop.bash");
const TURN: &str = include_str!("turn.bash");
const REPORT: &str = include_str!("report.bash");

/// What the loop reports when it is entered: no status that a command can have.
pub(super) const ENTERED: i32 = 300;

/// Bytes of what the loop is told to source and to report, `FILE ID`: of the longest such name and the
/// longest number.
const CALL_BYTES: usize = "command ".len() + 20;

/// Characters of names and values that a shell reports at most: their bytes fit into a report.
const VARIABLES_CHARS: usize = REPORT_BYTES / 4;

/// What a shell sources that is only to come back into its loop; it is empty.
pub(super) const NOTHING: &str = "nothing";

/// What a shell sources that is to leave its loop.
pub(super) const LEAVE: &str = "leave";

/// What leaves it.
pub(super) const LEAVE_TEXT: &[u8] = b"\\builtin break\n";

/// What a shell does first.
pub(super) fn start(dir: &str) -> String {
    START.replace("@DIR@", dir)
}

/// What it does from then on.
pub(super) fn main_loop(dir: &str) -> String {
    let line = line(dir, NOTHING, 0);
    // All but the newline.
    let call_at = line.len() - 1 - CALL_BYTES;
    LOOP.replace("@TURN@", TURN)
        .replace("@ENTERED@", &REPORT.replace("@STATUS@", &ENTERED.to_string()))
        .replace("@LEFT@", &REPORT.replace("@STATUS@", "0"))
        .replace("@REPORT@", &REPORT.replace("@STATUS@", "${PIPESTATUS[0]}"))
        .replace("@LINE_BYTES@", &line.len().to_string())
        .replace("@CALL_AT@", &call_at.to_string())
        .replace("@CALL_BYTES@", &CALL_BYTES.to_string())
        .replace("@DIR@", dir)
}

/// The line that makes the loop source a file and report with this id. At the top level it is a command
/// that enters the loop; the backslash is for aliases. All lines of a shell are equally long.
pub(super) fn line(dir: &str, file: &str, id: u64) -> String {
    let digits = CALL_BYTES.saturating_sub(file.len() + 1);
    format!("\\. {dir}/loop #{file} {id:0digits$}\n")
}

/// The first line of all. What the top level prompts with is among the output of a command that is
/// thrown out to it, so bash's own prompt is taken away.
pub(super) fn begin(dir: &str, has_prompt: bool) -> String {
    let first = if has_prompt { "" } else { "\\builtin unset -v PS1; " };
    format!("{first}\\. {dir}/start; \\. {dir}/loop\n")
}

/// True when a command may run `break` or `continue` outside loops of its own, whether by their names or
/// by what it sources or evaluates.
pub(super) fn may_leave_a_loop(command: &str) -> bool {
    ["break", "continue", ". ", "source", "eval"].iter().any(|word| command.contains(word))
}

/// True when a command may have processes that read what it writes (`>(...)`), for which bash does not
/// wait.
pub(super) fn may_substitute_processes(command: &str) -> bool {
    command.contains(">(")
}

/// Ends the file that runs a command with the command's own status, unseen by traps and `set -x`.
pub(super) const RETURN_STATUS: &[u8] = b"{ \\builtin return \"${PIPESTATUS[0]}\"; } >&41 2>&41\n";

/// Gives a command what the last one left: traps, options, and `$?`. All that comes after an option
/// is on its line, because `set -v` shows the lines that follow it.
pub(super) fn before(last: &Report) -> Vec<u8> {
    let set = match last.flags.as_str() {
        "" => String::new(),
        flags => format!("\\builtin set -{flags}; "),
    };
    let status = last.status;
    let line = format!("{set}{{ \\builtin return {status}; }} >&41 2>&41\n");
    [&last.traps[..], line.as_bytes()].concat()
}

/// Reports every exported variable, or one without a name if they are over [`VARIABLES_CHARS`].
pub(super) fn report_variables(dir: &str) -> Vec<u8> {
    format!(
        r#"\builtin compgen -e >|{dir}/names
\builtin mapfile -t __sandbar_names <{dir}/names
__sandbar_left={VARIABLES_CHARS}
for __sandbar_name in "${{__sandbar_names[@]}}"; do
  [[ -v $__sandbar_name ]] || \builtin continue
  __sandbar_value=${{!__sandbar_name}}
  if (( (__sandbar_left -= ${{#__sandbar_name}} + ${{#__sandbar_value}} + 3) < 0 )); then
    \builtin printf '==\0' >&40
    \builtin break
  fi
  \builtin printf '=%s=%s\0' "$__sandbar_name" "$__sandbar_value" >&40
done
\builtin unset -v __sandbar_name __sandbar_names __sandbar_left __sandbar_value
"#
    )
    .into_bytes()
}

/// Takes back what the trap of the loop did to the session's own trap.
pub(super) fn restore_trap(dir: &str) -> Vec<u8> {
    format!("[[ -e {dir}/int ]] && \\builtin . {dir}/int\n").into_bytes()
}

/// `bytes` as one word that means nothing but itself.
pub(super) fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut word = Vec::with_capacity(bytes.len() + 2);
    word.push(b'\'');
    for byte in bytes {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            _ => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

/// A checked command as a text for the shell. Its limits are those of a command without a session.
pub(super) fn of_command(command: Command) -> Result<String, ApiError> {
    match command {
        Command::Shell(text) if text.trim().is_empty() => {
            Err(check::invalid_command("the command is empty"))
        }
        Command::Shell(text) => {
            check::check_words(std::slice::from_ref(&text))?;
            Ok(text)
        }
        Command::Program(argv) => {
            check::check_words(&argv)?;
            let words: Vec<String> = argv
                .iter()
                .map(|word| String::from_utf8_lossy(&quote(word.as_bytes())).into_owned())
                .collect();
            Ok(words.join(" "))
        }
    }
}

/// Sets and unsets variables for good, and reports the names of those that stay as they are: the session
/// has made them read-only.
pub(super) fn exports(changes: &BTreeMap<String, Option<String>>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in changes {
        match value {
            Some(value) => {
                text.extend_from_slice(format!("\\builtin export {name}=").as_bytes());
                text.extend_from_slice(&quote(value.as_bytes()));
            }
            None => text.extend_from_slice(format!("\\builtin unset -v {name}").as_bytes()),
        }
        let refused = format!(" 2>&41 || \\builtin printf '={name}=\\0' >&40\n");
        text.extend_from_slice(refused.as_bytes());
    }
    text
}

/// Variables that exist for one command only, as they stand before it.
pub(super) fn assignments(env: &BTreeMap<String, Option<String>>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in env.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(&quote(value.as_bytes()));
        text.push(b' ');
    }
    text
}

/// Unsets variables and remembers what they were, in a file that exists and is empty.
pub(super) fn hide(dir: &str, names: &[&str]) -> Vec<u8> {
    let save = |name: &&str| format!("\\builtin declare -p {name} >>{dir}/saved 2>&41\n");
    let saves: String = names.iter().map(save).collect();
    // An array, which no program gets. Cut off before it is there, nothing was unset.
    format!("{saves}__sandbar_hidden=(x)\n{}", unset(names)).into_bytes()
}

fn unset(names: &[&str]) -> String {
    names.iter().map(|name| format!("\\builtin unset -v {name}\n")).collect()
}

/// Takes [`hide`] back.
pub(super) fn show(dir: &str, names: &[&str]) -> Vec<u8> {
    let unset = unset(names);
    format!(
        "if [[ ${{__sandbar_hidden+x}} ]]; then\n{unset}\\builtin . {dir}/saved\n\
         \\builtin unset -v __sandbar_hidden\nfi\n"
    )
    .into_bytes()
}

/// Goes to `cwd` and remembers where the shell was. If that fails, nothing that follows is done.
pub(super) fn enter(cwd: &str) -> Vec<u8> {
    // A relative path is not for CDPATH.
    let path = if cwd.starts_with('/') { cwd.to_owned() } else { format!("./{cwd}") };
    let remember = b"__sandbar_at=(\"${PWD-}\" ${OLDPWD+\"$OLDPWD\"})\n\\builtin cd -- ";
    [&remember[..], &quote(path.as_bytes()), b" || \\builtin return 1\n"].concat()
}

/// In place of [`enter`] where the session's own directory was removed.
pub(super) const NOWHERE: &[u8] =
    b"\\builtin printf 'sandbar: the directory of the session was removed; \
    use cd to go to another one\\n' >&2; \\builtin return 1\n";

/// Takes [`enter`] back, to the directory that is `cwd` whatever its name is now.
pub(super) fn leave(cwd: &[u8]) -> Vec<u8> {
    let cwd = quote(cwd);
    let back = b"if [[ ${__sandbar_at+x} ]]; then\n\
        \\builtin cd -- \"${__sandbar_at[0]-}\" 2>&41\n[[ . -ef ";
    let rest = b"\nif [[ ${__sandbar_at[1]+x} ]]; then OLDPWD=${__sandbar_at[1]}; \
        else \\builtin unset -v OLDPWD; fi\n\\builtin unset -v __sandbar_at\nfi\n";
    [&back[..], &cwd, b" ]] || \\builtin cd -- ", &cwd, rest].concat()
}

/// Leads stdout and stderr of a new shell to these pipes.
pub(super) fn open_outputs(dir: &str, [stdout, stderr]: [&str; 2]) -> Vec<u8> {
    format!("\\exec 1>{dir}/{stdout} 2>{dir}/{stderr}\n").into_bytes()
}

/// Leads those of the descriptors that lead to one of the old pipes to the new one in its place.
pub(super) fn replace_outputs(dir: &str, descriptors: &[i32], pairs: [[&str; 2]; 2]) -> Vec<u8> {
    let one = |number: &i32| {
        pairs.map(|[old, new]| {
            format!("[[ /dev/fd/{number} -ef {dir}/{old} ]] && \\exec {number}>{dir}/{new}\n")
        })
    };
    descriptors.iter().flat_map(one).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    /// What bash makes of a text.
    fn bash(text: &[u8]) -> Vec<u8> {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let output = Process::new("bash").arg("-c").arg(OsStr::from_bytes(text)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn every_line_is_as_long_as_the_loop_reads_and_says_the_same_at_its_place() {
        let dir = "/run/sandbar/123";
        let text = main_loop(dir);
        assert!(!text.contains('@'), "{text}");
        for (file, id) in [("command", 0), ("step", 7), (NOTHING, u64::MAX)] {
            let line = line(dir, file, id);
            let reads = format!("read -r -N {} ", line.len());
            assert_eq!(text.matches(&reads).count(), 2, "{text}");
            let cut = text.split_once("${__sandbar:").unwrap().1.split_once('}').unwrap().0;
            let script = format!("__sandbar='{line}'; echo \"${{__sandbar:{cut}}}\"");
            let call = String::from_utf8(bash(script.as_bytes())).unwrap();
            let (name, number) = call.trim_end().split_once(' ').unwrap();
            assert_eq!((name, number.parse()), (file, Ok(id)));
        }
    }

    #[test]
    fn every_byte_survives_quoting() {
        let all: Vec<u8> = (1..=255).chain(*b"''\\'$(x)`y`\"").collect();
        assert_eq!(bash(&[&b"printf %s "[..], &quote(&all)].concat()), all);
        assert_eq!(quote(b""), b"''");
    }

    #[test]
    fn a_program_becomes_a_text_that_means_its_arguments() {
        let argv = ["printf", "%s|", "a b", "$HOME", "'", "*", ""].map(str::to_owned);
        let text = of_command(Command::Program(argv.to_vec())).unwrap();
        assert_eq!(bash(text.as_bytes()), b"a b|$HOME|'|*||");
        assert_eq!(of_command(Command::Shell("a; b".to_owned())).unwrap(), "a; b");
        assert!(of_command(Command::Shell(" ".to_owned())).is_err());
        assert!(of_command(Command::Shell("a\0".to_owned())).is_err());
    }

    #[test]
    fn variables_are_exported_and_unset() {
        let some = |value: &str| Some(value.to_owned());
        let changes = BTreeMap::from([
            ("A".to_owned(), some("1\n2'")),
            ("HOME".to_owned(), None),
            ("Z".to_owned(), some("")),
        ]);
        let open: &[u8] = b"exec 40>&1 41>/dev/null\n";
        let show = b"printf '%s|%s|%s' \"$A\" \"${HOME-gone}\" \"${Z-x}\"";
        let text = [open, &exports(&changes), show];
        assert_eq!(bash(&text.concat()), b"1\n2'|gone|");
        let text = [open, b"readonly A=1 HOME\n", &exports(&changes), b"printf %s $A"];
        assert_eq!(bash(&text.concat()), b"=A=\0=HOME=\x001");
        let text = [&assignments(&changes)[..], b"bash -c 'printf %s \"$A\"'"];
        assert_eq!(bash(&text.concat()), b"1\n2'");
    }

    #[test]
    fn a_directory_is_left_as_it_was_entered() {
        let text = [
            &b"exec 41>/dev/null; cd /; cd /tmp; "[..],
            &enter("/usr"),
            b"pwd\n",
            &leave(b"/tmp"),
            b"echo $PWD $OLDPWD ${__sandbar_at-none}; OLDPWD=; unset OLDPWD\n",
            &enter("."),
            b"pwd\n",
            &leave(b"/tmp"),
            // Once more changes nothing.
            &leave(b"/tmp"),
            b"echo $PWD ${OLDPWD-none}",
        ];
        let expected = b"/usr\n/tmp / none\n/tmp\n/tmp none\n";
        assert_eq!(
            String::from_utf8_lossy(&bash(&text.concat())),
            String::from_utf8_lossy(expected)
        );
    }

    #[test]
    fn variables_that_are_hidden_come_back_wherever_their_hiding_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let names = ["A", "B", "NONE", "C"];
        let hide = String::from_utf8(hide(path, &names)).unwrap();
        let steps = hide.split_inclusive('\n');
        for count in 0..=steps.clone().count() {
            let done: String = steps.clone().take(count).collect();
            let text = format!(
                "exec 41>/dev/null; export A=1 B='2 3'; C=4; : >{path}/saved\n{done}{0}{0}\
                 echo $A $B $C ${{NONE-none}} ${{__sandbar_hidden-none}}; export -p | grep -c ' [ABC]='",
                String::from_utf8(show(path, &names)).unwrap()
            );
            let shown = bash(text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&shown), "1 2 3 4 none none\n2\n", "{count}");
        }
    }

    #[test]
    fn outputs_are_replaced_where_they_lead_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let pairs = [["out0", "out1"], ["err0", "err1"]];
        let text = [
            format!("cd {path}; for name in out0 err0; do : >$name; done\n").into_bytes(),
            open_outputs(path, ["out0", "err0"]),
            b"exec 3>&1 4>other 5>&2 2>&1\n".to_vec(),
            replace_outputs(path, &[1, 2, 3, 4, 5, 42], pairs),
            b"for fd in 1 2 3 4 5; do echo $fd >&$fd; done\n".to_vec(),
        ];
        bash(&text.concat());
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(["out0", "err0", "err1", "other"].map(read), ["", "", "5\n", "4\n"]);
        // Each has a position of its own, as it has none in a pipe.
        assert_eq!(read("out1"), "3\n");
    }
}
