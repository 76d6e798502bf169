//! What the compiled filters answer, on both architectures, run as the kernel would.

use std::collections::{BTreeSet, HashMap};

use super::{
    Arch, TEXT,
    compile::{self, ABSENT, ALLOW, KILL, REFUSE},
    interpreter::{Call, run},
    text::{Alternative, ArgumentTest, Decision, Policy},
};
use sys::seccomp::{self, HIDE_CLONE3, Instruction};

/// Most calls that user code may make on x86-64, with or without conditions.
const MAX_ALLOWED: usize = 270;
/// Most instructions of the agent's filter: what is far beyond it has stopped being shared.
const MAX_LENGTH: usize = 400;
/// Garbage for the high half of an argument, which the kernel ignores and so must the filter.
const HIGH_HALVES: [u64; 3] = [0, 1 << 32, 0xffff_ffff << 32];

fn policy() -> Policy {
    Policy::parse(TEXT).expect("the policy has no faults")
}

/// What the policy says about a call, worked out without the compiler.
fn expected(decision: &Decision, arguments: &[u64; 6]) -> u32 {
    let holds = |test: &ArgumentTest| {
        let argument = arguments[usize::from(test.argument)] & u64::from(test.mask);
        let found = test.values.iter().any(|value| u64::from(*value) == argument);
        found == test.wanted
    };
    match decision {
        Decision::Allow | Decision::Agent => ALLOW,
        Decision::Refuse => REFUSE,
        Decision::Absent => ABSENT,
        Decision::Conditional(alternatives) => {
            match alternatives.iter().find(|alternative| alternative.tests.iter().all(holds)) {
                None => REFUSE,
                Some(Alternative { errno: None, .. }) => ALLOW,
                Some(Alternative { errno: Some(errno), .. }) => {
                    seccomp::ANSWER_ERRNO | u32::from(*errno)
                }
            }
        }
    }
}

/// Arguments at and past each edge of a rule: every value it names, their neighbours, each bit of
/// a mask, bits outside of it, in all combinations.
fn edges(decision: &Decision) -> Vec<[u64; 6]> {
    let Decision::Conditional(alternatives) = decision else {
        return vec![[0; 6], [u64::MAX; 6]];
    };
    let mut cases = vec![[0; 6]];
    for argument in 0..6_u8 {
        let mut values: BTreeSet<u32> = BTreeSet::new();
        let tests = alternatives.iter().flat_map(|alternative| &alternative.tests);
        for test in tests.filter(|test| test.argument == argument) {
            for value in &test.values {
                values.extend([*value, value.wrapping_sub(1), value.wrapping_add(1)]);
                values.extend([*value | !test.mask, *value ^ test.mask]);
                if test.mask != u32::MAX {
                    values.extend((0..32).map(|bit| value ^ (1 << bit)));
                }
            }
        }
        if !values.is_empty() {
            let with = |case: &[u64; 6], value: u32| {
                let mut case = *case;
                case[usize::from(argument)] = u64::from(value);
                case
            };
            let crossed =
                cases.iter().flat_map(|case| values.iter().map(|value| with(case, *value)));
            cases = crossed.collect();
        }
    }
    cases
}

/// Every call and edge that the tests below look at.
fn cases(policy: &Policy, arch: Arch) -> Vec<(Call, u32)> {
    let audit = arch.audit();
    let names: HashMap<u32, &str> = arch.calls().into_iter().map(|(name, id)| (id, name)).collect();
    let mut cases = Vec::new();
    for number in 0..1024 {
        let decision = names.get(&number).map_or(&Decision::Absent, |name| policy.decision(name));
        for arguments in edges(decision) {
            let call = Call { arch: audit, number, arguments };
            cases.push((call, expected(decision, &arguments)));
        }
    }
    let bare = |arch, number| Call { arch, number, arguments: [0; 6] };
    let x32 = if arch == Arch::X86_64 { KILL } else { ABSENT };
    for number in (0..600).map(|number| number | 0x4000_0000).chain([0x7fff_ffff, 0xffff_fffe]) {
        cases.push((bare(audit, number), x32));
    }
    for number in [1024, 0x3fff_ffff, 0x8000_0000, 0xbfff_ffff] {
        cases.push((bare(audit, number), ABSENT));
    }
    cases.push((bare(audit, u32::MAX), ALLOW));
    // i386, arm, arm64 big-endian, and the other one of ours.
    let foreign = [0x4000_0003, 0x4000_0028, 0x8000_00b7, 0, u32::MAX];
    let others = Arch::ALL.into_iter().map(Arch::audit).filter(|other| *other != audit);
    for other in foreign.into_iter().chain(others) {
        cases.extend([0, 1, 59, 60, 221].map(|number| (bare(other, number), KILL)));
    }
    cases
}

#[test]
fn every_call_is_answered_as_the_policy_says() {
    let policy = policy();
    for arch in Arch::ALL {
        let program = compile::agent_filter(&policy, arch);
        for (call, expected) in cases(&policy, arch) {
            for high in HIGH_HALVES {
                let arguments = call.arguments.map(|argument| (argument & 0xffff_ffff) | high);
                let call = Call { arguments, ..call };
                assert_eq!(run(&program, &call).answer, expected, "{arch:?} {call:x?}");
            }
        }
    }
}

#[test]
fn every_instruction_and_both_ways_of_each_comparison_are_taken() {
    let policy = policy();
    for arch in Arch::ALL {
        for program in [&compile::agent_filter(&policy, arch)[..], &HIDE_CLONE3] {
            let taken: BTreeSet<(usize, bool)> = cases(&policy, arch)
                .iter()
                .flat_map(|(call, _)| run(program, call).trace)
                .collect();
            for (at, instruction) in program.iter().enumerate() {
                let compares = [seccomp::IF_EQUAL, seccomp::IF_AT_LEAST, seccomp::IF_ANY_BIT]
                    .contains(&instruction.code);
                assert!(taken.contains(&(at, true)), "{arch:?} {at} {instruction:?}");
                assert!(!compares || taken.contains(&(at, false)), "{arch:?} {at} {instruction:?}");
            }
        }
    }
}

/// EPROTONOSUPPORT.
const NO_PROTOCOL: u32 = seccomp::ANSWER_ERRNO | 93;

/// A call by its name on x86-64 with some arguments, and the answer, written by hand: so that a
/// slip in the policy's constants is seen too.
const BY_HAND: &[(&str, [u64; 6], u32)] = &[
    ("read", [0; 6], ALLOW),
    ("mount", [0; 6], REFUSE),
    ("unshare", [0x1000_0000, 0, 0, 0, 0, 0], REFUSE),
    ("io_uring_setup", [0; 6], REFUSE),
    ("modify_ldt", [0; 6], REFUSE),
    ("memfd_secret", [0; 6], REFUSE),
    ("name_to_handle_at", [0; 6], REFUSE),
    ("futex_wait", [0; 6], ABSENT),
    ("landlock_create_ruleset", [0; 6], ALLOW),
    ("ptrace", [0; 6], ALLOW),
    ("clone3", [0; 6], ALLOW),
    // clone: SIGCHLD; a thread's flags; each namespace.
    ("clone", [0x11, 0, 0, 0, 0, 0], ALLOW),
    ("clone", [0x003d_0f00, 0, 0, 0, 0, 0], ALLOW),
    ("clone", [0x0002_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x0200_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x0400_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x0800_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x1000_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x2000_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0x4000_0011, 0, 0, 0, 0, 0], REFUSE),
    ("clone", [0xffff_ffff_1000_0011, 0, 0, 0, 0, 0], REFUSE),
    // socket: unix, inet and inet6, with flags; raw and packet types; ping; SCTP, MPTCP.
    ("socket", [1, 0x80801, 0, 0, 0, 0], ALLOW),
    ("socket", [1, 5, 0, 0, 0, 0], ALLOW),
    ("socket", [1, 3, 0, 0, 0, 0], REFUSE),
    ("socket", [2, 1, 6, 0, 0, 0], ALLOW),
    ("socket", [10, 0x80802, 17, 0, 0, 0], ALLOW),
    ("socket", [2, 2, 1, 0, 0, 0], ALLOW),
    ("socket", [10, 2, 58, 0, 0, 0], ALLOW),
    ("socket", [2, 3, 1, 0, 0, 0], REFUSE),
    ("socket", [2, 0x80803, 1, 0, 0, 0], REFUSE),
    ("socket", [2, 5, 0, 0, 0, 0], REFUSE),
    ("socket", [2, 10, 0, 0, 0, 0], REFUSE),
    ("socket", [2, 1, 132, 0, 0, 0], REFUSE),
    ("socket", [2, 1, 262, 0, 0, 0], NO_PROTOCOL),
    ("socket", [0x1_0000_0026, 5, 0, 0, 0, 0], REFUSE),
    ("socket", [17, 3, 0, 0, 0, 0], REFUSE),
    ("socket", [38, 5, 0, 0, 0, 0], REFUSE),
    ("socket", [40, 1, 0, 0, 0, 0], REFUSE),
    // netlink: routing only.
    ("socket", [16, 0x80003, 0, 0, 0, 0], ALLOW),
    ("socket", [16, 2, 0, 0, 0, 0], ALLOW),
    ("socket", [16, 3, 6, 0, 0, 0], NO_PROTOCOL),
    ("socket", [16, 3, 9, 0, 0, 0], NO_PROTOCOL),
    ("socket", [16, 3, 12, 0, 0, 0], NO_PROTOCOL),
    ("socket", [16, 2, 15, 0, 0, 0], NO_PROTOCOL),
    ("socketpair", [1, 1, 0, 0, 0, 0], ALLOW),
    ("socketpair", [30, 1, 0, 0, 0, 0], REFUSE),
    // setsockopt: TCP_NODELAY, TCP_ULP, SOL_TLS, SOL_ALG, SO_REUSEADDR, UDP_GRO, UDP_ENCAP.
    ("setsockopt", [9, 6, 1, 0, 0, 0], ALLOW),
    ("setsockopt", [9, 6, 31, 0, 0, 0], REFUSE),
    ("setsockopt", [9, 6, 0x7777_0000_001f, 0, 0, 0], REFUSE),
    ("setsockopt", [9, 282, 1, 0, 0, 0], REFUSE),
    ("setsockopt", [9, 279, 1, 0, 0, 0], REFUSE),
    ("setsockopt", [9, 1, 2, 0, 0, 0], ALLOW),
    ("setsockopt", [9, 1, 31, 0, 0, 0], ALLOW),
    ("setsockopt", [9, 17, 104, 0, 0, 0], ALLOW),
    ("setsockopt", [9, 17, 100, 0, 0, 0], REFUSE),
    // ioctl: TCGETS, TIOCSTI, TIOCLINUX, TIOCSETD, and TIOCSTI with a dirty high half.
    ("ioctl", [0, 0x5401, 0, 0, 0, 0], ALLOW),
    ("ioctl", [0, 0x5412, 0, 0, 0, 0], REFUSE),
    ("ioctl", [0, 0x541c, 0, 0, 0, 0], REFUSE),
    ("ioctl", [0, 0x5423, 0, 0, 0, 0], REFUSE),
    ("ioctl", [0, 0xdead_0000_5412, 0, 0, 0, 0], REFUSE),
    // mknod: a pipe, a socket, plain files, a block and a character device; the kernel takes the
    // mode as 16 bits.
    ("mknod", [0, 0o010_644, 0, 0, 0, 0], ALLOW),
    ("mknod", [0, 0o140_644, 0, 0, 0, 0], ALLOW),
    ("mknod", [0, 0o100_644, 0, 0, 0, 0], ALLOW),
    ("mknod", [0, 0o644, 0, 0, 0, 0], ALLOW),
    ("mknod", [0, 0o060_644, 0, 0, 0, 0], REFUSE),
    ("mknod", [0, 0o020_644, 0, 0, 0, 0], REFUSE),
    ("mknod", [0, 0x1_0000 | 0o020_644, 0, 0, 0, 0], REFUSE),
    ("mknodat", [0, 0, 0o010_644, 0, 0, 0], ALLOW),
    ("mknodat", [0, 0o010_644, 0o020_644, 0, 0, 0], REFUSE),
    ("personality", [0, 0, 0, 0, 0, 0], ALLOW),
    ("personality", [0xffff_ffff, 0, 0, 0, 0, 0], ALLOW),
    ("personality", [0x0004_0000, 0, 0, 0, 0, 0], ALLOW),
    ("personality", [0x0040_0000, 0, 0, 0, 0, 0], REFUSE),
    ("personality", [8, 0, 0, 0, 0, 0], REFUSE),
    // prctl: PR_SET_NAME, PR_SET_MM, PR_SET_SYSCALL_USER_DISPATCH, PR_SCHED_CORE,
    // PR_SET_MEMORY_MERGE, PR_SET_VMA.
    ("prctl", [15, 0, 0, 0, 0, 0], ALLOW),
    ("prctl", [35, 0, 0, 0, 0, 0], REFUSE),
    ("prctl", [59, 0, 0, 0, 0, 0], REFUSE),
    ("prctl", [62, 0, 0, 0, 0, 0], REFUSE),
    ("prctl", [67, 0, 0, 0, 0, 0], REFUSE),
    ("prctl", [0x5356_4d41, 0, 0, 0, 0, 0], ALLOW),
    // seccomp: a filter, a filter for all threads, a listener.
    ("seccomp", [1, 0, 0, 0, 0, 0], ALLOW),
    ("seccomp", [1, 1, 0, 0, 0, 0], ALLOW),
    ("seccomp", [1, 9, 0, 0, 0, 0], REFUSE),
    // arch_prctl: ARCH_SET_FS, ARCH_SET_CPUID, ARCH_SHSTK_ENABLE.
    ("arch_prctl", [0x1002, 0, 0, 0, 0, 0], ALLOW),
    ("arch_prctl", [0x1012, 0, 0, 0, 0, 0], REFUSE),
    ("arch_prctl", [0x5001, 0, 0, 0, 0, 0], REFUSE),
];

#[test]
fn calls_are_answered_as_written_by_hand() {
    for arch in Arch::ALL {
        let numbers: HashMap<&str, u32> = arch.calls().into_iter().collect();
        let program = compile::agent_filter(&policy(), arch);
        for (name, arguments, expected) in BY_HAND {
            let Some(number) = numbers.get(name) else {
                assert_eq!(arch, Arch::Aarch64, "{name}");
                continue;
            };
            let call = Call { arch: arch.audit(), number: *number, arguments: *arguments };
            assert_eq!(run(&program, &call).answer, *expected, "{arch:?} {name} {arguments:x?}");
        }
    }
}

#[test]
fn user_code_has_every_call_but_the_agents() {
    let policy = policy();
    for arch in Arch::ALL {
        for (name, number) in arch.calls() {
            let call = Call { arch: arch.audit(), number, arguments: [0; 6] };
            let agents = *policy.decision(name) == Decision::Agent;
            assert_eq!(agents, name == "clone3", "{arch:?} {name}");
            let expected = if agents { ABSENT } else { ALLOW };
            assert_eq!(run(&HIDE_CLONE3, &call).answer, expected, "{arch:?} {name}");
        }
    }
}

#[test]
fn few_calls_are_allowed() {
    let policy = policy();
    let allowed = |arch: Arch| {
        let calls = arch.calls().into_iter();
        calls
            .filter(|(name, _)| {
                matches!(policy.decision(name), Decision::Allow | Decision::Conditional(_))
            })
            .count()
    };
    println!("{} and {}", allowed(Arch::X86_64), allowed(Arch::Aarch64));
    assert!(allowed(Arch::X86_64) <= MAX_ALLOWED, "{}", allowed(Arch::X86_64));
    assert!(allowed(Arch::Aarch64) < allowed(Arch::X86_64));
}

#[test]
fn the_filter_is_short_and_simple() {
    // Of these the kernel can tell beforehand which calls are always allowed; anything else in a
    // filter would have it run for each call.
    let simple = [
        seccomp::LOAD,
        seccomp::AND,
        seccomp::JUMP,
        seccomp::IF_EQUAL,
        seccomp::IF_AT_LEAST,
        seccomp::IF_ANY_BIT,
        seccomp::RETURN,
    ];
    for arch in Arch::ALL {
        let program: Vec<Instruction> = compile::agent_filter(&policy(), arch);
        println!("{arch:?}: {} instructions", program.len());
        assert!(program.len() <= MAX_LENGTH, "{arch:?} {}", program.len());
        assert!(program.iter().all(|instruction| simple.contains(&instruction.code)));
    }
}

#[test]
fn the_tables_end_where_the_known_calls_end() {
    for arch in Arch::ALL {
        let calls = arch.calls();
        assert_eq!(calls.last().map(|call| call.0), Some("file_setattr"), "{arch:?}");
        assert!(calls.is_sorted_by_key(|call| call.1));
    }
}
