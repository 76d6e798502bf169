//! What is typed: keys of a person, among them the two that detach, or a text that is piped in.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, Stdin},
    time::sleep,
};

/// Ctrl-P and Ctrl-Q, as docker has them.
const DETACH: [u8; 2] = [0x10, 0x11];

/// Ctrl-D: the end of input, as a terminal says it.
const END: &[u8] = b"\x04";

/// Pause before the end of input is said again. It reaches whoever reads at the moment, and is lost
/// when a program changes how the terminal treats keys before it reads: nobody tells when all have
/// heard it but the end of the shell.
const END_AGAIN: Duration = Duration::from_secs(1);

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Keys on their way to the sandbox.
#[derive(Debug)]
pub(super) struct Keyboard {
    stdin: Stdin,
    /// None when the input is piped in, in which any byte is content.
    detach: Option<Detach>,
    /// How often its end was said.
    ends: u32,
}

impl Keyboard {
    pub(super) fn new(is_interactive: bool) -> Self {
        let detach = is_interactive.then(Detach::default);
        Self { stdin: tokio::io::stdin(), detach, ends: 0 }
    }

    /// The next keys; none when they were those that detach.
    ///
    /// # Cancel safety
    /// Safe: nothing that was read is lost.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.ends > 0 {
                sleep(END_AGAIN).await;
                return Ok(Some(END.to_vec()));
            }
            let mut bytes = vec![0; READ_BYTES];
            let length = self.stdin.read(&mut bytes).await?;
            bytes.truncate(length);
            if length == 0 {
                self.ends += 1;
                return Ok(Some(END.to_vec()));
            }
            let keys = match &mut self.detach {
                None => bytes,
                Some(detach) => match detach.pass(&bytes) {
                    Some(keys) => keys,
                    None => return Ok(None),
                },
            };
            if !keys.is_empty() {
                return Ok(Some(keys));
            }
        }
    }
}

/// Finds the two keys, also when they come apart. The first is held back until the next one.
#[derive(Debug, Default)]
struct Detach {
    has_begun: bool,
}

impl Detach {
    /// What of `bytes` is to be typed; none when the two keys are in them.
    fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let [first, second] = DETACH;
        let mut keys = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.has_begun && byte == second {
                return None;
            }
            if self.has_begun {
                keys.push(first);
            }
            self.has_begun = byte == first;
            if !self.has_begun {
                keys.push(byte);
            }
        }
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_keys_in_a_row_detach() {
        for (reads, passed) in [
            (&[&b"ls\n"[..]][..], Some(&b"ls\n"[..])),
            (&[b"\x10\x11"], None),
            (&[b"\x10", b"\x11"], None),
            (&[b"ab\x10\x11cd"], None),
            (&[b"\x10\x10\x11"], None),
            (&[b"\x11\x10", b"a"], Some(b"\x11\x10a")),
            (&[b"\x10", b"\x10", b"b"], Some(b"\x10\x10b")),
            (&[b"\x10"], Some(b"")),
        ] {
            let mut detach = Detach::default();
            let typed: Option<Vec<_>> = reads.iter().map(|read| detach.pass(read)).collect();
            assert_eq!(typed.map(|typed| typed.concat()).as_deref(), passed, "{reads:?}");
        }
    }
}
