//! The binary's subcommands, as a shell sees them.

use std::process::Output;

use crate::server::sportello;

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
