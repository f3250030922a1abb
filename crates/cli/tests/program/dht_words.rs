//! What `peerage dht` says of what it has done and what it cannot do, on networks of two nodes.

use serde_json::{Value, json};

use crate::dht::{Member, ids};
use crate::support::port;

async fn two(folder: &std::path::Path) -> [Member; 2] {
    let first = Member::start(folder.join("a"), 0, None, &[]).await;
    let second = Member::start(folder.join("b"), 0, Some(&first.address), &[]).await;
    first.knows(1).await;
    second.knows(1).await;
    [first, second]
}

#[tokio::test]
async fn only_who_is_in_a_topic_leaves_it_and_a_restart_changes_nothing_about_that() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(folder.path()).await;
    for (name, error) in
        [("chess", "is not in the topic"), ("", "1 to 128"), ("a\u{7}b", "control characters")]
    {
        let refused = second.dht(&["topic", name, "--leave"]).await;
        assert!(refused.error(1).contains(error), "{name:?}: {refused:?}");
    }
    second.text(&["topic", "chess", "--join", "rapid"]).await;
    let seen = |reply: &Value| reply["peers"].as_array().is_some_and(|peers| peers.len() == 1);
    first.until("the ad being found", &["topic", "chess"], seen).await;
    // It does not know by itself any more that it is there.
    let place = port(&second.address);
    let data = second.kill().await;
    let second = Member::start(data, place, Some(&first.address), &[]).await;
    second.knows(1).await;
    second.text(&["topic", "chess", "--leave"]).await;
    let gone = first.until("the ad being gone", &["topic", "chess"], |reply| reply["peers"] == json!([]));
    assert_eq!(ids(&gone.await), Vec::<&str>::new());
    assert!(second.dht(&["topic", "chess", "--leave"]).await.error(1).contains("is not in the topic"));
}

#[tokio::test]
async fn what_was_not_done_as_asked_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = two(folder.path()).await;
    // The hash of content is enough to renew it no more.
    let hash = first.text(&["put", "--immutable", "kept"]).await;
    let hash = hash.trim_end();
    assert_eq!(first.text(&["remove", "--immutable", hash]).await, "");
    let published = first.json(&["stats"]).await["stats"]["published"].to_string();
    assert!(!published.contains(hash), "{published}");
    let again = first.dht(&["remove", "--immutable", hash, "--json"]).await;
    assert!(again.error(1).contains("does not renew"), "{again:?}");
    let failed: Value = serde_json::from_str(&again.stdout).unwrap();
    assert!(failed["failed"].as_str().is_some_and(|why| why.contains("does not renew")), "{failed}");

    // Both are in one network, so no more than one of them counts.
    let put = first.text(&["put", "colour", "grün", "--trace"]).await;
    assert!(put.lines().any(|line| line.contains(" ended ") && line.ends_with("stored")), "{put}");
    let got = second.dht(&["get", first.id(), "colour", "--quorum", "3"]).await;
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), "grün\n"), "{got:?}");
    assert!(got.stderr.contains("warning: the quorum of 3 was not met: "), "{got:?}");
    let got = second.json(&["get", first.id(), "colour", "--quorum", "3"]).await;
    assert!(got["way"]["holders"].as_u64() >= Some(1), "{got}");
    let put = first.json(&["put", "größe", "1"]).await;
    assert_eq!(put["way"]["wanted"], 1, "{put}");
    assert!(first.text(&["stats"]).await.contains("published: value größe"));

    let long = "x".repeat(4049);
    for (arguments, code, error) in [
        (&["provide", ""][..], 1, "1 to 80"),
        (&["mail", second.id(), &long], 1, "4049 bytes: give at most 4047"),
        (&["topic", "chess", "--join", "x", "--tag", ""], 2, "--tag"),
        (&["providers", "x", "--most", "0"], 2, "--most"),
        (&["providers", "x", "--most", "999999999"], 2, "--most"),
    ] {
        let refused = first.dht(arguments).await;
        assert!(refused.error(code).contains(error), "{refused:?}");
    }
}
