//! `uk-mifid` and `eu-mifid`, investment firms: floors, which outlast whoever would rather have it gone.

use super::stage::{CUSTOMER, DAY, Left, MARGIN, MINUTE, NOT_PERMITTED, OPERATOR, REFUSED, SECOND, Stage, Take, USAGE};

const NUMBER: &str = "+441632960081";
const GROUNDS: [(&str, &str); 2] = [("uk-mifid", "FCA SYSC 10A.1.15 R"), ("eu-mifid", "MiFID II art. 16(7)")];

const WITHOUT_FLOOR: &str = "name = \"bare\"\nparties = \"owner\"\n[purge]\napproval = \"second-person\"\n\
                             cooling_off = \"72h\"\n[[keep]]\nwhat = \"both\"\nnot_after = \"90d after close\"\n";

/// Noon of 15 June in a year.
fn noon(year: i16) -> i64 {
    let date = jiff::civil::date(year, 6, 15).at(12, 0, 0, 0);
    date.to_zoned(jiff::tz::TimeZone::UTC).expect("a moment").timestamp().as_millisecond()
}

fn shown(moment: i64) -> String {
    jiff::Timestamp::from_millisecond(moment).expect("a moment").to_string()
}

/// Five years refuse erasure, by date and ground; nothing shortens them; then it goes within ninety days.
#[test]
fn mifid_five_years_refuse_erasure_with_date_and_ground_and_survive_close() {
    let stage = Stage::open();
    let [(uk, _), (eu, _)] = GROUNDS;
    stage.tenant("acme", uk, &[]);
    stage.tenant("globex", eu, &[]);
    let records = ["acme", "globex"].map(|tenant| stage.record(&Take::call(tenant, NUMBER)));
    let until = noon(2031);
    let before = stage.steal();
    let bare = stage.path("bare.toml").display().to_string();
    std::fs::write(&bare, WITHOUT_FLOOR).expect("written");
    for ((tenant, recorded), (_, ground)) in ["acme", "globex"].into_iter().zip(&records).zip(GROUNDS) {
        for part in ["audio", "facts"] {
            assert_eq!(stage.explained(recorded, part).0, Some(until + 90 * DAY - MARGIN));
        }
        let subscriber = format!("{tenant}/{NUMBER}");
        for erase in [
            &["erase", "recording", &recorded.id][..],
            &["erase", "recording", &recorded.id, "--part", "facts"],
            &["erase", "subscriber", &subscriber],
        ] {
            let said = stage.refused(CUSTOMER, erase, REFUSED);
            assert!(said.contains(ground) && said.contains(&shown(until)[..10]), "{said}");
        }
        let preview = stage.json(CUSTOMER, &["erase", "subscriber", &subscriber, "--dry-run"]).remove(0);
        assert_eq!((&preview["floors"][0]["ground"], &preview["floors"][0]["recordings"]), (&ground.into(), &1.into()));
        assert_eq!(preview["floors"][0]["until"], shown(until).as_str());
        // Nor does another policy, which has none, take it off what is stored.
        stage.ok(CUSTOMER, &["policy", "set", tenant, &bare]);
        stage.refused(CUSTOMER, &["erase", "recording", &recorded.id], REFUSED);
        stage.ok(CUSTOMER, &["policy", "set", tenant, if tenant == "acme" { uk } else { eu }]);
        stage.ok(CUSTOMER, &["tenant", "close", tenant]);
    }

    // A minute before, everything stands; at the date it may be erased, and it was not too early by itself.
    stage.noticed_at(until - MINUTE);
    for recorded in &records {
        assert_eq!(stage.left(recorded), Left::Both);
        stage.refused(CUSTOMER, &["erase", "recording", &recorded.id], REFUSED);
    }
    stage.noticed_at(until);
    let [first, second] = &records;
    stage.ok(CUSTOMER, &["erase", "recording", &first.id]);
    stage.assert_left(&before, &[(first, Left::Nothing), (second, Left::Both)]);
    stage.goes_by(second, until + 90 * DAY, Left::Both, Left::Nothing);
    stage.assert_left(&before, &[(first, Left::Nothing), (second, Left::Nothing)]);
}

/// Up to seven years where the authority asks, for what is stored too; and never back.
#[test]
fn mifid_a_floor_is_extended_to_seven_years_and_never_shortened() {
    let stage = Stage::open();
    for (policy, _) in GROUNDS {
        for keep in ["4y", "8y"] {
            let said = stage.refused(CUSTOMER, &["policy", "check", policy, "--keep", keep], USAGE);
            assert!(said.contains("keep"), "{said}");
        }
    }
    stage.tenant("acme", "uk-mifid", &[]);
    let recorded = stage.record(&Take::call("acme", NUMBER));
    let before = stage.steal();
    stage.ok(CUSTOMER, &["policy", "set", "acme", "uk-mifid", "--keep", "7y"]);
    let refused_until = |moment: i64| {
        stage.until("the policy is applied", || {
            let said = stage.refused(CUSTOMER, &["erase", "recording", &recorded.id], REFUSED);
            said.contains(&shown(moment)[..10])
        });
    };
    refused_until(noon(2033));
    stage.ok(CUSTOMER, &["policy", "set", "acme", "uk-mifid", "--keep", "5y"]);
    stage.noticed();
    refused_until(noon(2033));
    let later = stage.record(&Take::call("acme", NUMBER));
    assert!(stage.refused(CUSTOMER, &["erase", "recording", &later.id], REFUSED).contains(&shown(noon(2031))[..10]));

    stage.goes_by(&later, noon(2031) + 90 * DAY, Left::Both, Left::Nothing);
    stage.noticed_at(noon(2033) - MINUTE);
    stage.refused(CUSTOMER, &["erase", "recording", &recorded.id], REFUSED);
    assert_eq!(stage.left(&recorded), Left::Both);
    assert_eq!(stage.explained(&recorded, "audio"), (Some(noon(2033)), Some(noon(2033) + MARGIN)));
    stage.nothing_is_late();
    stage.go_to(noon(2033));
    stage.until("nobody has to erase it", || stage.left(&recorded) == Left::Nothing);
    stage.nothing_is_late();
    stage.assert_left(&before, &[(&recorded, Left::Nothing)]);
}

/// A purge takes a second person and three days; it takes what may go, and the rest by itself when its time has come.
#[test]
fn mifid_a_purge_takes_two_people_and_leaves_what_a_floor_keeps_until_its_date() {
    let mut stage = Stage::open();
    stage.tenant("acme", "eu-mifid", &[]);
    let recorded = stage.record(&Take::call("acme", NUMBER));
    stage.refused(CUSTOMER, &["tenant", "purge", "acme", "--confirm", "acme"], REFUSED);
    stage.refused(CUSTOMER, &["tenant", "approve", "acme"], NOT_PERMITTED);
    stage.ok(SECOND, &["tenant", "approve", "acme"]);
    stage.ok(CUSTOMER, &["tenant", "withdraw", "acme"]);
    stage.refused(CUSTOMER, &["tenant", "purge", "acme", "--confirm", "acme"], REFUSED);
    stage.ok(SECOND, &["tenant", "approve", "acme"]);
    let state = |stage: &Stage| stage.json(OPERATOR, &["tenant", "show", "acme"]).remove(0)["state"].clone();

    stage.wait(3 * DAY - MINUTE);
    stage.restart();
    stage.noticed();
    assert_eq!(state(&stage), "open");
    let before = stage.steal();
    stage.wait(MINUTE);
    stage.restart();
    stage.until("the purge has begun", || state(&stage) == "purging");
    assert_eq!(stage.left(&recorded), Left::Both);
    let said = stage.refused(CUSTOMER, &["tenant", "withdraw", "acme"], REFUSED);
    assert!(said.contains("has begun"), "{said}");

    stage.noticed_at(noon(2031) - MINUTE);
    stage.restart();
    stage.noticed();
    assert_eq!(stage.left(&recorded), Left::Both, "early");
    stage.go_to(noon(2031));
    stage.restart();
    stage.until("the tenant is gone", || stage.left(&recorded) == Left::Nothing);
    stage.assert_left(&before, &[(&recorded, Left::Nothing)]);
    stage.assert_words(&before, &["acme", NUMBER], &[]);
}
