//! The laws of verdicts over generated policies and subjects, and the faults that a policy may have.

use super::*;
use crate::domain::time::Timestamp;
use proptest::prelude::*;

const DAY: i64 = 86_400_000;

fn read(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, Parameters::default())
}

fn with(rules: &str) -> String {
    format!("name = \"p\"\nparties = \"owner\"\n{rules}")
}

fn days(n: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + n * DAY)
}

fn call(part: Part) -> Subject {
    Subject {
        category: Category::Call,
        part,
        jurisdiction: None,
        end: CallEnd::Ended { at: days(0) },
        account: AccountState::Open,
        subscriber: SubscriberState::Active,
    }
}

fn preset(name: &str, keep: Option<&str>) -> Policy {
    let keep = keep.map(|keep| keep.parse().expect("a length"));
    Policy::parse(presets::find(name).expect("ships").text, Parameters { keep }).expect("good")
}

fn promise(policy: &Policy, subject: Subject) -> Option<i64> {
    let verdict = policy.verdict(&subject).expect("governed");
    verdict.not_after.map(|at| (at.0 - days(0).0) / DAY)
}

#[test]
fn every_preset_reads_and_governs_every_category() {
    for preset in presets::ALL {
        let outline = preset.outline().expect("readable");
        assert_eq!(outline.name, preset.name);
        assert!(!outline.summary.is_empty(), "{}", preset.name);
        let needed = outline.keep.is_some_and(|parameter| parameter.default.is_none());
        assert_eq!(read(preset.text).is_err(), needed, "{}: {:?}", preset.name, read(preset.text).err());
        let keep = needed.then(|| "90d".parse().expect("a length"));
        let policy = Policy::parse(preset.text, Parameters { keep }).expect("good");
        for (category, part) in Category::ALL.into_iter().flat_map(|it| Part::ALL.map(|part| (it, part))) {
            assert!(policy.verdict(&Subject { category, ..call(part) }).is_some(), "{}", preset.name);
        }
        assert_eq!(read(&policy.to_string()).expect("reads back"), policy, "{}", preset.name);
    }
}

#[test]
fn presets_promise_what_the_providers_promise() {
    let audio = call(Part::Audio);
    let closed = Subject { account: AccountState::Closed { at: days(10) }, ..audio };
    let deactivated = Subject { subscriber: SubscriberState::Deactivated { at: days(20) }, ..audio };
    let german = |part| Subject { jurisdiction: "DE".parse().ok(), ..call(part) };

    let circleloop = preset("circleloop", None);
    assert_eq!((promise(&circleloop, audio), promise(&circleloop, closed)), (None, Some(100)));
    assert!(!circleloop.due_at_close());

    let cloudtalk = preset("cloudtalk", None);
    assert!(cloudtalk.due_at_close());
    assert_eq!(cloudtalk.verdict(&closed).expect("governed").aim, Some(days(10)));

    let broadcloud = preset("broadcloud", None);
    assert_eq!(promise(&broadcloud, audio), Some(40));
    assert_eq!(promise(&broadcloud, german(Part::Audio)), Some(40));
    assert_eq!(promise(&broadcloud, call(Part::Facts)), Some(30));
    assert_eq!(promise(&broadcloud, german(Part::Facts)), Some(7));
    let voicemail = |subject| Subject { category: Category::Voicemail, ..subject };
    assert_eq!(promise(&broadcloud, voicemail(audio)), None);
    assert_eq!(broadcloud.verdict(&voicemail(deactivated)).expect("governed").aim, Some(days(20)));
    assert_eq!(promise(&broadcloud, Subject { category: Category::Connection, ..closed }), Some(12));

    let vclerk = preset("vclerk", Some("180d"));
    assert_eq!((promise(&vclerk, audio), promise(&vclerk, closed)), (Some(180), Some(70)));

    let mifid = preset("eu-mifid", Some("7y"));
    let floor = mifid.verdict(&closed).expect("governed").floor.expect("a floor");
    assert_eq!((floor.until.0 - days(0).0) / DAY, 7 * 365 + 2);
    assert_eq!(floor.ground, "MiFID II art. 16(7)");
}

#[test]
fn the_policy_in_the_docs_is_good() {
    let page = include_str!("../../../docs/retention.md");
    let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert_eq!(read(text).expect("good").name(), "hosted");
}

#[test]
fn a_parameter_must_be_given_and_lies_within_its_bounds() {
    let text = presets::find("uk-mifid").expect("ships").text;
    let keep = |keep: &str| Policy::parse(text, Parameters { keep: keep.parse().ok() });
    assert!(keep("5y").is_ok() && keep("7y").is_ok() && keep("6y 30d").is_ok());
    for wrong in ["4y", "8y", "7y 1d"] {
        assert_eq!(keep(wrong).expect_err("out of bounds").field, "parameters.keep", "{wrong}");
    }
    let error = read(presets::find("customer-notice").expect("ships").text).expect_err("needs it");
    assert_eq!(error.field, "parameters.keep");
    assert!(error.line > 0 && error.remedy.contains("--keep"));
    let none = Policy::parse(presets::find("circleloop").expect("ships").text, Parameters { keep: "9d".parse().ok() });
    assert_eq!(none.expect_err("takes none").field, "parameters.keep");
}

#[test]
fn what_is_left_of_an_account_goes_within_its_longest_promise_and_behind_what_is_recorded() {
    let rule = |category: &str, after: &str| {
        format!("[[keep]]\nwhat = \"both\"\ncategory = \"{category}\"\nnot_after = [{after}]\n")
    };
    let of = |rules: &[String]| read(&format!("margin = \"48h\"\n{}", with(&rules.concat()))).expect("good");
    let two =
        of(&[rule("call", "\"90d after close\""), rule("voicemail", "\"60d after close\", \"5d after deactivation\"")]);
    assert_eq!(two.account_goes(days(0)), Some(days(89)), "half a margin before the longer one");
    assert_eq!(two.subscriber_goes(days(0)), Some(days(4)));
    let at_once = of(&[rule("call", "\"48h after close\"")]);
    assert_eq!((at_once.account_goes(days(0)), at_once.subscriber_goes(days(0))), (Some(days(1)), None));
    assert_eq!(of(&[rule("call", "\"5y after end\"")]).account_goes(days(0)), None);
    // At the end of all times.
    assert!(two.account_goes(Timestamp(i64::MAX)).is_some());
}

#[test]
fn subscribers_decide_only_where_a_policy_says_so() {
    for preset in presets::ALL {
        let keep = preset.outline().expect("readable").keep.and_then(|_| "5y".parse().ok());
        let policy = Policy::parse(preset.text, Parameters { keep }).expect("good");
        assert!(!policy.subscribers_decide(), "{}", preset.name);
    }
    let keep = "[[keep]]\nwhat = \"both\"\nnot_after = \"40d after end\"\n";
    let policy = read(&with(&format!("[permission]\nsubscribers_decide = true\n{keep}"))).expect("good");
    assert!(policy.subscribers_decide());
    assert!(read(&policy.to_string()).expect("reads back").subscribers_decide());
    assert!(!read(&with(&format!("[permission]\n{keep}"))).expect("good").subscribers_decide());
}

#[test]
fn a_fault_is_told_with_its_line_and_field() {
    let keep = "[[keep]]\nwhat = \"both\"\nnot_after = \"40d after end\"\n";
    let cases: &[(&str, u32, &str)] = &[
        ("", 0, "keep"),
        ("nonsense", 3, "policy"),
        ("margin = 5", 3, "margin"),
        ("margin = \"1y\"", 3, "margin"),
        ("grace = \"1d\"", 3, "grace"),
        ("[permission]\nsubscribers_decide = \"yes\"", 4, "subscribers_decide"),
        ("[permission]\nsubscribers = true", 4, "subscribers"),
        ("[[keep]]\nwhat = \"both\"", 3, "not_after"),
        ("[[keep]]\nwhat = \"all\"\nnot_after = \"40d after end\"", 4, "keep.what"),
        ("[[keep]]\nwhat = \"both\"\nnot_after = \"40d after birth\"", 5, "keep.not_after"),
        ("[[keep]]\nwhat = \"both\"\nnot_after = []", 5, "keep.not_after"),
        ("[[keep]]\nwhat = \"both\"\nnot_after = \"{keep} after end\"", 5, "keep.not_after"),
        ("[[keep]]\nwhat = \"both\"\ncategory = \"fax\"\nnot_after = \"40d after end\"", 5, "keep.category"),
        ("[[keep]]\nwhat = \"both\"\njurisdiction = \"de\"\nnot_after = \"40d after end\"", 5, "keep.jurisdiction"),
        ("[[keep]]\nwhat = \"both\"\nwhile = \"account asleep\"\nnot_after = \"40d after end\"", 5, "keep.while"),
        // Within the margin; never applies; for ever; in some states only.
        ("[[keep]]\nwhat = \"both\"\nnot_after = \"47h after end\"", 3, "keep.not_after"),
        ("[[keep]]\nwhat = \"both\"\nwhile = \"account open\"\nnot_after = \"40d after close\"", 3, "keep.while"),
        ("[[keep]]\nwhat = \"both\"\nnot_after = \"40d after deactivation\"", 3, "keep.not_after"),
        ("[[keep]]\nwhat = \"both\"\nwhile = \"account open\"\nnot_after = \"40d after end\"", 3, "keep.while"),
        (
            "[[keep]]\nwhat = \"both\"\nnot_before = \"39d after end\"\nnot_after = \"40d after end\"",
            3,
            "keep.not_after",
        ),
        // A promise that falls due while what it must not go before has not happened.
        (
            "[[keep]]\nwhat = \"both\"\nnot_before = \"30d after close\"\nnot_after = \"40d after end\"",
            3,
            "keep.not_before",
        ),
    ];
    for (rules, line, field) in cases {
        let error = read(&with(rules)).expect_err(rules);
        assert_eq!((error.line, error.field.as_str()), (*line, *field), "{rules}\n{error}");
        assert!(!error.remedy.is_empty());
    }
    assert!(read(&with(keep)).is_ok());
    let second = |rule: &str| read(&with(&format!("{keep}{rule}"))).expect_err(rule);
    let tie = second("[[keep]]\nwhat = \"audio\"\nnot_after = \"30d after end\"");
    assert_eq!((tie.line, tie.field.as_str()), (6, "keep"));
    assert!(tie.remedy.contains("line 3"));
    let floor = second("[[floor]]\nwhat = \"audio\"\nkeep_at_least = \"39d after end\"\nground = \"law\"");
    assert_eq!((floor.line, floor.field.as_str()), (3, "keep.not_after"));
    assert!(floor.remedy.contains("line 6"));
    let event = second("[[floor]]\nwhat = \"audio\"\nkeep_at_least = \"1d after close\"\nground = \"law\"");
    assert_eq!((event.line, event.field.as_str()), (8, "floor.keep_at_least"));
    let basis = second("[[basis]]\nrequired = \"consent\"\n[[basis]]\nrequired = \"contract\"");
    assert_eq!((basis.line, basis.field.as_str()), (8, "basis"));
}

#[test]
fn a_rule_that_never_governs_is_a_fault() {
    let each: String = Category::ALL
        .iter()
        .map(|it| format!("[[keep]]\nwhat = \"both\"\ncategory = \"{}\"\nnot_after = \"9d after end\"\n", it.word()))
        .collect();
    assert!(read(&with(&each)).is_ok());
    let error = read(&with(&format!("[[keep]]\nwhat = \"both\"\nnot_after = \"8d after end\"\n{each}")));
    assert_eq!(error.expect_err("never governs").line, 3);
}

#[test]
fn a_floor_wins_over_a_promise_that_yields_and_says_so() {
    let rules = "[[keep]]\nwhat = \"both\"\nnot_after = \"30d after end\"\nyields_to_floor = true\n\
                 [[floor]]\nwhat = \"audio\"\nkeep_at_least = \"60d after end\"\nground = \"a duty\"\n";
    let verdict = read(&with(rules)).expect("good").verdict(&call(Part::Audio)).expect("governed");
    assert_eq!((verdict.aim, verdict.not_after), (Some(days(60)), Some(days(62))));
    assert!(verdict.says.contains("later than") && verdict.says.contains("a duty"), "{}", verdict.says);
}

#[test]
fn a_running_call_has_a_floor_and_is_not_due_by_its_end() {
    let rules = "[[keep]]\nwhat = \"both\"\nnot_after = \"90d after end\"\n\
                 [[floor]]\nwhat = \"both\"\nkeep_at_least = \"60d after end\"\nground = \"a duty\"\n";
    let running = Subject { end: CallEnd::Running { at: days(1) }, ..call(Part::Audio) };
    let verdict = read(&with(rules)).expect("good").verdict(&running).expect("governed");
    assert_eq!((verdict.aim, verdict.floor.map(|floor| floor.until)), (None, Some(days(61))));
}

#[test]
fn what_no_rule_names_is_not_governed() {
    let policy =
        read(&with("[[keep]]\nwhat = \"both\"\ncategory = \"call\"\nnot_after = \"9d after end\"")).expect("good");
    assert!(policy.verdict(&call(Part::Facts)).is_some());
    assert!(policy.verdict(&Subject { category: Category::Video, ..call(Part::Facts) }).is_none());
}

#[test]
fn grounds_of_parts_are_joined_where_they_differ() {
    let rules = "[[keep]]\nwhat = \"both\"\nnot_after = \"9y after end\"\n\
                 [[floor]]\nwhat = \"audio\"\nkeep_at_least = \"2y after end\"\nground = \"a\"\n\
                 [[floor]]\nwhat = \"both\"\nkeep_at_least = \"1y after end\"\nground = \"b\"\n\
                 [[floor]]\nwhat = \"facts\"\ncategory = \"video\"\nkeep_at_least = \"3y after end\"\nground = \"c\"\n";
    let policy = read(&with(rules)).expect("good");
    for category in Category::ALL {
        let floor = |part| policy.verdict(&Subject { category, ..call(part) }).expect("governed").floor;
        let ground = Policy::joined_ground(floor(Part::Audio).as_ref(), floor(Part::Facts).as_ref());
        assert!(policy.grounds().contains(&ground.expect("floors")), "{category:?}");
    }
    assert!(policy.grounds().contains("a (audio), c (facts)"));
}

#[test]
fn a_policy_that_governs_less_is_told_apart() {
    let rule = |reach: &str| {
        read(&with(&format!("[[keep]]\nwhat = \"both\"\n{reach}not_after = \"9d after end\"\n"))).expect("good")
    };
    let (all, calls, german) = (rule(""), rule("category = \"call\"\n"), rule("jurisdiction = \"DE\"\n"));
    assert_eq!((all.lacks_of(&calls), all.lacks_of(&german), all.lacks_of(&all)), (None, None, None));
    assert_eq!(calls.lacks_of(&all), Some((Category::Voicemail, Part::Audio)));
    assert_eq!(german.lacks_of(&calls), Some((Category::Call, Part::Audio)));
    assert_eq!(calls.lacks_of(&german), Some((Category::Voicemail, Part::Audio)));
}

#[test]
fn the_basis_of_a_jurisdiction_goes_before_the_general_one() {
    let rules = "[[basis]]\nrequired = \"contract\"\n[[basis]]\njurisdiction = [\"DE\", \"AT\"]\nrequired = \"consent\"\n\
                 evidence = \"all-parties\"\nannouncement = \"required\"\n\
                 [[keep]]\nwhat = \"both\"\nnot_after = \"9d after end\"";
    let policy = read(&with(rules)).expect("good");
    assert_eq!(policy.basis(None).required, [Basis::Contract]);
    let german = policy.basis("DE".parse().ok());
    assert!(german.required == [Basis::Consent] && german.evidence_of_all_parties && german.announcement);
}

/// A rule's times, category, jurisdiction and states, drawn so that most policies pass the checks.
fn rule() -> impl Strategy<Value = String> {
    let category = prop_oneof![Just(""), Just("category = \"call\"\n"), Just("category = [\"video\", \"media\"]\n")];
    let jurisdiction =
        prop_oneof![Just(""), Just("jurisdiction = \"DE\"\n"), Just("jurisdiction = [\"FR\", \"GB\"]\n")];
    let states = prop_oneof![3 => Just(""), 1 => Just("while = \"account closed\"\n")];
    let what = prop_oneof![Just("both"), Just("audio"), Just("facts")];
    let event = || prop_oneof![Just("end"), Just("close"), Just("deactivation")];
    let least = prop_oneof![
        2 => Just(String::new()),
        1 => (1u32..400, event()).prop_map(|(days, event)| format!("not_before = \"{days}d after {event}\"\n")),
    ];
    (what, category, jurisdiction, states, 2u32..400, 2u32..400, event(), any::<bool>(), least).prop_map(
        |(what, category, jurisdiction, states, first, second, event, yields, least)| {
            let yields = if yields { "yields_to_floor = true\n" } else { "" };
            format!(
                "[[keep]]\nwhat = \"{what}\"\n{category}{jurisdiction}{states}{least}\
                 not_after = [\"{first}d after {event}\", \"{second}d 1h after end\"]\n{yields}"
            )
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let floor = (2u32..500, prop_oneof![Just("both"), Just("audio")]).prop_map(|(days, what)| {
        format!("[[floor]]\nwhat = \"{what}\"\nkeep_at_least = \"{days}d after end\"\nground = \"g\"\n")
    });
    let general = (2u32..400).prop_map(|days| {
        format!("[[keep]]\nwhat = \"both\"\nnot_after = \"{days}d after end\"\nyields_to_floor = true\n")
    });
    (general, prop::collection::vec(rule(), 0..3), prop::collection::vec(floor, 0..2), 0u32..48)
        .prop_map(|(general, rules, floors, margin)| {
            read(&format!(
                "margin = \"{margin}h\"\n{}",
                with(&format!("{general}{}{}", rules.concat(), floors.concat()))
            ))
        })
        .prop_filter_map("a policy that passes its checks", Result::ok)
}

fn subject() -> impl Strategy<Value = Subject> {
    let jurisdiction =
        prop_oneof![Just(None), Just("DE".parse().ok()), Just("GB".parse().ok()), Just("IT".parse().ok())];
    (0usize..7, any::<bool>(), jurisdiction, 0i64..1000, any::<bool>(), -50i64..1000, -50i64..1000).prop_map(
        |(category, audio, jurisdiction, end, running, closed, deactivated)| Subject {
            category: Category::ALL[category],
            part: if audio { Part::Audio } else { Part::Facts },
            jurisdiction,
            end: if running { CallEnd::Running { at: days(end) } } else { CallEnd::Ended { at: days(end) } },
            account: if closed < 0 { AccountState::Open } else { AccountState::Closed { at: days(closed) } },
            subscriber: match deactivated < 0 {
                true => SubscriberState::Active,
                false => SubscriberState::Deactivated { at: days(deactivated) },
            },
        },
    )
}

proptest! {
    #[test]
    fn a_verdict_keeps_its_laws(policy in policy(), subject in subject()) {
        let verdict = policy.verdict(&subject).expect("a general rule governs");
        prop_assert_eq!(verdict.aim.is_some(), verdict.not_after.is_some());
        let (CallEnd::Running { at } | CallEnd::Ended { at }) = subject.end;
        prop_assert!(verdict.not_before >= at);
        if let Some((aim, not_after)) = verdict.aim.zip(verdict.not_after) {
            prop_assert!(aim >= verdict.not_before);
            prop_assert!(policy.margin().after(aim) <= not_after);
            if let Some(floor) = verdict.floor {
                prop_assert!(aim >= floor.until);
            }
        }
    }

    #[test]
    fn a_more_specific_rule_wins(general in 3u32..400, category in 3u32..400, place in 3u32..400, state in 3u32..400) {
        let rule = |reach: &str, days: u32| format!("[[keep]]\nwhat = \"both\"\n{reach}not_after = \"{days}d after end\"\n");
        let text = with(&[
            rule("", general),
            rule("while = \"account closed\"\n", state),
            rule("jurisdiction = \"DE\"\n", place),
            rule("category = \"call\"\n", category),
        ].concat());
        let policy = read(&text).expect("good");
        let german = Subject { jurisdiction: "DE".parse().ok(), ..call(Part::Audio) };
        let video = Subject { category: Category::Video, ..german };
        let closed = AccountState::Closed { at: days(1) };
        prop_assert_eq!(promise(&policy, german), Some(i64::from(category)));
        prop_assert_eq!(promise(&policy, Subject { account: closed, ..video }), Some(i64::from(place)));
        prop_assert_eq!(promise(&policy, Subject { jurisdiction: None, account: closed, ..video }), Some(i64::from(state)));
        prop_assert_eq!(promise(&policy, Subject { jurisdiction: None, ..video }), Some(i64::from(general)));
    }

    #[test]
    fn a_policy_reads_back_as_it_is_shown(policy in policy()) {
        let again = read(&policy.to_string());
        prop_assert_eq!(again.expect("reads back"), policy);
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,200}", key in "[a-z_]{1,12}", value in "\"[ -~]{0,30}\"") {
        let _ = read(&text);
        let _ = Policy::outline(&text);
        let _ = read(&with(&format!("{key} = {value}")));
        let _ = read(&with(&format!("[[keep]]\nwhat = \"both\"\nnot_after = {value}\n{key} = {value}")));
        let _ = read(&with(&format!("[parameters]\nkeep = {{ default = {value} }}\n[[floor]]\nkeep_at_least = {value}")));
    }

    #[test]
    fn hostile_bytes_are_no_jurisdiction(bytes: [u8; 2]) {
        let jurisdiction = Jurisdiction::from_bytes(bytes);
        prop_assert_eq!(jurisdiction.is_some(), bytes.iter().all(u8::is_ascii_uppercase));
        if let Some(jurisdiction) = jurisdiction {
            prop_assert_eq!(jurisdiction.to_string().parse(), Ok(jurisdiction));
        }
    }
}
