use super::*;

#[test]
fn users_are_strict() {
    for bad in [
        "",
        "-1",
        "1000;0",
        "4294967295",
        "4294967296",
        "0x0",
        "+5",
        " 5",
        "a b",
        "1:",
        ":1",
        "-x",
        "\u{661}",
    ] {
        assert!(bad.parse::<UserSpec>().is_err(), "{bad:?}");
    }
    assert_eq!(
        "1000:50".parse::<UserSpec>().unwrap(),
        UserSpec { user: Id::Number(1000), group: Some(Id::Number(50)) }
    );
    assert_eq!("www-data".parse::<UserSpec>().unwrap().user, Id::Name("www-data".into()));
}

#[test]
fn sizes_and_times_have_units() {
    assert_eq!("512m".parse::<Size>().unwrap(), Size::Bytes(512 << 20));
    assert_eq!("2GiB".parse::<Size>().unwrap(), Size::Bytes(2 << 30));
    assert_eq!("50%".parse::<Size>().unwrap(), Size::Percent(50));
    for bad in ["", "m", "-1", "0", "101%", "5x", "99999999999999999999", "18014398509481984k"] {
        assert!(bad.parse::<Size>().is_err(), "{bad:?}");
    }
    assert_eq!("5m".parse::<Duration>().unwrap(), Duration(300));
    assert_eq!("7".parse::<Duration>().unwrap(), Duration(7));
    for bad in ["", "s", "+5", "1w", "-3", "99999999999999999999d"] {
        assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
    }
}

#[test]
fn limits_have_an_order() {
    assert_eq!(
        "1024:unlimited".parse::<ResourceLimit>().unwrap(),
        ResourceLimit { soft: Some(1024), hard: None }
    );
    assert!("2:1".parse::<ResourceLimit>().is_err());
    assert!("unlimited:1".parse::<ResourceLimit>().is_err());
    assert!("nofiles".parse::<ResourceName>().is_err());
}

#[test]
fn capabilities_go_by_either_name() {
    assert_eq!("CAP_NET_RAW".parse::<Capability>().unwrap(), Capability(13));
    assert_eq!("net_raw".parse::<Capability>().unwrap().to_string(), "CAP_NET_RAW");
    assert_eq!("checkpoint_restore".parse::<Capability>().unwrap(), Capability(40));
    assert!("all".parse::<Capability>().is_err());
}

#[test]
fn patterns_cannot_mean_everything() {
    assert_eq!("LC_*".parse::<Pattern>().unwrap(), Pattern::Prefix("LC_".into()));
    for bad in ["*", "*A", "A*B*", "", "A=B"] {
        assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
    }
}

#[test]
fn host_names_are_names() {
    assert!("box-1.example".parse::<Hostname>().is_ok());
    for bad in ["", "-a", "a-", "a..b", "a_b", "x\ny", &"a".repeat(65)] {
        assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
    }
}
