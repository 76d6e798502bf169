//! The language, case by case.

use std::{collections::BTreeMap, fmt::Write};

use super::*;

fn parse(text: &str) -> Recipe {
    Recipe::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Faults as `line: message`.
fn faults(text: &str) -> Vec<(usize, String)> {
    let error = Recipe::parse(text).expect_err("the recipe has faults");
    error.faults.into_iter().map(|fault| (fault.line, fault.message)).collect()
}

fn commands(text: &str) -> Vec<String> {
    let run = |step: Step| match step.instruction {
        Instruction::Run(command) => command,
        other => panic!("{other:?}"),
    };
    parse(&format!("FROM debian:bookworm\n{text}")).steps.into_iter().map(run).collect()
}

/// What ENV sets, with `A` set to `a` and `EMPTY` to nothing.
fn env(arguments: &str) -> Vec<(String, String)> {
    let recipe = parse(&format!("FROM x\nENV {arguments}"));
    let known =
        BTreeMap::from([("A".to_owned(), "a".to_owned()), ("EMPTY".to_owned(), String::new())]);
    let [Step { instruction: Instruction::Env(pairs), .. }] = &*recipe.steps else {
        panic!("{recipe:?}")
    };
    pairs.iter().map(|(name, value)| (name.clone(), value.expand(&known))).collect()
}

#[test]
fn a_recipe_is_its_base_and_its_steps_with_their_lines() {
    let recipe = parse(
        "# syntax=docker/dockerfile:1\n\nfrom debian:bookworm\n  RUN true\nENV A=1 B=2\n\
         WORKDIR /w\nLABEL a.b=c\n",
    );

    assert_eq!(recipe.base, "debian:bookworm".parse().unwrap());
    assert_eq!(recipe.base_line, 3);
    let lines: Vec<_> = recipe.steps.iter().map(|step| (step.line, step.title())).collect();
    assert_eq!(
        lines,
        [
            (4, "RUN true".to_owned()),
            (5, "ENV A=1 B=2".to_owned()),
            (6, "WORKDIR /w".to_owned()),
            (7, "LABEL a.b=c".to_owned()),
        ]
    );
}

#[test]
fn continued_lines_join_and_comments_between_them_go() {
    assert_eq!(commands("RUN a && \\\n    # why b\n    b\n"), ["a &&     b"]);
    assert_eq!(commands("RUN a \\  \n b\r\nRUN c"), ["a  b", "c"]);
    assert_eq!(commands("RUN echo '#' # shell comment"), ["echo '#' # shell comment"]);
}

#[test]
fn a_here_document_alone_is_the_script_and_beside_a_command_the_shell_s() {
    for (text, expected) in [
        ("RUN <<EOF\na\n\n# b\nc \\\nEOF", "a\n\n# b\nc \\"),
        ("RUN <<'EOF'\n$x\nEOF", "$x"),
        ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF", "a\nb"),
        ("RUN cat > f <<EOF\nx\nEOF", "cat > f <<EOF\nx\nEOF\n"),
        ("RUN cat <<A - 3<<\"B\"\nx\nA\ny\nB", "cat <<A - 3<<\"B\"\nx\nA\ny\nB\n"),
        ("RUN cat <<A <<B\nx\nA\ny\nB", "cat <<A <<B\nx\nA\ny\nB\n"),
    ] {
        assert_eq!(commands(text), [expected], "{text:?}");
    }
}

#[test]
fn a_shift_a_here_string_and_a_quoted_mark_announce_no_document() {
    for text in ["echo $((1 << 2))", "echo $((x<<y))", "cat <<<x", "echo '<<EOF' \" <<EOF\""] {
        assert_eq!(commands(&format!("RUN {text}")), [text]);
    }
}

#[test]
fn env_takes_pairs_or_one_name_and_the_rest() {
    for (arguments, expected) in [
        ("X=1", "1"),
        ("X=", ""),
        ("X 1 2", "1 2"),
        ("X \"1 2\"", "1 2"),
        ("X=\"a b\"c'd e'", "a bcd e"),
        ("X=a\\ b", "a b"),
        ("X='$A'", "$A"),
        ("X=\"$A\"", "a"),
        ("X=$A:${A}:${NONE}:$", "a:a::$"),
        ("X=${EMPTY:-d}${NONE:-e}${A:-f}", "dea"),
        ("X=${A:+yes}${NONE:+no}", "yes"),
        ("X=\\$A\"\\$A\\n\"", "$A$A\\n"),
        ("X==", "="),
        ("X=$A$1", "a$1"),
    ] {
        assert_eq!(env(arguments), [("X".to_owned(), expected.to_owned())], "{arguments:?}");
    }
    assert_eq!(env("X=1 Y=\"2 3\"  Z=4").len(), 3);
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let found = faults(
        "FROM debian:bookworm AS x\nCOPY a b\nRUN\nENV 1=2\nENV X='\nWORKDIR\nFROM y\nNONSENSE\n\
         RUN [\"a\", \"b\"]\nRUN --mount=type=cache x\nLABEL x\nENV\n",
    );

    let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    for (line, word) in
        [(2, "COPY"), (5, "quote"), (7, "stages"), (8, "supported"), (10, "--mount")]
    {
        assert!(found[line - 1].1.contains(word), "{:?}", found[line - 1]);
    }
}

#[test]
fn hostile_recipes_are_refused() {
    for (text, line) in [
        ("", 1),
        ("\n\n# nothing\n", 1),
        ("RUN true", 1),
        ("FROM", 1),
        ("FROM ../../etc", 1),
        ("FROM $X", 1),
        ("FROM a@sha256:0", 1),
        ("FROM x\nRUN a \\", 2),
        ("FROM x\nRUN a \\\n\nb", 3),
        ("FROM x\nRUN <<EOF\na", 2),
        ("FROM x\nRUN <<EOF\n#!/usr/bin/python3\nEOF", 2),
        ("FROM x\nRUN a\0b", 2),
        ("FROM x\nENV A=\0", 2),
        ("FROM x\nENV A\0=b", 2),
        ("FROM x\nENV =b", 2),
        ("FROM x\nENV A=${B", 2),
        ("FROM x\nENV A=${B:?c}", 2),
        ("FROM x\nENV A=${B:-$C}", 2),
        ("FROM x\nENV A=${}", 2),
        ("FROM x\nENV A=b\\", 2),
        ("FROM x\nENV ä=b", 2),
        ("FROM x\nUSER nobody", 2),
        ("# escape=`\nFROM x", 1),
        ("\u{feff}FROM x", 1),
    ] {
        assert_eq!(faults(text)[0].0, line, "{text:?}: {:?}", faults(text));
    }
}

#[test]
fn size_command_and_fault_list_are_bounded() {
    let exact = format!("FROM x\n#{}", "x".repeat(RECIPE_BYTES - 8));
    assert_eq!(exact.len(), RECIPE_BYTES);
    parse(&exact);
    faults(&format!("{exact}x"));

    assert_eq!(commands(&format!("RUN {}", "x".repeat(COMMAND_BYTES)))[0].len(), COMMAND_BYTES);
    faults(&format!("FROM x\nRUN {}", "x".repeat(COMMAND_BYTES + 1)));

    let mut noise = String::new();
    for _ in 0..FAULTS + 7 {
        writeln!(noise, "nonsense").unwrap();
    }
    let error = Recipe::parse(&noise).unwrap_err();
    assert_eq!((error.faults.len(), error.more), (FAULTS, 8));
    assert!(error.to_string().ends_with("and 8 more"));
}

#[test]
fn a_title_is_one_line_cut_between_characters() {
    let recipe =
        parse(&format!("FROM x\nRUN {}\nRUN <<E\n#  Tools\nb\nE\nRUN a \\\n  b", "ä".repeat(500)));

    assert_eq!(recipe.steps[0].title().chars().count(), TITLE_CHARS + 1);
    assert_eq!(recipe.steps[1].title(), "RUN # Tools");
    assert_eq!(recipe.steps[2].title(), "RUN a b");
}

#[test]
fn the_default_image_s_recipe_parses() {
    let recipe = parse(include_str!("../../../../images/default/Dockerfile"));

    assert_eq!(recipe.base, "debian:bookworm".parse().unwrap());
    assert!(matches!(recipe.steps.last().unwrap().instruction, Instruction::Workdir(_)));
}
