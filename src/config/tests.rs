//! What a configuration may say, and what is said of a wrong one.

use super::*;

fn problems(preset: &[(&str, Value)]) -> String {
    Sources::with_preset(preset).read().map_or_else(|problems| problems.to_string(), |_| String::new())
}

#[test]
fn the_built_in_defaults_are_valid() {
    let config = Sources::new(None).read().unwrap();
    assert_eq!(config.http.listen.port(), 8080);
    assert!(config.sfu().workers >= 1, "0 means as many as cores");
    assert!(config.recordings()[0].ends_with("data/recordings"));
    assert_eq!(config.profiles().unwrap().len(), 2);
    assert!(config.calendar().unwrap().is_none() && config.rooms.capacity.is_none(), "any time may be booked");
}

#[test]
fn every_wrong_value_is_named_with_key_value_and_what_is_allowed() {
    let text = problems(&[
        ("http.listen", "everywhere".into()),
        ("media.workers", 5000.into()),
        ("media.announce", vec!["0.0.0.0"].into()),
        ("recording.thread", 1.into()),
        ("recorder.threads", 1.into()),
        ("log.format", "xml".into()),
    ]);
    for expected in [
        "http.listen = \"everywhere\" ",
        "an address and a port",
        "media.workers = 5000",
        "a whole number from 0 to 1024",
        "media.announce = [\"0.0.0.0\"]",
        "recording.thread (",
        "no such key; there are encrypt, folder, longest_silence_ms, publish_heads_seconds, reserve_bytes_per_second, reserve_floor_mb, threads",
        "recorder (",
        "no such section; there are documents, exports, http, log, media, oidc, packages, recording, register, rooms, sealing, sms, storage, webhooks",
        "\"text\" or \"json\"",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[test]
fn an_oidc_issuer_needs_tls_an_audience_and_a_table_of_scopes() {
    assert!(Sources::new(None).read().unwrap().oidc.is_none(), "off by default");
    let text = problems(&[("oidc.issuer", "http://login.example.it".into()), ("oidc.claim", "".into())]);
    assert!(text.contains("oidc.issuer = \"http://login.example.it\"") && text.contains("https"), "{text}");
    let text = problems(&[("oidc.issuer", "https://login.example.it".into())]);
    assert!(text.contains("oidc.audience") && text.contains("oidc.scopes = {} "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let oidc = |word: &str| {
        let scopes = format!("{{ \"Sportello-Booking\" = \"{word}\" }}");
        let text = format!("issuer = \"https://login.example.it\"\naudience = \"sportello\"\nscopes = {scopes}");
        std::fs::write(&file, format!("[oidc]\n{text}\n")).unwrap();
        Sources::new(Some(&file))
    };
    let settings = oidc("booking").read().unwrap().oidc.unwrap();
    assert_eq!(settings.scopes["Sportello-Booking"].name(), "booking");
    let shown = oidc("booking").show().unwrap();
    assert!(shown.contains("scopes = { \"Sportello-Booking\" = \"booking\" }"), "{shown}");
    let text = oidc("everything").read().unwrap_err().to_string();
    assert!(text.contains("booking, operator, compliance or metrics"), "{text}");
}

#[test]
fn proxies_are_addresses_and_networks() {
    assert!(problems(&[("http.trusted_proxies", vec!["10.0.0.0/8", "::1"].into())]).is_empty());
    let text = problems(&[("http.trusted_proxies", vec!["proxy.example.it"].into()), ("http.join_burst", 0.into())]);
    assert!(text.contains("http.trusted_proxies") && text.contains("http.join_burst = 0"), "{text}");
}

#[test]
fn ports_of_all_workers_must_exist() {
    let text = problems(&[("media.first_port", 65_530.into()), ("media.workers", 10.into())]);
    assert!(text.contains("media.first_port = 65530"), "{text}");
}

#[test]
fn a_missing_file_is_a_problem_that_names_it() {
    let problems = Sources::new(Some(Path::new("/nowhere/at/all.toml"))).read().unwrap_err();
    assert!(problems.to_string().contains("/nowhere/at/all.toml"), "{problems}");
}

#[test]
fn the_file_says_where_a_wrong_value_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[media]\nworkers = \"many\"\n").unwrap();
    let problems = Sources::new(Some(&file)).read().unwrap_err().to_string();
    assert!(problems.contains("media.workers = \"many\" (file ") && problems.contains("node.toml"), "{problems}");
}

#[test]
fn profiles_of_the_folder_join_and_replace_the_built_in_ones() {
    let folder = tempfile::tempdir().unwrap();
    let delega = include_str!("../../config/profiles/delega.toml");
    std::fs::write(folder.path().join("a.toml"), delega.replace("\"delega\"", "\"procura\"")).unwrap();
    std::fs::write(folder.path().join("b.toml"), delega).unwrap();
    let sources = Sources::new(None).with("rooms.profiles", &folder.path().display().to_string());
    assert_eq!(sources.read().unwrap().profiles().unwrap().len(), 3);
    std::fs::write(folder.path().join("c.toml"), "name = 3").unwrap();
    let problems = sources.read().unwrap().profiles().unwrap_err().to_string();
    assert!(problems.contains("c.toml"), "{problems}");
}

#[test]
fn a_wrong_calendar_is_a_problem_that_names_its_file_its_key_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hours.toml");
    let sources = Sources::new(None).with("rooms.calendar", &file.display().to_string());
    let problems = || sources.read().unwrap().calendar().unwrap_err().to_string();
    assert!(problems().contains("hours.toml"), "{}", problems());
    let shipped = include_str!("../../config/calendar.toml");
    std::fs::write(&file, shipped.replacen("\"delega\"", "\"delgea\"", 1)).unwrap();
    let text = problems();
    for expected in ["rooms.calendar (", "opening[0].profile = \"delgea\"", "one of delega, videochiamata"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    std::fs::write(&file, shipped).unwrap();
    assert!(sources.read().unwrap().calendar().unwrap().is_some());
}

#[test]
fn a_capacity_beyond_reason_is_refused() {
    let text = problems(&[("rooms.capacity", 100_001.into())]);
    assert!(text.contains("rooms.capacity = 100001") && text.contains("0 to 100000"), "{text}");
}

#[test]
fn a_database_password_is_never_shown() {
    let sources = Sources::with_preset(&[("storage.database", "postgres://me:hunter2@db/x".into())]);
    let shown = sources.show().unwrap();
    assert!(shown.contains("postgres://…@db/x") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn recordings_go_to_one_folder_or_to_several() {
    let folders = |value: Value| {
        let read = Sources::with_preset(&[("recording.folder", value)]).read();
        read.map(|config| config.recordings()).map_err(|problems| problems.to_string())
    };
    let several = vec!["/one".to_owned(), "/two".to_owned()];
    assert_eq!(folders("/one".into()).unwrap(), [PathBuf::from("/one")]);
    assert_eq!(folders(several.into()).unwrap(), [PathBuf::from("/one"), PathBuf::from("/two")]);
    for wrong in [vec!["/one", "/one"], vec!["/one", ""]] {
        let wrong: Vec<String> = wrong.into_iter().map(str::to_owned).collect();
        assert!(folders(wrong.into()).unwrap_err().contains("a list of different folders"));
    }
}

#[test]
fn packages_go_to_a_folder_or_a_bucket_and_the_secret_is_never_shown() {
    assert!(Sources::new(None).read().unwrap().packages.place.is_none(), "beside everything else that is kept");
    let text = problems(&[("packages.url", "ftp://host/x".into()), ("packages.access_key_id", "id".into())]);
    for expected in ["packages.url = \"ftp://host/x\"", "s3://bucket", "together with packages.secret_access_key"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    let sources = Sources::with_preset(&[
        ("packages.url", "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&allow_http=true".into()),
        ("packages.access_key_id", "id".into()),
        ("packages.secret_access_key", "hunter2".into()),
        ("sealing.timestamp_url", "tsa.example.it".into()),
    ]);
    assert!(!sources.show().unwrap().contains("hunter2"));
    let text = sources.read().unwrap_err().to_string();
    assert!(text.starts_with("sealing.timestamp_url") && text.lines().count() == 1, "{text}");
}
