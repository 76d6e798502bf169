use super::*;

fn rule(text: &str) -> NetworkRule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn rules_read_as_they_are_written() {
    for text in [
        "pypi.org",
        "pypi.org:443",
        "pypi.org:443/tcp",
        "*.example.com:53/udp",
        "203.0.113.7",
        "203.0.113.0/24",
        "203.0.113.0/24:443/tcp",
        "0.0.0.0/0:80",
        "_x._tcp.a-b.example",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    assert_eq!(rule("PyPI.org.").to_string(), "pypi.org");
    assert_eq!(rule("203.0.113.7/32").to_string(), "203.0.113.7");
}

#[test]
fn what_is_no_rule_is_refused() {
    let long = format!("{}.com", "a".repeat(64));
    let longer = ["a".repeat(63).as_str(); 4].join(".") + ".com";
    for text in [
        "",
        "localhost",
        "*",
        "*.com",
        "a.*.com",
        "*a.com",
        "a..com",
        ".a.com",
        "-a.com",
        "a-.com",
        "münchen.example",
        "a b.com",
        "a.com:",
        "a.com:0",
        "a.com:65536",
        "a.com:+80",
        "a.com:080",
        "a.com:80-90",
        "a.com:80,81",
        "a.com:80/",
        "a.com:80/sctp",
        "a.com:80/TCP",
        "a.com/tcp",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "1.2.3.4/33",
        "1.2.3.4/+8",
        "1.2.3.4/",
        "1.2.3.4/08",
        "10.1.0.0/8",
        "::1",
        "[::1]:80",
        "2001:db8::/32",
        "http://a.com",
        "a.com/",
        "a.com\0",
        &long,
        &longer,
    ] {
        assert!(text.parse::<NetworkRule>().is_err(), "{text:?}");
    }
    let told = "10.1.0.0/8".parse::<NetworkRule>().unwrap_err().to_string();
    assert!(told.contains("10.0.0.0/8"), "{told}");
}

#[test]
fn names_are_allowed_whole() {
    let allows = |text: &str, name: &str| rule(text).allows_name(&HostName::parse(name).unwrap());
    assert!(allows("good.test", "GOOD.test."));
    assert!(allows("*.good.test", "a.good.test"));
    assert!(allows("*.good.test", "a.b.good.test"));
    for (text, name) in [
        ("good.test", "www.good.test"),
        ("good.test", "good.test.evil.test"),
        ("good.test", "evilgood.test"),
        ("*.good.test", "good.test"),
        ("*.good.test", "evilgood.test"),
        ("*.good.test", "a.good.test.evil.test"),
        ("203.0.113.0/24", "good.test"),
    ] {
        assert!(!allows(text, name), "{name} under {text}");
    }
}

#[test]
fn policies_are_words_or_lists() {
    for (json, policy) in [
        (r#""internet""#, NetworkPolicy::Internet),
        (r#""none""#, NetworkPolicy::None),
        (
            r#"{"allow":["a.com:443"]}"#,
            NetworkPolicy::Listed(AllowList { allow: vec![rule("a.com:443")] }),
        ),
        (r#"{"allow":[]}"#, NetworkPolicy::Listed(AllowList::default())),
    ] {
        assert_eq!(serde_json::from_str::<NetworkPolicy>(json).unwrap(), policy);
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
    }
    for (json, word) in [
        (r#""moon""#, "internet"),
        ("{}", "allow"),
        (r#"{"allow":["a"]}"#, "host name"),
        (r#"{"allow":[], "deny": []}"#, "deny"),
        ("[]", "internet"),
        ("null", "internet"),
    ] {
        let told = serde_json::from_str::<NetworkPolicy>(json).unwrap_err().to_string();
        assert!(told.contains(word), "{json}: {told}");
    }
}

/// A rule that is taken is written as it is meant, and that is read as the same rule.
#[test]
fn hostile_rules_are_refused_or_read_in_one_way() {
    let examples =
        ["pypi.org:443/tcp", "*.example.com", "203.0.113.0/24:53/udp", "1.2.3.4", "a-b.c_d.e"];
    hostile::text(&examples, |text| {
        if let Ok(rule) = text.parse::<NetworkRule>() {
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    });
}
