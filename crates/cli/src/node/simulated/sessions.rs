//! Several sessions at once, slow ones, and ones that are cut off.

use super::*;
use crate::control::session::{MAX_LINE_BYTES, MAX_RUNNING};

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// An address at which nobody answers.
fn nobody(stage: &Stage) -> String {
    let ip = stage.world.net().ip(stage.world.net().host());
    format!("/ip4/{ip}/udp/4400/quic-v1")
}

#[test]
fn two_sessions_see_the_same_node_and_end_by_themselves() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(3).await?;
        let (mut one, mut other) = (stage.console(&members[0]), stage.console(&members[0]));
        let ban = json!({"command": "ban", "target": members[1].text(), "reason": "for a test"});
        // One waits, the other is served meanwhile.
        let waiting = one.say(json!({"command": "connect", "address": nobody(&stage)})).await?;
        let start = stage.world.now();
        other.ask(ban).await?;
        let bans = other.ask(json!({"command": "bans"})).await?;
        ensure!(stage.world.now() - start < SECOND, "one session held up another");
        let failed = one.reply(waiting).await?;
        ensure!(failed.is_err() && stage.world.now() - start > 4 * SECOND, "{failed:?}");
        ensure!(one.ask(json!({"command": "bans"})).await? == bans, "two sessions see two lists");
        // Both lift it; one is too late.
        let unban = json!({"command": "unban", "target": members[1].text()});
        let (first, second) = (one.say(unban.clone()).await?, other.say(unban).await?);
        let lifted = [one.reply(first).await?, other.reply(second).await?];
        ensure!(lifted.iter().filter(|reply| reply.is_ok()).count() == 1, "{lifted:?}");

        let id = one.say(json!({"command": "stop"})).await?;
        ensure!(one.reply(id).await? == Ok(json!({})), "a stop was not answered");
        ensure!(one.hear().await?.is_none(), "the session went on");
        let ended = tokio::time::timeout(2 * SECOND, one.serving).await??;
        ensure!(ended == End::Stop, "whoever runs the node was not told to stop it");
        other.ask(json!({"command": "status"})).await?;
        other.write.shutdown().await?;
        let ended = tokio::time::timeout(SECOND, other.serving).await??;
        ensure!(ended == End::Input { detached: false }, "a session did not end");
        Ok(())
    })
}

#[test]
fn a_reader_that_lags_is_told_how_much_it_missed_and_delays_nobody() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(3).await?;
        let mut slow = stage.session(&members[0], Tell::Events, 512);
        // More than the pipe, the session's lines and the service's events hold together.
        let mut sender = stage.console(&members[1]);
        let text = |number: usize| json!({"command": "broadcast", "text": number.to_string(), "to": [members[0].text()]});
        let count = 3000;
        for number in 0..count {
            let answers = sender.ask(text(number)).await?;
            ensure!(answers[0]["ms"].as_f64() < Some(1000.0), "text {number}: {answers}");
        }
        let start = stage.world.now();
        stage.console(&members[0]).ask(json!({"command": "status"})).await?;
        ensure!(stage.world.now() - start < SECOND, "a reader that lags holds up other sessions");

        let (mut texts, mut missed) = (Vec::new(), 0);
        while texts.last() != Some(&(count - 1)) {
            let event = slow.hear().await?.ok_or(Failed::new("the session ended"))?;
            match event["event"].as_str() {
                Some("message") => {
                    let number = event["text"].as_str().and_then(|text| text.parse::<usize>().ok());
                    texts.extend(number);
                }
                Some("missed") => missed += event["events"].as_u64().unwrap_or_default() as usize,
                _ => {}
            }
        }
        ensure!(texts.is_sorted(), "events came in another order");
        ensure!(missed > 0 && texts.len() + missed == count, "{} told, {missed} missed", texts.len());
        // From here on nothing is missed.
        sender.ask(text(count)).await?;
        let event = slow.hear().await?;
        let last = json!(count.to_string());
        ensure!(event.is_some_and(|event| event["text"] == last), "a text was not told");
        Ok(())
    })
}

#[test]
fn events_tell_how_things_stand_and_then_every_change() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(3).await?;
        let mut events = stage.session(&members[0], Tell::Events, PIPE);
        let mut standing = Vec::new();
        for _ in 0..3 {
            standing.extend(events.hear().await?);
        }
        ensure!(
            standing[0] == json!({"event": "listening", "address": members[0].sim.address()}),
            "{standing:?}"
        );
        for (event, member) in standing[1..].iter().zip(members[0].sim.connected()) {
            let right = event["event"] == "peer_connected" && event["peer"] == member.to_string();
            ensure!(right, "{standing:?}");
        }
        stage.world.stop(&members[2].sim).await;
        let gone = events.hear().await?.unwrap_or_default();
        let right = gone["event"] == "peer_disconnected" && gone["peer"] == members[2].text();
        ensure!(
            right && gone["cause"].as_str().is_some_and(|cause| cause.contains("shutting down")),
            "{gone}"
        );
        // Those that never answer are told as often as they are tried.
        let failed = events.hear().await?.unwrap_or_default();
        ensure!(failed["event"] == "dial_failed" && failed["peer"] == members[2].text(), "{failed}");
        Ok(())
    })
}

#[test]
fn a_session_that_is_cut_off_leaves_nothing_and_the_node_goes_on() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(3).await?;
        stage.world.run_for(30 * SECOND).await;
        let address = nobody(&stage);
        let tasks = alive_tasks();
        for end in ["in a line", "in a command", "without reading"] {
            let mut console = stage.session(&members[0], Tell::Events, 256);
            match end {
                "in a line" => console.write.write_all(b"{\"id\": 1, \"command\": \"ba").await?,
                "in a command" => {
                    for _ in 0..MAX_RUNNING {
                        console.say(json!({"command": "connect", "address": address})).await?;
                    }
                }
                _ => {
                    for _ in 0..3 {
                        console.say(json!({"command": "metrics"})).await?;
                    }
                }
            }
            stage.world.run_for(SECOND / 10).await;
            ensure!(alive_tasks() > tasks, "{end}: no session runs");
            let Console { serving, read, write, .. } = console;
            drop((read, write));
            let ended = tokio::time::timeout(2 * SECOND, serving).await??;
            ensure!(ended == End::Input { detached: false }, "{end}: {ended:?}");
            // Dials that were asked for go on, eight at a time, and each ends with its own timeout.
            stage.world.run_for(30 * SECOND).await;
            ensure!(alive_tasks() == tasks, "{end}: {tasks} tasks before, {} now", alive_tasks());
            let status = stage.console(&members[0]).ask(json!({"command": "status"})).await?;
            ensure!(status["peers"] == 2, "{end}: {status}");
        }
        let mut console = stage.console(&members[0]);
        console.write.write_all("x".repeat(MAX_LINE_BYTES + 1).as_bytes()).await?;
        console.write.write_all(b"\n").await?;
        let refused = console.hear().await?.unwrap_or_default();
        ensure!(refused["id"].is_null() && refused["error"].as_str().is_some(), "{refused}");
        console.ask(json!({"command": "status"})).await?;
        Ok(())
    })
}
