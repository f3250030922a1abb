//! `peerage limits` and the settings file.

use std::fs;

use crate::support::{Running, run};

#[tokio::test]
async fn each_limit_is_shown_with_its_default_its_value_and_its_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[peers]\nmax_inbound = 7\n").unwrap();
    let shown = run(["limits", "--json", "--config", file.to_str().unwrap()]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let rows: Vec<serde_json::Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(
        (&row("peers.max_inbound")["default"], &row("peers.max_inbound")["value"]),
        (&"40".into(), &"7".into())
    );
    assert_eq!(row("peers.max_outbound")["value"], "10");
    assert!(rows.iter().all(|row| row["meaning"].as_str().is_some_and(|text| text.len() > 10)));
    assert!(rows.iter().all(|row| !row["name"].as_str().unwrap().starts_with("node.")));
    let table = run(["limits", "--all"]).await;
    assert!(
        table.stdout.contains("node.listen") && table.stdout.contains("transport.idle_timeout"),
        "{table:?}"
    );
}

#[tokio::test]
async fn a_node_goes_by_its_settings_file_and_flags_override_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[node]\nmoniker = \"file\"\nnetwork = \"acme\"\n[peers]\nmax_inbound = 0\n").unwrap();
    let data = folder.path().join("data");
    let mut node = Running::node(&data, 0, ["--config", file.to_str().unwrap(), "--moniker", "flag"]);
    let address = node.address().await;
    let data = data.to_str().unwrap();
    let status = run(["status", "--json", "--data", data]).await;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["moniker"], &status["network"]), (&"flag".into(), &"acme".into()));
    let full = run(["ping", "-c", "1", "--network", "acme", &address]).await;
    assert!(full.error(1).contains("full") || full.error(1).contains("places"), "{full:?}");
}

#[tokio::test]
async fn a_bad_settings_file_is_one_line_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[peers]\nmax_inbuond = 0\n").unwrap();
    let (file, data) = (file.to_str().unwrap(), folder.path().join("data"));
    let arguments = ["node", "--config", file, "--data", data.to_str().unwrap()];
    let error = run(arguments).await.error(2).to_owned();
    assert!(error.contains("line 2") && error.contains("did you mean peers.max_inbound?"), "{error}");
    assert!(!data.exists(), "nothing was made");
    let error = run(["limits", "--config", "/nowhere"]).await.error(2).to_owned();
    assert!(error.contains("/nowhere cannot be read"), "{error}");
}
