use api::sandbox::CreateSandbox;

use super::{super::message::tests::query, *};
use crate::settings::tests::config;

pub(in super::super) fn listed(rules: &[&str]) -> NetworkPolicy {
    let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    NetworkPolicy::Listed(AllowList { allow })
}

pub(in super::super) fn settings(network: NetworkPolicy, revision: u64) -> Settings {
    let request = CreateSandbox { network, ..CreateSandbox::default() };
    let settings = Settings::of(request, &config("/".as_ref())).unwrap();
    Settings { network_revision: revision, ..settings }
}

fn asker(network: NetworkPolicy) -> Asker {
    Asker::new(JailId(1), &settings(network, 1))
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn public(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

fn list(asker: &Asker) -> jail::AllowList {
    match asker.reach() {
        Reach::Listed(list) => list,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_judged_by_the_policy() {
    let good = query(1, "Good.Test");
    assert_eq!(asker(NetworkPolicy::Internet).judge(&good), Judgement::Pass);
    assert_eq!(asker(NetworkPolicy::None).judge(&good), Judgement::Ignore);

    let asker = asker(listed(&["good.test:443", "*.wild.test", "203.0.113.0/24"]));
    assert_eq!(asker.judge(&good), Judgement::Learn(name("good.test"), 1));
    let wild = asker.judge(&query(1, "a.b.wild.test"));
    assert_eq!(wild, Judgement::Learn(name("a.b.wild.test"), 1));
    let refused = [
        "good.test.evil.test",
        "evilgood.test",
        "wild.test",
        "g\u{0585}\u{0585}d.test",
        "113.0.203.in-addr.arpa",
    ];
    for other in refused {
        assert_eq!(asker.judge(&query(1, other)), Judgement::Refuse, "{other}");
    }
    let (count, newest) = asker.refused_names();
    assert_eq!(count, 5);
    let expected = [
        "113.0.203.in-addr.arpa",
        r"g\214\133\214\133d.test",
        "wild.test",
        "evilgood.test",
        "good.test.evil.test",
    ];
    assert_eq!(newest, expected);
}

#[test]
fn only_so_many_refused_names_are_remembered_and_each_once() {
    let asker = asker(listed(&["good.test"]));
    for number in 0..100 {
        asker.judge(&query(1, &format!("n{number}.test")));
        asker.judge(&query(1, "Again.test"));
    }
    let (count, newest) = asker.refused_names();
    assert_eq!((count, newest.len()), (200, SHOWN));
    assert_eq!(newest[..3], ["again.test", "n99.test", "n98.test"]);
    asker.forget();
    assert_eq!(asker.refused_names(), (0, Vec::new()));
}

#[test]
fn an_address_is_learned_for_what_the_rules_say_and_for_a_bounded_time() {
    let asker = asker(listed(&["good.test:443", "good.test:53/udp", "*.wild.test"]));
    let learned = |text: &str, addresses: &[(Ipv4Addr, u32)]| {
        asker.learned(&name(text), 1, addresses).unwrap()
    };
    let (tcp, udp) = (jail::Protocol::Tcp, jail::Protocol::Udp);
    let good = |service, seconds| Learned { address: public(1), service: Some(service), seconds };
    assert_eq!(
        learned("good.test", &[(public(1), 300)]),
        [good((tcp, 443), 300), good((udp, 53), 300), good((udp, 443), 300)]
    );
    let wild = |seconds| Learned { address: public(2), service: None, seconds };
    assert_eq!(learned("a.wild.test", &[(public(2), 0)]), [wild(LEAST_SECONDS)]);
    assert_eq!(learned("a.wild.test", &[(public(2), u32::MAX)]), [wild(MOST_SECONDS)]);
    assert_eq!(asker.learned(&name("good.test"), 2, &[]), None, "another revision");
}

#[test]
fn a_later_answer_takes_no_time_away() {
    let asker = asker(listed(&["long.test:443/tcp", "short.test:443/tcp", "short.test:80/tcp"]));
    let learn = |text: &str, seconds| {
        let addresses = [(public(1), seconds)];
        let learned = asker.learned(&name(text), 1, &addresses).unwrap();
        assert!(asker.remember(&name(text), 1, &addresses));
        learned.iter().map(|it| (it.service.unwrap().1, it.seconds)).collect::<Vec<_>>()
    };
    assert_eq!(learn("long.test", 600), [(443, 600)]);
    let [(443, left @ 500..), (80, 60)] = learn("short.test", 1)[..] else { panic!("shortened") };
    assert!(left <= 600);
    assert!(matches!(learn("long.test", 60)[..], [(443, 500..), (80, _)]));
    assert!(list(&asker).learned.iter().any(|it| it.seconds >= 500));
}

#[test]
fn a_name_does_not_open_a_private_range() {
    let asker = asker(listed(&["good.test"]));
    for address in
        ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"]
    {
        let addresses = [(address.parse().unwrap(), 300)];
        assert_eq!(asker.learned(&name("good.test"), 1, &addresses).unwrap(), [], "{address}");
        assert!(asker.remember(&name("good.test"), 1, &addresses));
    }
    assert_eq!(list(&asker).learned, []);
}

#[test]
fn what_stays_allowed_is_known_after_a_change() {
    let asker = asker(listed(&["good.test:443", "other.test"]));
    asker.remember(&name("good.test"), 1, &[(public(1), 300)]);
    asker.remember(&name("other.test"), 1, &[(public(2), 300)]);

    let change = settings(listed(&["good.test:80/tcp", "203.0.113.128/25"]), 2);
    let Reach::Listed(under) = asker.reach_under(&change) else { panic!("not a list") };
    assert_eq!(under.revision, 2);
    assert_eq!(under.ranges.len(), 1);
    let [learned] = under.learned[..] else { panic!("{:?}", under.learned) };
    assert_eq!((learned.address, learned.service), (public(1), Some((jail::Protocol::Tcp, 80))));
    assert!((1..=300).contains(&learned.seconds));

    assert_eq!(list(&asker).revision, 1, "asking what would be changes nothing");
    asker.set_policy(&change);
    assert_eq!(list(&asker).revision, 2);
    assert!(!asker.remember(&name("good.test"), 1, &[]), "the policy has changed meanwhile");
    asker.set_policy(&settings(NetworkPolicy::None, 3));
    assert_eq!(asker.reach(), Reach::Nothing);
}

#[test]
fn what_is_remembered_is_bounded() {
    let asker = asker(listed(&["*.wild.test"]));
    for number in 0..2 * REMEMBERED {
        let number = u32::try_from(number).unwrap();
        let address = Ipv4Addr::from_bits(0x0101_0000 + number);
        asker.remember(&name(&format!("n{number}.wild.test")), 1, &[(address, 100 + number)]);
    }
    let learned = list(&asker).learned;
    assert_eq!(learned.len(), REMEMBERED);
    assert!(learned.iter().all(|one| one.seconds > 1000), "those that last longest are kept");
    asker.forget();
    assert_eq!(list(&asker).learned, []);
}

#[test]
fn questions_are_as_many_as_a_burst_and_then_as_many_as_time_allows() {
    let asker = asker(NetworkPolicy::Internet);
    let now = Instant::now() + Duration::from_secs(60);
    let asked = |now| (0..1000).filter(|_| asker.may_ask(now)).count();
    assert_eq!(asked(now), 200);
    assert_eq!(asked(now), 0);
    assert_eq!(asked(now + Duration::from_secs(1)), 100);
    assert_eq!(asked(now + Duration::from_secs(60)), 200);
}
