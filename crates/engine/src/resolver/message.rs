//! As much of a DNS message as a forwarder needs (RFC 1035, section 4.1).
//!
//! ```text
//!  0      2      4       6       8       10      12
//! │ id   │flags │qdcount│ancount│nscount│arcount│ question: name, type, class │ …
//! ```

use api::network::HostName;

/// Bytes of a message over UDP that are understood: more than any client or server announces
/// (EDNS, RFC 6891, recommends 4096 at most).
pub(super) const UDP_BYTES: usize = 4096;

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// Bytes of a name, RFC 1035 section 2.3.4.
pub(super) const NAME_BYTES: usize = 255;

/// In the third byte: this is a response.
const RESPONSE: u8 = 0x80;
/// In the third byte: what kind of query it is; 0 is the ordinary one.
const OPCODE: u8 = 0x78;
/// In the third byte: recursion is desired.
const RECURSION_DESIRED: u8 = 0x01;
/// In the fourth byte: recursion is available.
const RECURSION_AVAILABLE: u8 = 0x80;
/// In the fourth byte, the code for "server failure".
const FAILED: u8 = 0x02;
/// In the fourth byte, the code for "there is no such name".
const NO_SUCH_NAME: u8 = 0x03;

/// True for an ordinary query with one question.
pub(super) fn is_query(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & (RESPONSE | OPCODE) == 0)
        && question(message).is_some()
}

/// True when `answer` has the id and repeats the question of `query`.
pub(super) fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & RESPONSE != 0)
        && query.get(..2) == answer.get(..2)
        && match (question(query), question(answer)) {
            (Some(asked), Some(answered)) => asked.eq_ignore_ascii_case(answered),
            _ => false,
        }
}

/// `message` under another id.
pub(super) fn with_id(mut message: Vec<u8>, id: [u8; 2]) -> Vec<u8> {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    message
}

/// The answer to a query that nobody answered: "server failure".
pub(super) fn failure(query: &[u8]) -> Vec<u8> {
    reply(query, FAILED)
}

/// The answer to a query for a name that the sandbox may not know. It says no authority, so nobody
/// keeps it (RFC 2308, section 5).
///
/// Not the code for "refused", which some C libraries take for silence: they ask again and again
/// until their time is over, and the point is to tell at once.
pub(super) fn no_such_name(query: &[u8]) -> Vec<u8> {
    reply(query, NO_SUCH_NAME)
}

fn reply(query: &[u8], code: u8) -> Vec<u8> {
    let question = question(query).unwrap_or_default();
    let mut answer = query.get(..HEADER).unwrap_or(&[0; HEADER]).to_vec();
    answer[2] = RESPONSE | (answer[2] & RECURSION_DESIRED);
    answer[3] = RECURSION_AVAILABLE | code;
    // One question, no records.
    answer[4..].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    answer
}

/// The host name that a query asks about. None: it is about something else.
pub(super) fn asked_name(query: &[u8]) -> Option<HostName> {
    const INTERNET: [u8; 2] = [0, 1];
    let class = question(query)?.last_chunk::<2>()?;
    // Whatever would make another name of it, as a dot inside a label, is written as no host name is.
    (*class == INTERNET).then(|| HostName::parse(&written_name(query)?)).flatten()
}

/// The name that a query asks about, as people write it.
pub(super) fn written_name(query: &[u8]) -> Option<String> {
    jail::refusal::name(question(query)?)
}

/// The bytes of the only question. None: there is not exactly one, or it is malformed; in a
/// question, names are not compressed.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let body = message.get(HEADER..)?;
    let mut end = 0;
    loop {
        let label = usize::from(*body.get(end)?);
        end += 1 + label;
        // The upper two bits of a length are for pointers and extensions.
        if label >= 64 || end > NAME_BYTES {
            return None;
        }
        if label == 0 {
            return body.get(..end + 4);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query for the address of `name`.
    pub(in super::super) fn query(id: u16, name: &str) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend_from_slice(&[RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        message
    }

    /// The answer to `query`, with `rest` for its records.
    pub(in super::super) fn answer(query: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= RESPONSE;
        message.extend_from_slice(rest);
        message
    }

    #[test]
    fn only_whole_ordinary_queries_are_queries() {
        let good = query(7, "example.org");
        assert!(is_query(&good));
        for length in 0..good.len() {
            assert!(!is_query(&good[..length]), "{length} bytes of it");
        }
        let with = |index: usize, byte: u8| {
            let mut message = good.clone();
            message[index] = byte;
            message
        };
        assert!(!is_query(&with(2, RESPONSE)));
        assert!(!is_query(&with(2, 0x28)), "an update");
        assert!(!is_query(&with(5, 2)), "two questions");
        assert!(!is_query(&with(HEADER, 0xc0)), "a compressed name");
        assert!(is_query(&query(7, &["a".repeat(63).as_str(); 3].join("."))));
        assert!(!is_query(&query(7, &["a".repeat(63).as_str(); 4].join("."))), "over 255 bytes");
    }

    #[test]
    fn an_answer_repeats_id_and_question() {
        let asked = query(7, "example.org");
        assert!(is_answer(&asked, &answer(&asked, b"records")));
        assert!(is_answer(&asked, &answer(&query(7, "EXAMPLE.org"), b"")));
        assert!(!is_answer(&asked, &answer(&query(8, "example.org"), b"")));
        assert!(!is_answer(&asked, &answer(&query(7, "example.com"), b"")));
        assert!(!is_answer(&asked, &asked), "a query");
        assert!(!is_answer(&asked, b""));
    }

    #[test]
    fn the_asked_name_is_read_as_it_would_be_asked_for() {
        let name = |query: &[u8]| asked_name(query).map(|name| name.as_str().to_owned());
        assert_eq!(name(&query(7, "WWW.Example.org")).as_deref(), Some("www.example.org"));
        let mut dotted = query(7, "good-test.evil");
        dotted[HEADER + 5] = b'.';
        assert_eq!(question(&dotted).map(|name| &name[..10]), Some(&b"\x09good.test"[..]));
        assert_eq!(name(&dotted), None, "a dot inside a label");
        for other in ["", "localhost", "a b.c", "münchen.example", "1.2.3.4"] {
            assert_eq!(name(&query(7, other)), None, "{other:?}");
        }
        let mut chaos = query(7, "version.bind");
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(name(&chaos), None, "another class");
    }

    #[test]
    fn a_name_that_is_refused_does_not_exist() {
        let asked = query(7, "example.org");
        let refused = no_such_name(&asked);
        assert!(is_answer(&asked, &refused));
        assert_eq!(refused[3] & 0x0f, 3);
        assert_eq!(refused[6..12], [0; 6], "no records");
    }

    #[test]
    fn a_failure_is_an_answer() {
        let asked = query(7, "example.org");
        let failed = failure(&asked);
        assert!(is_answer(&asked, &failed));
        assert_eq!(failed[3] & 0x0f, 2);
    }

    /// What a sandbox asks and what a server answers.
    #[test]
    fn hostile_messages_are_read_without_harm() {
        let asked = query(7, "www.example.com");
        let address = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &[1, 2, 3, 4]].concat();
        let alias = [&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4][..], &[1, b'a', 0xc0, 16]].concat();
        let answers = [answer(&asked, &address), answer(&asked, &[alias, address].concat())];
        hostile::bytes(&[&asked, &answers[0], &answers[1]], |bytes| {
            if is_query(bytes) {
                let name = asked_name(bytes);
                for reply in [failure(bytes), no_such_name(bytes)] {
                    assert!(is_answer(bytes, &reply));
                    assert_eq!(asked_name(&reply), name);
                }
            }
            is_answer(&asked, bytes);
            failure(bytes);
            let mut copy = with_id(bytes.to_vec(), [1, 2]);
            let found = super::super::answer::addresses(&mut copy, 300).unwrap_or_default();
            assert!(found.iter().all(|(_, seconds)| *seconds <= 300));
        });
    }
}
