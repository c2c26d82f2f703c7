//! `vclerk`, video clerks.

use super::{
    stage::{
        self, CUSTOMER, DAY, ERASED, Left, MARGIN, MINUTE, NOT_PERMITTED, OVERDUE, PROVIDER, REFUSED, Stage, Take,
        USAGE,
    },
    wire::{self, Call, sound},
};
use quietus::proto::v1;
use tower::{Service as _, ServiceExt as _};

const NUMBER: &str = "+441632960061";
const OTHER: &str = "+441632960062";

fn stage() -> Stage {
    let stage = Stage::open();
    stage.tenant("acme", "vclerk", &["--keep", "90d"]);
    stage
}

/// Any media type is kept and played back as what it is; in which role and to what purpose are facts of it.
#[test]
fn v1_video_of_any_media_type_with_its_role_and_purpose() {
    let stage = stage();
    let more =
        ["--media-type", "video/webm;codecs=vp9", "--purpose", "to improve the service", "--label", "role=controller"];
    let video = stage.record(&Take::call("acme", NUMBER).kind("video").more(&more));
    assert!(stage.plays(&video));
    let facts = stage.facts(&video).expect("kept");
    assert_eq!((&facts["kind"], &facts["purpose"]), (&"video".into(), &"to improve the service".into()));
    assert_eq!(facts["labels"]["role"], "controller");
    let mut link = stage.link(CUSTOMER);
    let request = http::Request::get(format!("https://localhost/v1/recordings/{}/audio", video.id));
    let played = stage.block_on(async move {
        let request = request.body(tonic::body::Body::empty()).expect("a request");
        link.ready().await.expect("ready").call(request).await.expect("an answer").headers()["content-type"].clone()
    });
    assert_eq!(played, "video/webm;codecs=vp9");
    let before = stage.steal();
    stage.goes_by(&video, video.at + 90 * DAY, Left::Both, Left::Nothing);
    stage.assert_left(&before, &[(&video, Left::Nothing)]);
}

/// Sixty days after close nothing is left of the account; how long recordings live in it, whoever makes it must say.
#[test]
fn v2_nothing_of_an_account_is_left_sixty_days_after_close() {
    let stage = Stage::open();
    let without = ["tenant", "create", "acme", "--home", "eu-west-2", "--policy", "vclerk"];
    let said = stage.refused(PROVIDER, &without, USAGE);
    assert!(said.contains("keep"), "{said}");
    stage.tenant("acme", "vclerk", &["--keep", "2y"]);
    let account = stage.record(&Take::call("acme", NUMBER).kind("connection").more(&["--party", "maria-wqzkjv"]));
    let video = stage.record(&Take::call("acme", NUMBER).kind("video"));
    stage.wait(100 * DAY);
    let short = stage.record(&Take::call("acme", OTHER));
    stage.noticed_at(account.at + 2 * 365 * DAY - 60 * DAY);
    assert_eq!([&account, &video, &short].map(|it| stage.left(it)), [Left::Both; 3]);
    stage.ok(CUSTOMER, &["tenant", "close", "acme"]);
    let before = stage.steal();
    let promise = stage.now() + 60 * DAY;
    let all = [&account, &video, &short];
    assert_eq!(all.map(|it| stage.explained(it, "facts")), [(Some(promise - MARGIN), Some(promise)); 3]);
    stage.goes_by(&account, promise, Left::Both, Left::Nothing);
    stage.until("all of it", || [&video, &short].iter().all(|it| stage.left(it) == Left::Nothing));
    stage.nothing_is_late();
    stage.assert_left(&before, &[&account, &video, &short].map(|it| (it, Left::Nothing)));
    stage.assert_words(&before, &["maria-wqzkjv"], &[NUMBER, OTHER]);
}

/// The key goes at once; the ciphertext by a deadline, which alarms when it passes; a second receipt says when it is gone.
#[test]
fn v3_erased_at_once_and_the_ciphertext_swept_by_its_deadline() {
    let stage = stage();
    let gone = stage.record(&Take::call("acme", NUMBER));
    let kept = stage.record(&Take::call("acme", NUMBER));
    stage.settled();
    let before = stage.steal();
    // The bucket is away: nothing can be swept.
    let (bucket, away) = (stage.data().join("s3/eu-west-2"), stage.path("away"));
    std::fs::rename(&bucket, &away).expect("moved");
    let file = stage.path("receipt");
    stage.ok(CUSTOMER, &["erase", "recording", &gone.id, "--receipt", &file.display().to_string()]);
    let receipt = std::fs::read_to_string(&file).expect("a receipt");
    assert!(
        receipt.contains("\nstate: destroyed\n") && receipt.contains("\nciphertext: eu-west-2 pending\n"),
        "{receipt}"
    );
    let id = receipt.lines().find_map(|line| line.strip_prefix("receipt: ")).expect("its id").to_owned();
    assert_eq!(stage.status(CUSTOMER, &["play", &gone.id]), ERASED);
    stage.assert_left(&before, &[(&gone, Left::Nothing), (&kept, Left::Both)]);

    let overdue = |stage: &Stage| stage.metrics().contains("\nquietus_receipts_overdue_count 1\n");
    stage.go_to(stage.now() + 30 * DAY - MINUTE);
    assert_eq!(stage.status(CUSTOMER, &["receipt", "list", "--tenant", "acme"]), 0);
    assert!(!overdue(&stage));
    stage.wait(2 * MINUTE);
    assert_eq!(stage.status(CUSTOMER, &["receipt", "list", "--tenant", "acme"]), OVERDUE);
    assert!(overdue(&stage));
    std::fs::rename(&away, &bucket).expect("moved back");
    assert_eq!(stage.objects("eu-west-2").len(), 2, "the ciphertext was still there");
    stage.settled();
    let second = || {
        let receipts = stage.json(CUSTOMER, &["receipt", "list", "--tenant", "acme"]);
        let first = receipts.iter().find(|it| it["receipt"] == id.as_str()).expect("the first");
        first["swept_by"].as_str().map(str::to_owned)
    };
    stage.until("the second receipt", || second().is_some());
    assert!(!overdue(&stage));
    let file = stage.path("second").display().to_string();
    stage.ok(CUSTOMER, &["receipt", "show", &second().expect("it is there"), "-o", &file]);
    let key = stage.gateway().client_file("audit.vkey").display().to_string();
    let verified = stage.json(CUSTOMER, &["receipt", "verify", &file, "--key", &key]).remove(0);
    assert_eq!(verified["state"], "ciphertext removed");
    assert_eq!(stage.objects("eu-west-2").len(), 1);
    assert!(stage.plays(&kept));
}

/// Litigation keeps, and what it kept goes as soon as nothing requires it any more, by itself.
#[test]
fn v4_a_hold_parks_what_is_due_and_lets_go_by_itself() {
    let mut stage = stage();
    let [held, asked, free] = [0; 3].map(|_| stage.record(&Take::call("acme", NUMBER)));
    let other = stage.record(&Take::call("acme", OTHER));
    let before = stage.steal();
    let place = |scope: &[&str], ground: &str| {
        let review = ["--authority", "county court, case 17", "--review", "2027-06-01T00:00:00Z", "--ground", ground];
        let hold = stage.json(CUSTOMER, &[&["hold", "place"], scope, &review].concat()).remove(0);
        hold["id"].as_str().expect("an id").to_owned()
    };
    let first = place(&["--recording", &held.id], "litigation");
    let second = place(&["--tenant", "acme", "--subscriber", NUMBER], "law enforcement");
    let third = place(&["--recording", &asked.id], "investigation");
    let said = stage.refused(CUSTOMER, &["erase", "recording", &asked.id], REFUSED);
    assert!(said.contains("hold"), "{said}");
    stage.ok(CUSTOMER, &["hold", "lift", &second]);
    assert_eq!(stage.left(&asked), Left::Both, "the other hold stands");
    stage.noticed_at(held.at + 90 * DAY);
    let now = |stage: &Stage| [&held, &asked, &free, &other].map(|it| stage.left(it));
    assert_eq!(now(&stage), [Left::Both, Left::Both, Left::Nothing, Left::Nothing]);
    stage.restart();
    stage.noticed();
    assert_eq!(now(&stage), [Left::Both, Left::Both, Left::Nothing, Left::Nothing]);
    stage.assert_left(
        &before,
        &[(&held, Left::Both), (&asked, Left::Both), (&free, Left::Nothing), (&other, Left::Nothing)],
    );
    stage.nothing_is_late();

    for hold in [&first, &third] {
        stage.ok(CUSTOMER, &["hold", "lift", hold]);
    }
    stage.until("both are gone, with no time passing", || now(&stage) == [Left::Nothing; 4]);
    stage.assert_left(&before, &[(&held, Left::Nothing), (&asked, Left::Nothing)]);
    // What the holds said is gone with them.
    stage.assert_words(&before, &[&held.mark], &[NUMBER]);
}

/// Keys of the account, made by us or brought by the customer; listed, and taken back one by one.
#[test]
fn v6_api_keys_are_made_listed_revoked_and_brought() {
    let stage = stage();
    stage.tenant("globex", "vclerk", &["--keep", "90d"]);
    let video = stage.record(&Take::call("acme", NUMBER).kind("video"));
    let foreign = stage.record(&Take::call("globex", NUMBER).kind("video"));
    let create = |name: &str, role: &str, more: &[&str]| {
        stage.ok(CUSTOMER, &[&["apikey", "create", "acme", "--name", name, "--role", role], more].concat())
    };
    let own = stage.file("own", "Jq7vXw2kZp9tLm4sRb8nYd3hGf6cTa1e");
    stage.refused(
        CUSTOMER,
        &["apikey", "create", "acme", "--name", "weak", "--role", "admin", "--own", &stage.file("weak", "password")],
        USAGE,
    );
    let keys = [("ours", create("ours", "admin", &[])), ("theirs", create("theirs", "admin", &["--own", &own]))];
    for (name, token) in &keys {
        stage.holder(name, token);
        assert!(stage.plays_to(name, &video));
        stage.refused(name, &["show", &foreign.id], stage::UNKNOWN);
        stage.refused(name, &["apikey", "create", "acme", "--name", "more", "--role", "admin"], NOT_PERMITTED);
    }
    stage.holder("auditor-key", &create("looks", "auditor", &[]));
    stage.refused("auditor-key", &["play", &video.id], NOT_PERMITTED);
    let listed = stage.json(CUSTOMER, &["apikey", "list", "acme"]);
    let names: Vec<_> = listed.iter().map(|key| (key["name"].clone(), key["revoked"].is_null())).collect();
    assert!(names.len() == 3 && names.iter().all(|(_, live)| *live), "{names:?}");
    assert!(stage.json(CUSTOMER, &["apikey", "list", "globex"]).is_empty());

    let id = listed.iter().find(|key| key["name"] == "ours").expect("listed")["id"].as_str().expect("an id").to_owned();
    stage.ok(CUSTOMER, &["apikey", "revoke", "acme", &id]);
    stage.refused("ours", &["show", &video.id], NOT_PERMITTED);
    assert!(stage.plays_to("theirs", &video));
    let listed = stage.json(CUSTOMER, &["apikey", "list", "acme"]);
    assert_eq!(listed.iter().filter(|key| !key["revoked"].is_null()).count(), 1);
}

/// A key that got out is worth nothing from that moment on, and what it touched can be told.
#[test]
fn v13_a_key_that_got_out_is_revoked_at_once_and_what_it_touched_is_told() {
    let mut stage = stage();
    let video = stage.record(&Take::call("acme", NUMBER).kind("video"));
    let untouched = stage.record(&Take::call("acme", OTHER).kind("video"));
    let made = stage.json(CUSTOMER, &["apikey", "create", "acme", "--name", "crm", "--role", "admin"]).remove(0);
    let (id, token) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    stage.holder("thief", token);
    assert!(stage.plays_to("thief", &video));
    let first = stage::open(&stage, "acme", OTHER, v1::Mode::Live);
    let (link, content) = (stage.link("thief"), sound(3, 50_000));
    let mut running = stage.block_on(async {
        let mut call = Call::begin(link, first).await.expect("opened");
        assert!(call.rest(&content, 0).await);
        call.until(|mark| mark.journaled == content.len() as u64).await.expect("journaled");
        call
    });
    stage.ok(CUSTOMER, &["apikey", "revoke", "acme", id]);
    let status = stage.block_on(running.until_refused());
    assert_eq!(wire::reason(&status), "UNAUTHENTICATED", "{status:?}");
    for tried in [&["play", &video.id][..], &["list", "--tenant", "acme"], &["erase", "recording", &video.id]] {
        stage.refused("thief", tried, NOT_PERMITTED);
    }
    stage.restart();
    stage.holder("thief", token);
    stage.refused("thief", &["play", &video.id], NOT_PERMITTED);

    let report = stage.json(CUSTOMER, &["apikey", "report", "acme", id]);
    let touched = report.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(report.iter().all(|entry| entry["actor"] == format!("key/{id}")), "{touched}");
    assert!(report.iter().any(|entry| entry["action"] == "play" && entry.to_string().contains(&video.id)), "{touched}");
    assert!(!touched.contains(&untouched.id), "{touched}");
    assert!(stage.plays(&video));
}
