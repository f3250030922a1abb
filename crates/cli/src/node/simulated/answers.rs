//! What a node says of itself and of others: status, peers, why, metrics.

use super::*;

#[test]
fn status_and_peers_tell_what_is_so() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(5).await?;
        stage.world.run_for(10 * SECOND).await;
        for member in &members {
            let mut console = stage.console(member);
            let status = console.ask(json!({"command": "status"})).await?;
            ensure!(status["peer_id"] == member.text() && status["moniker"] == member.sim.name(), "{status}");
            ensure!(status["listening"] == json!([member.sim.address()]), "{status}");
            ensure!(status["peers"] == 4 && status["network"] == "main", "{status}");
            // Since the node's own start.
            let up = status["uptime_ms"].as_u64().unwrap_or_default();
            ensure!((10_000..60_000).contains(&up), "{status}");
            let rows = console.ask(json!({"command": "peers", "ping": true})).await?;
            ensure!(rows.as_array().map(Vec::len) == Some(4), "{rows}");
            for other in members.iter().filter(|other| other.id() != member.id()) {
                let row = rows.as_array().into_iter().flatten().find(|row| row["peer"] == other.text());
                let row = row.ok_or(Failed::new(format!("{} is missing", other.sim.name())))?;
                ensure!(row["moniker"] == other.sim.name() && row["foreign"] == false, "{row}");
                // A path takes 5 to 40 ms each way.
                let ping = row["ping_ms"].as_f64().unwrap_or_default();
                ensure!((10.0..100.0).contains(&ping), "{row}");
                ensure!(row["sent_bytes"].as_u64() > Some(1000), "{row}");
            }
        }
        Ok(())
    })
}

#[test]
fn why_tells_what_became_of_a_killed_peer_until_it_is_back() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(4).await?;
        let (watcher, victim) = (&members[1], &members[3]);
        let mut console = stage.console(watcher);
        let why = json!({"command": "why", "peer": victim.text()});
        let before = console.ask(why.clone()).await?;
        ensure!(before["story"]["state"] == "connected", "{before}");
        stage.kill(victim);
        let gone = || !watcher.sim.connected().contains(&victim.id());
        stage.world.until("the watcher has noticed", 40 * SECOND, gone).await?;
        stage.world.run_for(20 * SECOND).await;
        let after = console.ask(why.clone()).await?;
        ensure!(after["story"]["state"] != "connected", "{after}");
        ensure!(after["story"]["fault"] == "timeout", "{after}");
        let text = after["text"].as_str().unwrap_or_default();
        ensure!(text.contains("silent for") && text.contains("nothing answered"), "{text}");
        let _victim = stage.restart(victim, &named("n3")).await?;
        stage.world.until("it is back", 120 * SECOND, || watcher.has(victim)).await?;
        let back = console.ask(why).await?;
        ensure!(back["story"]["state"] == "connected" && back["story"]["fault"].is_null(), "{back}");
        let nobody = json!({"command": "why", "peer": "nobody"});
        let refused = console.refused(nobody).await?;
        ensure!(refused.contains("\"nobody\" is not a peer ID"), "{refused}");
        Ok(())
    })
}

#[test]
fn a_ban_holds_on_both_sides_until_it_ends_and_why_says_so() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(4).await?;
        let (judge, banned) = (&members[1], &members[2]);
        let (mut console, mut theirs) = (stage.console(judge), stage.console(banned));
        let ban =
            json!({"command": "ban", "target": banned.text(), "reason": "it sold us spam", "seconds": 120});
        console.ask(ban).await?;
        stage.world.until("it is gone", SECOND, || !judge.has(banned)).await?;
        let rows = console.ask(json!({"command": "bans"})).await?;
        let row = &rows[0];
        ensure!(row["target"] == banned.text() && row["reason"] == "it sold us spam", "{rows}");
        let lasts = row["until_unix_ms"].as_u64().zip(row["since_unix_ms"].as_u64());
        ensure!(lasts.map(|(until, since)| until - since) == Some(120_000), "{rows}");
        stage.world.run_for(30 * SECOND).await;
        ensure!(!judge.has(banned), "the ban does not hold");
        let ours = console.ask(json!({"command": "why", "peer": banned.text()})).await?;
        ensure!(ours["story"]["cause"] == "banned", "{ours}");
        ensure!(ours["text"].as_str().is_some_and(|text| text.contains("it sold us spam")), "{ours}");
        let told = theirs.ask(json!({"command": "why", "peer": judge.text()})).await?;
        let text = told["text"].as_str().unwrap_or_default();
        ensure!(text.contains("banned") && !text.contains("spam"), "{told}");
        // It ends by itself, and both find each other again.
        stage.world.until("they are friends again", 600 * SECOND, || judge.has(banned)).await?;
        ensure!(console.ask(json!({"command": "bans"})).await? == json!([]), "a ban is left");
        Ok(())
    })
}

#[test]
fn bans_are_listed_lifted_and_refused_with_the_remedy() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(4).await?;
        let (judge, banned) = (&members[1], &members[2]);
        let mut console = stage.console(judge);
        let ip = banned.sim.socket_address().ip().to_string();
        console.ask(json!({"command": "ban", "target": ip, "reason": "a bad place"})).await?;
        stage.world.until("it is gone", SECOND, || !judge.has(banned)).await?;
        let rows = console.ask(json!({"command": "bans"})).await?;
        ensure!(rows[0]["until_unix_ms"].is_null() && rows[0]["penalty"].is_null(), "{rows}");
        stage.world.run_for(300 * SECOND).await;
        ensure!(!judge.has(banned), "a ban without an end has ended");
        let target = rows[0]["target"].clone();
        console.ask(json!({"command": "unban", "target": target})).await?;
        stage.world.until("it is back", 900 * SECOND, || judge.has(banned)).await?;
        let again = console.refused(json!({"command": "unban", "target": target})).await?;
        ensure!(again.contains("is not banned") && again.contains("peerage bans"), "{again}");
        let own = console.refused(json!({"command": "ban", "target": judge.text()})).await?;
        ensure!(own.contains("itself"), "{own}");
        let odd = console.refused(json!({"command": "ban", "target": "the one over there"})).await?;
        ensure!(odd.contains("the one over there"), "{odd}");
        Ok(())
    })
}

/// The value of a sample of the text of Prometheus, or the sum over those with other labels.
fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let found = text.lines().filter(|line| {
        let right = line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "));
        right && labels.iter().all(|label| line.contains(label))
    });
    found.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|sum, one| sum + one)
}

#[test]
fn metrics_follow_what_happens() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(4).await?;
        let mut console = stage.console(&members[1]);
        let metrics = json!({"command": "metrics"});
        let text = async |console: &mut Console| {
            let reply = console.ask(metrics.clone()).await?;
            Ok::<_, Failed>(reply["text"].as_str().unwrap_or_default().to_owned())
        };
        let before = text(&mut console).await?;
        ensure!(sample(&before, "peerage_peers", &[]) == Some(3.0), "{before}");
        for text in ["one", "two", "three", "four", "five"] {
            let request = json!({"command": "request", "peer": members[2].text(), "text": text});
            let echo = console.ask(request).await?;
            ensure!(echo["text"] == text && echo["moniker"] == "n2", "{echo}");
        }
        let sent = console.ask(json!({"command": "broadcast", "text": "hello"})).await?;
        let answered = sent.as_array().into_iter().flatten().filter(|answer| answer["ms"].is_f64()).count();
        ensure!(answered == 3, "{sent}");
        stage.kill(&members[3]);
        let gone = || !members[1].sim.connected().contains(&members[3].id());
        stage.world.until("the loss is noticed", 40 * SECOND, gone).await?;
        let after = text(&mut console).await?;
        ensure!(sample(&after, "peerage_peers", &[]) == Some(2.0), "{after}");
        let grew = |name: &str, labels: &[&str]| {
            sample(&after, name, labels).unwrap_or_default()
                - sample(&before, name, labels).unwrap_or_default()
        };
        let echoes = grew("peerage_requests_total", &["side=\"asked\"", "outcome=\"answered\""]);
        ensure!(echoes == 5.0, "{echoes} requests: {after}");
        let texts = grew("peerage_channel_messages_total", &["/peerage/chat/1", "sent"]);
        ensure!(texts == 3.0, "{texts} texts: {after}");
        Ok(())
    })
}
