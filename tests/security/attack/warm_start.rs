//! Probes that are run by who goes on from a forged file of a warm start, from the first instruction.

use std::io::Write;

use serde_json::{Value, json};
use testkit::Server;

use super::{APART, Finding, findings, in_the_control_jail_by, prepare};

/// Where the file is in a sandbox.
const PATH: &str = "/var/cache/sandbar/python";

/// Bytes before the first page.
const HEADER_BYTES: usize = 64 * 1024;

const PAGE_BYTES: usize = 4096;

/// Where the page is in who goes on; nothing else is there.
const PAGE: u64 = 0x1000_0000_0000;

/// Places in the page: the registers are at its beginning.
const CODE: usize = 128;
const ARGUMENTS: usize = 256;
const TEXTS: usize = 512;

/// Runs `group` in sandbox `s` and in the control jail, each by a file that begins as the image's does.
pub(crate) async fn in_both(server: &Server, group: &str, facts: &Value) -> [Vec<Finding>; 2] {
    let told = prepare(server, group, facts).await;
    server.put("/v1/sandboxes/s/files/tmp/facts", told.to_string()).await;
    let begins = server.shell("s", &format!("head -c 40 {PATH} | od -An -v -tx1")).await;
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("od writes hexadecimal digits");
    let begins: Vec<u8> = begins.split_whitespace().map(byte).collect();
    assert_eq!(begins.len(), 40, "the image has a warm start");

    let command = "exec python3 /tmp/probe.py </tmp/facts >/tmp/found";
    server.put(&format!("/v1/sandboxes/s/files{PATH}"), forged(&begins, command)).await;
    let answer = server.post("/v1/sandboxes/s/run", &json!({"code": "1 + 1"})).await;
    assert_eq!(answer.json["results"][0]["text"], "2", "{}", answer.text);
    let held = findings(&server.shell("s", "cat /tmp/found").await);

    let mut file = tempfile::NamedTempFile::new().expect("a file can be made");
    let bytes = forged(&begins, "exec python3 /probe.py");
    file.write_all(&bytes).expect("it can be written");
    let broke = in_the_control_jail_by(Some(file.path()), group, &APART, facts);
    [held, broke]
}

/// A file of a warm start that begins with `begins` and goes on as `sh -c command`: registers, and a few
/// instructions for x86-64.
fn forged(begins: &[u8], command: &str) -> Vec<u8> {
    let mut file = begins.to_vec();
    // Where the registers are; one segment: address, length, offset, access; nothing is written soon.
    for word in [PAGE, 1, PAGE, PAGE_BYTES as u64, HEADER_BYTES as u64, 7, 0] {
        file.extend(word.to_le_bytes());
    }
    file.resize(HEADER_BYTES, 0);
    let mut page = vec![0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let address = |at: usize| (PAGE + at as u64).to_le_bytes();
    put(48, &address(PAGE_BYTES - 64)); // rsp
    put(56, &0x1f80_u32.to_le_bytes()); // mxcsr
    put(60, &0x037f_u16.to_le_bytes()); // x87's control word
    put(64, &address(0)); // fs
    put(72, &address(CODE)); // rip
    let texts = [b"/bin/sh\0".as_slice(), b"-c\0", command.as_bytes()];
    let mut at = TEXTS;
    for (index, text) in texts.iter().enumerate() {
        put(ARGUMENTS + 8 * index, &address(at));
        put(at, text);
        at += text.len();
    }
    let code = [
        b"\x48\xbf".as_slice(), // mov rdi, the program
        &address(TEXTS),
        b"\x48\xbe", // mov rsi, its arguments
        &address(ARGUMENTS),
        b"\x31\xd2",               // xor edx, edx
        b"\xb8\x3b\0\0\0\x0f\x05", // execve
        b"\xbf\x01\0\0\0",         // mov edi, 1
        b"\xb8\x3c\0\0\0\x0f\x05", // exit
    ];
    put(CODE, &code.concat());
    file.extend(page);
    file
}
