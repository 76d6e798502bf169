//! The system call policy on the real kernel: what confined programs are answered.
//!
//! A filter is for ever, so each trial runs in a process of its own: this test program again, in
//! its ignored test `confined`, which loads the filters and becomes the program of the trial.
//! The programs are perl, whose `syscall` makes any call, and the C compiler's output; every
//! machine that builds this has both.

use std::{
    env,
    error::Error,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Output},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Holds what the test `confined` shall become, one argument a line.
const PROGRAM: &str = "CONFINED_PROGRAM";

/// Prints the error number of each call, 0 for one that succeeded.
const CALLS: &str = r#"
    foreach my $call (@ARGV) {
        my @words = map { /^"(.*)"$/ ? "$1" : /^0/ ? oct : $_ + 0 } split(" ", $call);
        $! = 0;
        my $result = syscall(shift @words, @words);
        print "errno ", $result == -1 ? $! + 0 : 0, "\n";
    }
"#;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const EPROTONOSUPPORT: i32 = 93;
const SIGSYS: i32 = 31;

#[test]
#[ignore = "not a test: the others start it to confine a program"]
fn confined() {
    let program = env::var(PROGRAM).expect("another test starts this one");
    let mut arguments = program.lines();
    jail::policy::confine().expect("the kernel takes the filters");
    let name = arguments.next().expect("a program");
    panic!("{name}: {}", Command::new(name).args(arguments).env_remove(PROGRAM).exec());
}

/// Runs a program under the policy.
fn run(program: &[&str]) -> Result<Output> {
    let program: Vec<String> = program.iter().map(|word| word.replace('\n', " ")).collect();
    let mut child = Command::new(env::current_exe()?);
    child.args(["--exact", "confined", "--ignored", "--nocapture"]);
    Ok(child.env(PROGRAM, program.join("\n")).output()?)
}

/// Makes calls under the policy, each in the form `NUMBER ARGUMENT...`, and gives their errors.
fn errors(calls: &[&str]) -> Result<Vec<i32>> {
    let output = run(&[&["perl", "-e", CALLS, "--"][..], calls].concat())?;
    let text = String::from_utf8(output.stdout)?;
    // The test harness of the program that became perl has printed something before.
    let numbers = text.split_once("errno ").map_or("", |(_, numbers)| numbers);
    let numbers = numbers.trim().split("\nerrno ").map(str::parse);
    let numbers = numbers.collect::<std::result::Result<Vec<i32>, _>>()?;
    assert_eq!(numbers.len(), calls.len(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    Ok(numbers)
}

/// Checks the answers to calls by their names on the architecture of this machine.
fn check(cases: &[(&str, &str, i32)]) -> Result<()> {
    let numbers: std::collections::HashMap<&str, u32> =
        jail::policy::Arch::NATIVE.calls().into_iter().collect();
    let calls: Vec<String> =
        cases.iter().map(|(name, rest, _)| format!("{} {rest}", numbers[name])).collect();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    for ((name, arguments, expected), found) in cases.iter().zip(errors(&calls)?) {
        assert_eq!(found, *expected, "{name} {arguments}");
    }
    Ok(())
}

#[test]
fn the_kernel_answers_as_the_policy_says() -> Result<()> {
    check(&[
        ("getpid", "", 0),
        ("mount", "0 0 0 0 0", EPERM),
        ("unshare", "0", EPERM),
        ("setns", "-1 0", EPERM),
        ("bpf", "0 0 0", EPERM),
        ("io_uring_setup", "1 0", EPERM),
        ("userfaultfd", "0", EPERM),
        ("keyctl", "0 0 0", EPERM),
        ("perf_event_open", "0 0 0 0 0", EPERM),
        ("fsopen", "0 0", EPERM),
        ("memfd_secret", "0", EPERM),
        ("name_to_handle_at", "0 0 0 0 0", EPERM),
        ("clone3", "0 0", ENOSYS),
        ("futex_wait", "0 0 0 0 0 0", ENOSYS),
        ("landlock_create_ruleset", "0 0 1", 0),
    ])
}

#[test]
fn numbers_nobody_knows_are_absent() -> Result<()> {
    // Above every table, and in the gap that x86-64 and arm64 share.
    assert_eq!(errors(&["600", "1023", "0x3fffffff"])?, [ENOSYS; 3]);
    Ok(())
}

#[test]
fn arguments_decide() -> Result<()> {
    check(&[
        ("socket", "1 1 0", 0),
        ("socket", "2 1 0", 0),
        ("socket", "10 0x80802 17", 0),
        ("socket", "16 3 0", 0),
        ("socket", "38 5 0", EPERM),
        ("socket", "17 3 0", EPERM),
        ("socket", "2 3 1", EPERM),
        ("socket", "16 3 12", EPROTONOSUPPORT),
        ("setsockopt", "-1 6 1 0 0", EBADF),
        ("setsockopt", "-1 6 31 0 0", EPERM),
        ("setsockopt", "-1 282 1 0 0", EPERM),
        ("ioctl", "-1 0x5401 0", EBADF),
        ("ioctl", "-1 0x5412 0", EPERM),
        ("ioctl", "-1 0x100005412 0", EPERM),
        ("clone", "0x10000011 0 0 0 0", EPERM),
        ("clone", "0x8000000010000011 0 0 0 0", EPERM),
        ("personality", "0xffffffff", 0),
        ("personality", "0x0400000", EPERM),
        ("prctl", "35 0 0 0 0", EPERM),
        ("prctl", "59 0 0 0 0", EPERM),
        ("prctl", "38 0 0 0 0", EINVAL),
        ("seccomp", "1 0 0", EFAULT),
        ("seccomp", "1 8 0", EPERM),
        ("mknodat", "-1 \"\" 0010644 0", ENOENT),
        ("mknodat", "-1 \"\" 0020644 0", EPERM),
    ])
}

#[test]
fn a_child_stays_confined() -> Result<()> {
    let output = run(&[
        "sh",
        "-c",
        "(sh -c 'grep -E \"^(Seccomp|NoNewPrivs|Seccomp_filters):\" /proc/self/status')",
    ])?;
    let text = String::from_utf8(output.stdout)?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t2"] {
        assert!(text.contains(line), "{text}");
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_other_abis_kill() -> Result<()> {
    // x32 getpid.
    let output = run(&["perl", "-e", "syscall(0x40000027)"])?;
    assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");

    // i386 getpid.
    let directory = tempfile::tempdir()?;
    let (source, program) = (directory.path().join("i386.c"), directory.path().join("i386"));
    let text = r#"int main() { int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 7 : 8; }"#;
    std::fs::write(&source, text)?;
    let compiled = Command::new("cc").arg("-o").args([&program, &source]).status()?;
    assert!(compiled.success());
    let output = run(&[program.to_str().ok_or("a path in UTF-8")?])?;
    assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");
    Ok(())
}

#[test]
fn threads_of_a_confined_program_work() -> Result<()> {
    // clone3 is absent, so that the C library starts threads with clone.
    let directory = tempfile::tempdir()?;
    let (source, program) = (directory.path().join("t.c"), directory.path().join("t"));
    let text = "#include <pthread.h>\n#include <unistd.h>\n#include <sys/wait.h>\n\
        static void *body(void *unused) { return (void *)7; }\n\
        int main(void) { pthread_t t; void *r = 0; if (pthread_create(&t, 0, body, 0)) return 1;\n\
        pthread_join(t, &r); int s = 0; pid_t c = fork(); if (c == 0) _exit(9); waitpid(c, &s, 0);\n\
        return (long)r == 7 && WEXITSTATUS(s) == 9 ? 42 : 2; }\n";
    std::fs::write(&source, text)?;
    let (source, program) =
        (source.to_str().ok_or("a path in UTF-8")?, program.to_str().ok_or("a path in UTF-8")?);
    let output = run(&["cc", "-pthread", "-o", program, source])?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(run(&[program])?.status.code(), Some(42));
    Ok(())
}

#[test]
fn the_number_of_a_skipped_call_is_no_call() -> Result<()> {
    // Tracers have a call skipped by making its number -1; on x86-64 that has the bit of x32.
    assert_eq!(errors(&["-1"])?, [ENOSYS]);
    Ok(())
}
