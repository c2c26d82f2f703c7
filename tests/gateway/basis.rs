//! Basis, binding, transcripts, correction and withdrawal by command, against `quietus dev`.

use super::gateway::Gateway;
use serde_json::Value;

/// Runs a command that must succeed, and gives what it says in JSON.
fn says(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = gateway.run(&[&["--json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Runs a command that must fail, and gives its exit status and its line.
fn fails(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let output = gateway.run(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basis_binding_correction_and_withdrawal_by_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = tokio::task::block_in_place(|| Gateway::start(&dir.path().join("data")));
    let at = |name: &str| dir.path().join(name).display().to_string();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(at(name), content).expect("written");
        format!("@{}", at(name))
    };
    file("call.al", &[7; 8000]);
    let (ada, party) = (file("ada", b"+4930901\n"), file("party", b"+4930902\n"));
    let create = ["tenant", "create", "acme", "--home", "eu-west-2", "--residency", "home-only"];
    says(&gateway, &[&create[..], &["--policy", "germany", "--keep", "90d"]].concat());
    let (call, media) = (at("call.al"), "audio/PCMA;rate=8000");
    let record = ["record", "--tenant", "acme", "--subscriber", &ada, "--kind", "call", "--media-type", media];
    let german = ["--jurisdiction", "DE", "--basis", "consent", "--party", &party];

    let (status, line) = fails(&gateway, &[&record[..], &german, &[&call]].concat());
    assert!(status == Some(6) && line.contains("policy germany") && line.contains("evidence"), "{line}");
    assert!(!line.contains("+4930"), "{line}");
    let evidence = r#"[{"party": "0049 30 901", "how": "dtmf", "at": "2020-01-01T10:00:00Z", "reference": "consent 1"},
                       {"party": "tel:+49-30-902", "how": "spoken", "at": "2020-01-01T10:00:02Z"}]"#;
    let evidence = file("evidence.json", evidence.as_bytes());
    let announced = ["--announcement", "recorded", "--announcement-language", "de", "--announcement-offset", "-900"];
    let stated = [&german[..], &["--evidence", &evidence], &announced].concat();
    let id = says(&gateway, &[&record[..], &stated, &[&call]].concat())["id"].as_str().expect("an id").to_owned();

    let shown = says(&gateway, &["show", &id]);
    assert_eq!(
        (&shown["jurisdiction"], &shown["basis"], &shown["consent_withdrawn"]),
        (&"DE".into(), &"consent".into(), &false.into())
    );
    let basis = says(&gateway, &["recording", "basis", &id]);
    assert_eq!(basis["announcement"]["offset_ms"], -900);
    assert_eq!(
        (&basis["evidence"][0]["reference"], &basis["evidence"][1]["how"]),
        (&"consent 1".into(), &"spoken".into())
    );

    let transcript = ["record", "--tenant", "acme", "--subscriber", &ada, "--kind", "transcript", "--parent", &id];
    let transcript = says(&gateway, &[&transcript[..], &["--media-type", "text/plain", &call]].concat());
    let transcript = transcript["id"].as_str().expect("an id").to_owned();
    assert_eq!(says(&gateway, &["show", &transcript])["basis"], "consent");

    says(&gateway, &["recording", "bind", &id, "--party", &party]);
    let (status, _) = fails(&gateway, &["recording", "bind", &transcript, "--party", &party]);
    assert_eq!(status, Some(6), "bound as its parent is");
    says(&gateway, &["recording", "correct", &id, "--party", "+4930903", "--label", "agent=7"]);
    let facts = &says(&gateway, &["show", &id])["facts"];
    assert_eq!((&facts["parties"][0], &facts["labels"]["agent"]), (&"+4930903".into(), &"7".into()));
    let (status, line) = fails(&gateway, &["recording", "correct", &id]);
    assert!(status == Some(2), "{status:?}: {line}");

    let whom = format!("acme/{ada}");
    let done = says(&gateway, &["subscriber", "withdraw-consent", &whom]);
    assert_eq!((&done["erased"], &done["left"]["recordings"]), (&2.into(), &0.into()));
    let receipt = done["receipts"][0].as_str().expect("a receipt");
    says(&gateway, &["receipt", "show", receipt]);
    assert_eq!(fails(&gateway, &["show", &id]).0, Some(4));
    assert_eq!(fails(&gateway, &["show", &transcript]).0, Some(4));
    let (status, line) = fails(&gateway, &[&record[..], &stated, &[&call]].concat());
    assert!(status == Some(6) && line.contains("consent was withdrawn"), "{line}");
    assert!(!says(&gateway, &["subscriber", "show", &whom])["consent_withdrawn"].is_null());
    assert!(says(&gateway, &["subscriber", "give-consent", &whom])["consent_withdrawn"].is_null());
    says(&gateway, &[&record[..], &stated, &[&call]].concat());
}
