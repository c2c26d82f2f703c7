//! `broadcloud`, a hosted PBX.

use super::{
    served::{REGIONS, World},
    stage::{
        self, CUSTOMER, DAY, DONE, HOUR, Left, NOT_PERMITTED, PROVIDER, REFUSED, Recorded, STAFF, Stage, Take, found,
    },
    traces::Traces,
    wire::{self, Call, assert_plays, sound, store},
};
use quietus::{cli::args::Transport, proto::v1};

const NUMBER: &str = "+441632960041";
const OTHER: &str = "+441632960042";

fn stage() -> Stage {
    let stage = Stage::open();
    stage.tenant("acme", "broadcloud", &[]);
    stage
}

/// Forty days, and not one that backups would add.
#[test]
fn b1_call_recordings_are_gone_on_day_40() {
    let mut stage = stage();
    let call = stage.record(&Take::call("acme", NUMBER));
    let before = stage.steal();
    stage.wait(39 * HOUR);
    let later = stage.record(&Take::call("acme", NUMBER));
    // Traffic data goes by its own rule, after 30.
    stage.goes_by(&call, call.at + 30 * DAY, Left::Both, Left::Audio);
    stage.steal();
    stage.restart();
    stage.goes_by(&later, later.at + 30 * DAY, Left::Both, Left::Audio);
    stage.goes_by(&call, call.at + 40 * DAY, Left::Audio, Left::Nothing);
    assert!(stage.plays(&later), "each call has its own forty days");
    stage.assert_left(&before, &[(&call, Left::Nothing)]);
    stage.goes_by(&later, later.at + 40 * DAY, Left::Audio, Left::Nothing);
    stage.settled();
    assert!(stage.objects("eu-west-2").is_empty());
}

/// What users make goes as soon as they are deactivated, or the service ends; their calls have their own time.
#[test]
fn b2_voicemails_messages_and_media_go_with_their_user_or_the_service() {
    let stage = stage();
    let made = |number: &str| {
        ["voicemail", "message", "media"].map(|kind| stage.record(&Take::call("acme", number).kind(kind)))
    };
    let (first, second) = (made(NUMBER), made(OTHER));
    let call = stage.record(&Take::call("acme", NUMBER));
    let before = stage.steal();
    stage.noticed_at(call.at + 20 * DAY);
    assert!(first.iter().chain(&second).all(|recorded| stage.plays(recorded)), "kept while the user is active");

    let gone = |all: &[Recorded]| all.iter().all(|recorded| !stage.plays(recorded));
    stage.ok(CUSTOMER, &["subscriber", "deactivate", &format!("acme/{NUMBER}")]);
    stage.until("it is gone, with no time passing", || gone(&first));
    stage.noticed();
    assert!(stage.plays(&call) && second.iter().all(|recorded| stage.plays(recorded)));
    let (_, refused) = stage.attempt(&Take::call("acme", NUMBER).kind("voicemail"));
    assert_eq!(refused.status.code(), Some(REFUSED));
    let expect = |all: &'static str| if all == "gone" { Left::Facts } else { Left::Both };
    let expected: Vec<_> =
        first.iter().map(|it| (it, expect("gone"))).chain(second.iter().map(|it| (it, expect("kept")))).collect();
    stage.assert_left(&before, &expected);

    stage.ok(CUSTOMER, &["tenant", "close", "acme", "--confirm", "acme"]);
    stage.until("the service has ended", || gone(&second));
    stage.noticed();
    assert!(stage.plays(&call), "forty days are for calls");
    let expected: Vec<_> = first.iter().chain(&second).map(|recorded| (recorded, Left::Facts)).collect();
    stage.assert_left(&before, &[&expected[..], &[(&call, Left::Both)]].concat());
    // Their traffic data follows after thirty days.
    stage.goes_by(&call, call.at + 30 * DAY, Left::Both, Left::Audio);
    stage.assert_words(&before, &[&first[0].mark, &second[2].mark, &call.mark], &[NUMBER]);
}

/// Traffic data up to thirty days; longer for an investigation, which is a hold with a ground.
#[test]
fn b3_traffic_data_is_gone_on_day_30_unless_a_fraud_is_investigated() {
    let stage = stage();
    let [call, held] =
        [NUMBER, OTHER].map(|number| stage.record(&Take::call("acme", number).more(&["--party", "+4930960041"])));
    let before = stage.steal();
    let review = "2027-06-01T00:00:00Z";
    let place = ["hold", "place", "--recording", &held.id, "--ground", "investigation", "--authority", "fraud desk 17"];
    let hold = stage.json(CUSTOMER, &[&place[..], &["--review", review]].concat()).remove(0)["id"].clone();
    stage.goes_by(&call, call.at + 30 * DAY, Left::Both, Left::Audio);
    assert_eq!(stage.left(&held), Left::Both);
    stage.assert_left(&before, &[(&call, Left::Audio), (&held, Left::Both)]);
    stage.noticed_at(call.at + 60 * DAY);
    assert_eq!((stage.left(&call), stage.left(&held)), (Left::Nothing, Left::Both));
    let parked = stage.json(CUSTOMER, &["hold", "list", "--tenant", "acme", "--parked"]);
    assert!(!parked.is_empty() && parked.iter().all(|waits| waits["hold"] == hold), "{parked:?}");
    stage.ok(CUSTOMER, &["hold", "lift", hold.as_str().expect("an id")]);
    stage.until("it goes by itself", || stage.left(&held) == Left::Nothing);
    stage.assert_left(&before, &[(&call, Left::Nothing), (&held, Left::Nothing)]);
}

/// In Germany seven days for traffic data, which takes nothing from the forty of the audio.
#[test]
fn b3_de_facts_gone_day7_audio_plays_day8() {
    let stage = stage();
    let german = stage.record(&Take::call("acme", NUMBER).more(&["--jurisdiction", "DE"]));
    let british = stage.record(&Take::call("acme", NUMBER).more(&["--jurisdiction", "GB"]));
    let unstated = stage.record(&Take::call("acme", NUMBER));
    let before = stage.steal();
    stage.goes_by(&german, german.at + 7 * DAY, Left::Both, Left::Audio);
    stage.noticed_at(german.at + 8 * DAY);
    let now = |stage: &Stage| [&german, &british, &unstated].map(|it| stage.left(it));
    assert_eq!(now(&stage), [Left::Audio, Left::Both, Left::Both]);
    stage.assert_left(&before, &[(&german, Left::Audio), (&british, Left::Both), (&unstated, Left::Both)]);
    stage.goes_by(&british, british.at + 30 * DAY, Left::Both, Left::Audio);
    stage.until("the one without a country too", || now(&stage) == [Left::Audio; 3]);
    stage.goes_by(&german, german.at + 40 * DAY, Left::Audio, Left::Nothing);
    stage.assert_left(&before, &[&german, &british, &unstated].map(|it| (it, Left::Nothing)));
}

/// Application logs need no deletion for what is in them: no line is personal data.
#[test]
fn b5_no_log_line_is_personal_data() {
    let words =
        ["acme-wqzvjk", "+441632960043", "maria-hqzvwx", "call-kqzjvw", "queue-vzqwkj", "fault-jqkzwv", "T-qwkzvj"];
    let [tenant, number, party, label, queue, purpose, ticket] = words;
    let traces = Traces::of(&words.map(|word| (word, word.as_bytes())));
    let mut stage = Stage::with("debug", &[]);
    stage.tenant(tenant, "broadcloud", &[]);
    let label = format!("{label}={queue}");
    let more = ["--party", party, "--label", &label, "--purpose", purpose];
    let call = stage.record(&Take::call(tenant, number).more(&more));
    let live = stage.record(&Take::call(tenant, number).more(&[&more[..], &["--live"]].concat()));
    stage.ok(STAFF, &["show", &call.id, "--ticket", ticket]);
    let scope = format!("{tenant}/{number}");
    let request =
        ["permission", "request", "--subscriber", &scope, "--purpose", purpose, "--ticket", ticket, "--for", "1h"];
    stage.ok(STAFF, &request);
    // What is refused is logged, too.
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);
    stage.refused(PROVIDER, &["tenant", "create", tenant, "--home", "eu-west-2"], 1);
    stage.refused(PROVIDER, &["subscriber", "show", &format!("{tenant}/{party}")], stage::UNKNOWN);
    let (_, refused) = stage.attempt(&Take::call(tenant, number).more(&["--media-type", party]));
    assert_ne!(refused.status.code(), Some(DONE));
    stage.ok(PROVIDER, &["subscriber", "deactivate", &scope]);
    stage.kill();
    stage.noticed_at(stage.now() + 40 * DAY);
    stage.ok(PROVIDER, &["erase", "subscriber", &scope]);
    stage.ok(PROVIDER, &["tenant", "purge", tenant, "--confirm", tenant]);
    stage.settled();
    let log = stage.gateway().log();
    assert!(log.matches(" INFO serving").count() == 2, "it did log: {log}");
    for text in [&log, &stage.metrics()] {
        traces.search("the log", text.as_bytes());
        for mark in [&call.mark, &live.mark] {
            assert!(!text.contains(mark.as_str()));
        }
    }
    // The search finds what is there.
    assert!(!traces.found(format!("{log} {number}").as_bytes()).is_empty());
}

/// After a kill everything that was acknowledged plays, and while a region is away it plays from the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_what_was_acknowledged_plays_after_a_kill_and_without_a_region() {
    let world = World::new("").await;
    let mut gateway = world.start();
    let link = |gateway: &super::gateway::Gateway| gateway.link("admin", Transport::H2);
    let root = gateway.client_file("root.toml").display().to_string();
    let create = ["tenant", "create", "acme", "--home", "eu-west-2", "--residency", "both", "--policy", "broadcloud"];
    let made = tokio::task::block_in_place(|| gateway.run(&[&create[..], &["--profile", &root]].concat()));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut all = Vec::new();
    for (seed, mode) in [v1::Mode::Live, v1::Mode::Spooled, v1::Mode::Live].into_iter().enumerate() {
        let content = sound(seed as u64, 300_000);
        all.push((store(link(&gateway), wire::open("acme", mode), &content).await, content));
    }
    wire::settled(link(&gateway)).await;
    // A call that is journaled, of which nothing is in S3.
    let speech = sound(9, 200_000);
    let mut running = Call::begin(link(&gateway), wire::open("acme", v1::Mode::Live)).await.expect("opened");
    assert!(running.rest(&speech, 0).await);
    running.until(|mark| mark.journaled == speech.len() as u64).await.expect("journaled");
    gateway.kill();
    gateway = world.start();
    for (id, content) in &all {
        assert_plays(link(&gateway), id, content).await;
    }
    let (_, heard) = wire::play(link(&gateway), &running.id(), None).await.expect("plays");
    assert!(heard == speech);

    for away in 0..REGIONS.len() {
        world.proxies[away].cut();
        for (id, content) in &all {
            assert_plays(link(&gateway), id, content).await;
        }
        // And what comes meanwhile is taken.
        let content = sound(20 + away as u64, 100_000);
        let id = store(link(&gateway), wire::open("acme", v1::Mode::Spooled), &content).await;
        assert_plays(link(&gateway), &id, &content).await;
        all.push((id, content));
        world.proxies[away].mend();
        wire::settled(link(&gateway)).await;
    }
    assert_eq!(world.objects(REGIONS[0]).len(), world.objects(REGIONS[1]).len(), "healed");
}

/// A key lies nowhere; what is kept is a salted hash, also of a secret that the customer brought.
#[test]
fn b7_api_keys_are_kept_as_hashes_only() {
    let stage = stage();
    let create = |name: &str, more: &[&str]| {
        stage.ok(CUSTOMER, &[&["apikey", "create", "acme", "--name", name, "--role", "admin"], more].concat())
    };
    let ours = create("crm-qzvwkj", &[]);
    let brought = "Jq7vXw2kZp9tLm4sRb8nYd3hGf6cTa1e";
    let own = stage.file("own", brought);
    let theirs = create("own-kwqzjv", &["--own", &own]);
    let hashed = "W4tLq8vXz2kJp7mRb9sNy3dHf6gCa1eT5u";
    let digest = data_encoding::HEXLOWER.encode(&wire::sha256(hashed.as_bytes()));
    let prefix = create("sha-vjqkwz", &["--own-sha256", &digest]);
    let tokens = [ours.clone(), theirs, format!("{prefix}{hashed}")];
    let call = stage.record(&Take::call("acme", NUMBER));
    for token in &tokens {
        stage.holder("holder", token);
        assert!(stage.plays_to("holder", &call), "the key works");
    }
    for wrong in [format!("{ours}x"), ours.replace("qk_", "qk-"), String::from("password")] {
        stage.holder("holder", &wrong);
        stage.refused("holder", &["show", &call.id], NOT_PERMITTED);
    }

    // Not in a file of the gateway, and not in anything that its own root opens.
    let secret = ours.splitn(3, '_').nth(2).expect("a secret");
    let traces =
        Traces::of(&[("ours", secret.as_bytes()), ("theirs", brought.as_bytes()), ("hashed", hashed.as_bytes())]);
    for folder in ["keys", "journal", "slot", "s3", "tls"] {
        traces.search_folder(&stage.data().join(folder));
    }
    traces.search("the log", stage.gateway().log().as_bytes());
    let findings = stage.attack(&[], &[secret, brought, hashed, &digest, "crm-qzvwkj", "own-kwqzjv", "sha-vjqkwz"]);
    let expected = ["crm-qzvwkj", "own-kwqzjv", "sha-vjqkwz"].map(str::to_owned);
    assert_eq!(found(&findings), expected.into(), "the names that people gave them, and no more");
}

/// Connection data is a category of its own, and goes at once; so does what a user made. What names them goes with them.
#[test]
fn b13_what_is_known_of_users_goes_at_deactivation_or_the_end_of_the_service() {
    let stage = stage();
    let profile = ["--party", "maria-wqzkjv", "--label", "device=kqzwvj", "--media-type", "application/json"];
    let logins =
        [NUMBER, OTHER].map(|number| stage.record(&Take::call("acme", number).kind("connection").more(&profile)));
    let call = stage.record(&Take::call("acme", NUMBER));
    stage.ok(CUSTOMER, &["apikey", "create", "acme", "--name", "crm-qzvwkj", "--role", "auditor"]);
    stage.ok(STAFF, &["show", &logins[0].id, "--ticket", "T-vkqzwj"]);
    let before = stage.steal();
    stage.noticed_at(stage.now() + 10 * DAY);
    assert!(logins.iter().all(|it| stage.left(it) == Left::Both), "in use");
    stage.ok(CUSTOMER, &["subscriber", "deactivate", &format!("acme/{NUMBER}")]);
    stage.until("it is gone, with no time passing", || stage.left(&logins[0]) == Left::Nothing);
    stage.noticed();
    assert_eq!((stage.left(&logins[1]), stage.left(&call)), (Left::Both, Left::Both));
    stage.assert_left(&before, &[(&logins[0], Left::Nothing), (&logins[1], Left::Both), (&call, Left::Both)]);

    stage.ok(CUSTOMER, &["tenant", "close", "acme", "--confirm", "acme"]);
    stage.until("the service has ended", || stage.left(&logins[1]) == Left::Nothing);
    stage.noticed();
    assert_eq!(stage.left(&call), Left::Both, "a call has its own time");
    stage.assert_words(&before, &["maria-wqzkjv", "kqzwvj"], &[NUMBER, OTHER, "acme", "crm-qzvwkj"]);
    stage.ok(CUSTOMER, &["tenant", "purge", "acme", "--confirm", "acme"]);
    stage.assert_words(&before, &[NUMBER, OTHER, "maria-wqzkjv", "kqzwvj", "acme", "crm-qzvwkj"], &[]);
}
