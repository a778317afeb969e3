//! The binary's subcommands, as a shell sees them.

use std::process::Output;

use serde_json::Value;

use crate::server::{Server, sportello};

fn run(args: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let output = sportello().args(args).envs(environment.iter().copied()).output().unwrap();
    let said = [output.stdout.clone(), output.stderr.clone()].concat();
    (output, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn the_default_configuration_is_right() {
    let (output, said) = run(&["config", "check"], &[]);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_what_is_allowed() {
    let (output, said) = run(&["config", "check"], &[("SPORTELLO__RECORDING__LONGEST_SILENCE_MS", "77")]);
    assert!(!output.status.success(), "{said}");
    for part in ["longest_silence_ms", "77", "500", "10000"] {
        assert!(said.contains(part), "«{part}» is missing: {said}");
    }
}

#[test]
fn every_wrong_value_is_named_not_only_the_first() {
    let wrong = [("SPORTELLO__RECORDING__THREADS", "0"), ("SPORTELLO__HTTP__LISTEN", "everywhere")];
    let (output, said) = run(&["config", "check"], &wrong);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("threads") && said.contains("listen") && said.contains("everywhere"), "{said}");
}

#[test]
fn an_unknown_key_is_a_mistake() {
    let (output, said) = run(&["config", "check"], &[("SPORTELLO__MEDIA__WORKRES", "2")]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("workres"), "{said}");
}

#[test]
fn the_environment_comes_before_the_file_and_the_file_before_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sportello.toml");
    std::fs::write(&file, "[media]\nworkers = 3\nfirst_port = 41000\n").unwrap();
    let file = file.to_str().unwrap();
    let (output, said) = run(&["config", "show", "--config", file], &[("SPORTELLO__MEDIA__WORKERS", "5")]);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("workers = 5") && said.contains("first_port = 41000"), "{said}");
}

#[test]
fn verifying_what_is_not_there_fails() {
    let (output, said) = run(&["verify", "/nowhere/at/all"], &[]);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("/nowhere/at/all"), "{said}");
}

#[tokio::test]
async fn a_rooms_ledger_is_verified_offline_and_a_changed_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (booked, _operator) = server.open_room().await;
    let ledger = server.get(&format!("/v1/rooms/{}/ledger", booked.room), server.key("booking")).await;
    drop(server);
    let lines = ledger.as_array().unwrap();
    let last = lines.last().unwrap();
    let verify = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let (output, said) = run(&["verify", file.to_str().unwrap()], &[]);
        assert!(said.contains(name), "the file is named: {said}");
        (output.status.success(), said)
    };
    let by_line = |lines: &[Value]| lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");

    let whole = format!("whole, {} lines, ledger head {}", lines.len(), last["hash"].as_str().unwrap());
    for (name, text) in [("ledger.json", ledger.to_string()), ("ledger.jsonl", by_line(lines))] {
        let (success, said) = verify(name, &text);
        assert!(success && said.contains(&whole), "{said}");
    }

    let changed = ledger.to_string().replacen("delegante", "guest", 1);
    let (success, said) = verify("changed.json", &changed);
    assert!(!success && said.contains("line 1"), "{said}");
    let (success, said) = verify("cut.jsonl", &by_line(&[&lines[..2], &lines[3..]].concat()));
    assert!(!success && said.contains("line 3"), "{said}");
    let (success, said) = verify("other.json", "{\"kind\": \"no ledger\"}");
    assert!(!success && said.contains("line 1 is not a line of a ledger"), "{said}");
    let (output, said) = run(&["verify", "/nowhere/at/all.json"], &[]);
    assert!(!output.status.success() && said.contains("/nowhere/at/all.json"), "{said}");
}
