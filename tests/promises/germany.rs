//! `germany`: with the evidence of everybody on the line, else not at all.

use super::stage::{CUSTOMER, DAY, DONE, Left, Stage, Take};

const NUMBER: &str = "+4930960071";
const OTHER: &str = "+4930960072";

/// Who is missing is named by place, and nothing of it is stored.
#[test]
fn germany_takes_a_call_with_the_evidence_of_all_parties_only() {
    let stage = Stage::open();
    stage.tenant("acme", "germany", &["--keep", "60d"]);
    let proof = |party: &str| {
        format!(
            "{{\"party\": \"{party}\", \"how\": \"dtmf\", \"at\": \"2026-06-15T12:00:00Z\", \"reference\": \"ivr-1\"}}"
        )
    };
    let [all, one] = [[proof(NUMBER), proof(OTHER)].join(", "), proof(NUMBER)]
        .map(|proofs| stage.file(&format!("evidence-{}", proofs.len()), &format!("[{proofs}]")));
    let facts = ["--jurisdiction", "DE", "--party", NUMBER, "--party", OTHER];
    let attempt = |more: &[&str]| stage.attempt(&Take::call("acme", NUMBER).more(&[&facts[..], more].concat())).1;
    for lacking in [
        &[][..],
        &["--basis", "consent"],
        &["--basis", "contract", "--evidence", &all],
        &["--basis", "consent", "--evidence", &one],
    ] {
        let refused = attempt(lacking);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() != Some(DONE) && !said.contains(OTHER), "{lacking:?}: {said}");
    }
    assert!(stage.json(CUSTOMER, &["list", "--tenant", "acme"]).is_empty());
    assert!(stage.objects("eu-west-2").is_empty());

    let good = [&facts[..], &["--basis", "consent", "--evidence", &all]].concat();
    let call = stage.record(&Take::call("acme", NUMBER).more(&good));
    // Nor does a switch get round it that states another country, or none.
    for elsewhere in [&["--jurisdiction", "GB"][..], &[]] {
        let refused = stage.attempt(&Take::call("acme", NUMBER).more(elsewhere)).1;
        assert!(refused.status.code() != Some(DONE), "{elsewhere:?}");
    }
    let before = stage.steal();
    stage.goes_by(&call, call.at + 7 * DAY, Left::Both, Left::Audio);
    stage.assert_words(&before, &[&call.mark], &[NUMBER, "ivr-1"]);
    stage.goes_by(&call, call.at + 60 * DAY, Left::Audio, Left::Nothing);
    stage.assert_left(&before, &[(&call, Left::Nothing)]);
    stage.assert_words(&before, &["ivr-1", OTHER], &[NUMBER]);
}
