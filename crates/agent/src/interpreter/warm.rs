//! Warm starts: a started interpreter in a file, from which others go on.
//!
//! Python that has pandas, matplotlib and IPython loaded takes the better part of a second to start.
//! So a step of an image's build has an interpreter start, do what most code does first, and keep
//! its memory in a file of the image. A context whose interpreter starts in a sandbox of that image
//! maps the file in place of starting: see `sys::resume` and `python/warm.py`. It is a child of the
//! agent like any, in its own cgroup, under the same filter, with no descriptor but its own.
//!
//! The file belongs to the sandbox, which can put anything into it: whoever goes on from it is one
//! of its commands. Nothing in the agent reads it.
//!
//! Owns: the file's place and its head. Does not: know when a context may use it. Where one does not
//! fit, the process that was to go on ends, and the interpreter starts from the beginning.

use std::{
    ffi::CString, fs::File, num::NonZeroUsize, os::fd::AsFd as _, path::Path, process::ExitCode,
};

use sha2::{Digest as _, Sha256};
use sys::resume::{Segment, Soon, processor, resume, stop_code};

use super::language::Recipe;

/// Where the file is in a sandbox.
const PATH: &str = "/var/cache/sandbar/python";

/// The argument with which the agent's program becomes the process of the file.
pub const ARGUMENT: &str = "__resume";

/// The module that `warm.py` is asked by.
pub(super) const REQUEST: &str = "_sandbar.keep";

/// Bytes before the first page of memory.
const HEADER_BYTES: usize = 64 * 1024;

/// What the file begins with.
const MAGIC: &[u8; 8] = b"SANDWARM";

/// Exit code of a process that cannot go on from the file. Nobody sees it: it is told apart from
/// others for who looks with strace.
const UNFIT_CODE: u8 = 75;

/// Variables of the process that is kept, which must have one thread and must not have told the
/// kernel of any place in its memory.
pub(super) const VARIABLES: [(&str, &str); 3] = [
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("GLIBC_TUNABLES", "glibc.pthread.rseq=0"),
];

/// What most code imports, kept where the image has it.
const COMMON: [&str; 5] =
    ["numpy", "pandas", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "stack_data"];

/// What one that goes on from a new file is asked for, so that it is known which pages it writes to
/// before it is ready, which are there at once for who comes later, and which for the first code, which
/// are there when that comes.
pub(super) const REHEARSAL: [&str; 3] =
    [r#"{"op":"note"}"#, r#"{"op":"run","id":0,"code":"1 + 1"}"#, r#"{"op":"note"}"#];

/// There is a file to go on from.
pub(super) fn is_there() -> bool {
    Path::new(PATH).is_file()
}

/// The program that goes on from the file, and its arguments.
pub(super) fn program() -> (CString, [CString; 2]) {
    // In a child of the agent, before its exec, that is the agent's own program.
    (c"/proc/self/exe".to_owned(), [c"python3".to_owned(), CString::new(ARGUMENT).expect("no NUL")])
}

/// What `warm.py` is told, as Python; none where no interpreter can be kept.
pub(super) fn request(recipe: &Recipe, imports: &[String]) -> Option<String> {
    let code = hex(stop_code()?);
    let fingerprint = hex(&fingerprint(recipe));
    // Texts and lists of texts are the same in JSON and in Python.
    let json = |value: &[String]| serde_json::to_string(value).expect("texts are JSON");
    let optional = json(&COMMON.map(str::to_owned));
    let added = json(&VARIABLES.map(|(name, _)| name.to_owned()));
    let magic = hex(MAGIC);
    let imports = json(&[&COMMON.map(str::to_owned)[..], imports].concat());
    Some(format!(
        "PATH = \"{PATH}\"\nCODE = bytes.fromhex(\"{code}\")\n\
         FINGERPRINT = bytes.fromhex(\"{fingerprint}\")\nIMPORTS = {imports}\n\
         OPTIONAL = {optional}\nUNFIT_CODE = {UNFIT_CODE}\nADDED = {added}\n\
         MAGIC = bytes.fromhex(\"{magic}\")\nHEADER_BYTES = {HEADER_BYTES}\n"
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What must be the same where a file was made and where it is used: the agent's own program and
/// the processor.
fn fingerprint(recipe: &Recipe) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, source) in recipe.sources {
        hash.update(name);
        hash.update([0]);
        hash.update(source);
        hash.update([0]);
    }
    for word in processor() {
        hash.update(word.to_le_bytes());
    }
    hash.finalize().into()
}

/// Names all that a warm start must have been made by to be of use to this program, here.
#[must_use]
pub fn version() -> String {
    hex(&fingerprint(Recipe::python()))
}

/// Becomes the process of the file, in a child of the agent.
#[must_use]
pub fn main() -> ExitCode {
    // Whatever is wrong: the agent sees the end, and starts an interpreter from the beginning.
    let failed = ExitCode::from(UNFIT_CODE);
    let Ok(file) = File::open(PATH) else { return failed };
    let Some(head) = read_head(&file) else { return failed };
    for signal in 1..=sys::signal::LAST {
        // Fails, as it should, for KILL and STOP.
        sys::signal::default_action(signal).unwrap_or_default();
    }
    match resume(file.as_fd(), &head.segments, &head.soon, head.registers) {
        Ok(never) => match never {},
        Err(_refused) => failed,
    }
}

/// What is in the head.
struct Head {
    registers: usize,
    segments: Vec<Segment>,
    soon: Vec<Soon>,
}

/// The head: magic, fingerprint, where the registers are, the number of segments, the segments, the
/// number of ranges that are written soon, the ranges; and what is for `warm.py` alone.
fn read_head(file: &File) -> Option<Head> {
    let mut head = vec![0; HEADER_BYTES];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0).ok()?;
    let (magic, rest) = head.split_first_chunk::<8>()?;
    let (made_by, rest) = rest.split_first_chunk::<32>()?;
    if magic != MAGIC || *made_by != fingerprint(Recipe::python()) {
        return None;
    }
    let mut words = rest
        .as_chunks::<8>()
        .0
        .iter()
        .map_while(|word| usize::try_from(u64::from_le_bytes(*word)).ok());
    let registers = words.next()?;
    let mut segments = Vec::new();
    for _ in 0..words.next()? {
        let (address, length) = (words.next()?, NonZeroUsize::new(words.next()?)?);
        let (offset, access) = (words.next()?, words.next()?);
        segments.push(Segment {
            address,
            length,
            offset: Some(offset as u64).filter(|offset| *offset != u64::MAX),
            read: access & 1 != 0,
            write: access & 2 != 0,
            execute: access & 4 != 0,
        });
    }
    let mut soon = Vec::new();
    for _ in 0..words.next()? {
        let (address, length) = (words.next()?, words.next()?);
        soon.push(Soon { address, length });
    }
    Some(Head { registers, segments, soon })
}
