use super::{super::message::tests::query, *};

/// A record with this data, for a name as it is in messages.
fn record(owner: &[u8], kind: u16, seconds: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(kind.to_be_bytes());
    record.extend(CLASS_IN.to_be_bytes());
    record.extend(seconds.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

/// A name as it is in messages, not compressed.
fn labels(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// A pointer to the name in the question.
const ASKED: &[u8] = &[0xc0, 12];

fn answer(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = query(7, name);
    message[2] |= 0x80;
    message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    records.iter().for_each(|record| message.extend(record));
    message
}

fn found(name: &str, records: &[Vec<u8>]) -> Option<Vec<(Ipv4Addr, u32)>> {
    addresses(&mut answer(name, records), 3600)
}

fn a(owner: &[u8], last: u8) -> Vec<u8> {
    record(owner, TYPE_A, 300, &[203, 0, 113, last])
}

fn address(last: u8) -> (Ipv4Addr, u32) {
    (Ipv4Addr::new(203, 0, 113, last), 300)
}

#[test]
fn addresses_of_the_name_and_of_its_aliases_are_found() {
    let both = [a(ASKED, 1), a(ASKED, 2), a(ASKED, 1)];
    assert_eq!(found("a.test", &both), Some(vec![address(1), address(2)]));

    let to_b = record(ASKED, TYPE_CNAME, 300, &labels("b.test"));
    let to_c = record(&labels("B.test"), TYPE_CNAME, 300, &labels("c.other"));
    let of_c = a(&labels("C.Other"), 3);
    let chain = [to_b.clone(), to_c.clone(), of_c.clone()];
    assert_eq!(found("a.test", &chain), Some(vec![address(3)]));
    assert_eq!(found("a.test", &[of_c, to_c, to_b]), Some(vec![address(3)]), "in any order");
}

#[test]
fn addresses_of_other_names_are_not() {
    let other = [a(&labels("b.test"), 1), record(ASKED, 28, 300, &[0; 16])];
    assert_eq!(found("a.test", &other), Some(vec![]));
    let mut chaos = a(ASKED, 1);
    chaos[5] = 3;
    assert_eq!(found("a.test", &[chaos]), Some(vec![]), "of another class");
    assert_eq!(found("a.test", &[]), Some(vec![]));
}

#[test]
fn long_and_impossible_times_are_cut_for_both() {
    let times = [u32::MAX, 86_400, 5].map(|seconds| record(ASKED, TYPE_A, seconds, &[1; 4]));
    for (record, seconds) in times.into_iter().zip([0, 3600, 5]) {
        let mut message = answer("a.test", &[record]);
        assert_eq!(addresses(&mut message, 3600), Some(vec![(Ipv4Addr::from([1; 4]), seconds)]));
        let told = message.len() - 10;
        assert_eq!(message[told..told + 4], seconds.to_be_bytes());
    }
}

#[test]
fn loops_and_crowds_end() {
    let circle = [
        record(ASKED, TYPE_CNAME, 1, &labels("b.test")),
        record(&labels("b.test"), TYPE_CNAME, 1, &labels("a.test")),
        a(&labels("b.test"), 1),
    ];
    assert_eq!(found("a.test", &circle), Some(vec![address(1)]));

    let many: Vec<_> =
        (0..40).map(|n| record(ASKED, TYPE_CNAME, 1, &labels(&format!("n{n}.test")))).collect();
    assert_eq!(found("a.test", &many), None, "an answer with forty aliases");

    let crowd: Vec<_> = (0..200).map(|last| a(ASKED, last)).collect();
    assert_eq!(found("a.test", &crowd).unwrap().len(), ADDRESSES);

    // A pointer to itself, one ahead, and two to each other.
    for pointers in [&[0xc0, 24][..], &[0xc0, 60], &[1, b'x', 0xc0, 24]] {
        assert_eq!(found("a.test", &[a(pointers, 1)]), None, "{pointers:?}");
    }
}

#[test]
fn any_bytes_are_an_answer_or_malformed() {
    let whole = answer("a.test", &[record(ASKED, TYPE_CNAME, 1, &labels("b.test")), a(ASKED, 1)]);
    for length in 0..whole.len() {
        assert_eq!(addresses(&mut whole[..length].to_vec(), 3600), None, "{length} bytes of it");
    }
    // A step of a linear congruential generator (Knuth): the same bytes on every run.
    let mut random = 1_u64;
    for _ in 0..200_000 {
        let mut bent = whole.clone();
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(random >> 33).unwrap() % bent.len();
            bent[at] = u8::try_from(random >> 25 & 0xff).unwrap();
        }
        if let Some(found) = addresses(&mut bent, 3600) {
            assert!(found.len() <= ADDRESSES && found.iter().all(|(_, seconds)| *seconds <= 3600));
        }
    }
}
