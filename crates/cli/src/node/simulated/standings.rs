//! Who is wanted, hidden, let in and allowed: what commands change while the overlay runs, and what comes of it.

use super::*;

/// Gives or takes a standing.
fn class(name: &str, peer: impl Into<Value>, on: bool) -> Value {
    json!({"command": "class", "class": name, "peer": peer.into(), "on": on})
}

async fn listed(console: &mut Console, name: &str) -> Result<Vec<Value>, Failed> {
    let rows = console.ask(json!({"command": "classes", "class": name})).await?;
    Ok(rows.as_array().into_iter().flatten().map(|row| row["peer"].clone()).collect())
}

#[test]
fn a_persistent_peer_is_dialled_beside_the_limits_until_it_is_none() -> Result<(), Failed> {
    operate(async |stage| {
        let quiet = |name: &str| {
            let mut settings = named(name);
            settings.peers.max_outbound = 0;
            settings
        };
        let friend = stage.start(quiet("friend")).await?;
        let settings = quiet("shy");
        let shy = stage.start(settings.clone()).await?;
        let mut console = stage.console(&shy);
        let bare = class("persistent", friend.text(), true);
        console.ask(bare).await?;
        stage.world.run_for(60 * SECOND).await;
        ensure!(shy.sim.connected().is_empty(), "it was dialled without an address");
        console.ask(class("persistent", friend.sim.address(), true)).await?;
        stage.world.until("it is dialled", 5 * SECOND, || shy.has(&friend)).await?;
        ensure!(listed(&mut console, "persistent").await? == [friend.text()], "it is not listed");

        // What was said holds after a crash.
        stage.kill(&shy);
        stage.world.run_for(60 * SECOND).await;
        let shy = stage.restart(&shy, &settings).await?;
        let mut console = stage.console(&shy);
        stage.world.until("it is dialled again", 60 * SECOND, || shy.has(&friend)).await?;

        console.ask(class("persistent", friend.sim.address(), false)).await?;
        ensure!(listed(&mut console, "persistent").await?.is_empty(), "it is still listed");
        ensure!(shy.has(&friend), "a connection that is up stays");
        stage.kill(&friend);
        let gone = || shy.sim.connected().is_empty();
        stage.world.until("the friend is gone", 40 * SECOND, gone).await?;
        let _friend = stage.restart(&friend, &quiet("friend")).await?;
        let dials = stage.world.dials().len();
        stage.world.run_for(600 * SECOND).await;
        ensure!(shy.sim.connected().is_empty(), "it was dialled though no place is free");
        ensure!(stage.world.dials().len() == dials, "somebody dialled");
        let odd = console.refused(class("royal", friend.text(), true)).await?;
        ensure!(odd.contains("royal") && odd.contains("persistent, "), "{odd}");
        Ok(())
    })
}

#[test]
fn a_private_peer_is_told_to_nobody_who_comes_later() -> Result<(), Failed> {
    operate(async |stage| {
        let (seed, secret) = (stage.start(named("seed")).await?, stage.start(named("secret")).await?);
        let mut console = stage.console(&seed);
        console.ask(class("private", secret.text(), true)).await?;
        ensure!(listed(&mut console, "private").await? == [secret.text()], "it is not listed");
        console.ask(json!({"command": "connect", "address": secret.sim.address()})).await?;
        let join = async |name: &str| {
            let mut settings = named(name);
            settings.node.seed = vec![seed.sim.address().parse()?];
            let late = stage.start(settings).await?;
            stage.world.until("it has joined", 10 * SECOND, || late.has(&seed)).await?;
            stage.world.run_for(120 * SECOND).await;
            let book = stage.console(&late).ask(json!({"command": "book_export"})).await?;
            Ok::<_, Failed>(book.as_str().unwrap_or_default().to_owned())
        };
        let id = secret.id().to_string();
        ensure!(!join("first").await?.contains(&id), "a private peer was told");
        let book = console.ask(json!({"command": "book_export"})).await?;
        ensure!(!book.as_str().unwrap_or_default().contains(&id), "a private peer stands in an export");
        console.ask(class("private", secret.text(), false)).await?;
        ensure!(join("second").await?.contains(&id), "it is still kept to itself");
        Ok(())
    })
}

#[test]
fn an_unconditional_peer_finds_a_place_at_a_full_node() -> Result<(), Failed> {
    operate(async |stage| {
        let mut settings = named("full");
        settings.peers.max_inbound = 1;
        settings.peers.max_outbound = 0;
        let full = stage.start(settings).await?;
        let mut guests = Vec::new();
        for name in ["first", "second"] {
            let mut settings = named(name);
            settings.peers.max_outbound = 1;
            guests.push(stage.start(settings).await?);
        }
        let connect = json!({"command": "connect", "address": full.sim.address()});
        stage.console(&guests[0]).ask(connect.clone()).await?;
        let mut second = stage.console(&guests[1]);
        let refused = second.refused(connect.clone()).await?;
        ensure!(refused.contains("no place free"), "{refused}");
        let mut console = stage.console(&full);
        console.ask(class("unconditional", guests[1].text(), true)).await?;
        second.ask(connect).await?;
        let both = || full.has(&guests[0]) && full.has(&guests[1]);
        stage.world.until("both are there", SECOND, both).await?;
        ensure!(listed(&mut console, "unconditional").await? == [guests[1].text()], "it is not listed");
        console.ask(class("unconditional", guests[1].text(), false)).await?;
        ensure!(listed(&mut console, "unconditional").await?.is_empty(), "it is still listed");
        Ok(())
    })
}

#[test]
fn the_allow_list_lets_in_and_turns_out_while_the_overlay_runs() -> Result<(), Failed> {
    operate(async |stage| {
        let (guest, other) = (stage.start(named("guest")).await?, stage.start(named("other")).await?);
        let mut settings = named("private");
        settings.node.allow = vec![other.id()];
        let private = stage.start(settings.clone()).await?;
        let (mut console, mut theirs) = (stage.console(&private), stage.console(&guest));
        let connect = json!({"command": "connect", "address": private.sim.address()});
        stage.console(&other).ask(connect.clone()).await?;
        let refused = theirs.refused(connect.clone()).await?;
        ensure!(refused.contains("not admitted"), "{refused}");
        let why = console.ask(json!({"command": "why", "peer": guest.text()})).await?;
        ensure!(why["story"]["cause"] == "not-allowed", "{why}");

        let mut both = vec![guest.text(), other.text()];
        both.sort_by_key(ToString::to_string);
        let list = console.ask(json!({"command": "allow", "peer": guest.text()})).await?;
        let mut sorted = list.as_array().cloned().unwrap_or_default();
        sorted.sort_by_key(ToString::to_string);
        ensure!(sorted == both, "{list}");
        theirs.ask(connect.clone()).await?;
        // It holds after a crash.
        stage.kill(&private);
        stage.world.run_for(5 * SECOND).await;
        let private = stage.restart(&private, &settings).await?;
        let mut console = stage.console(&private);
        stage.world.until("the guest is in again", 60 * SECOND, || private.has(&guest)).await?;
        let list = console.ask(json!({"command": "disallow", "peer": guest.text()})).await?;
        ensure!(list == json!([other.text()]), "{list}");
        let out = || !guest.sim.connected().contains(&private.id());
        stage.world.until("it is turned out", SECOND, out).await?;
        theirs.refused(connect).await?;
        ensure!(console.ask(json!({"command": "allowed"})).await? == list, "the list has changed");
        Ok(())
    })
}

/// A list that began with the first name would turn out everybody else at once: a node without one says how to get one, and nothing changes.
#[test]
fn a_node_without_an_allow_list_says_how_to_get_one_and_lets_nobody_go() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(3).await?;
        let mut console = stage.console(&members[0]);
        ensure!(console.ask(json!({"command": "allowed"})).await?.is_null(), "there is a list");
        let peer = members[1].text();
        let add = console.refused(json!({"command": "allow", "peer": peer})).await?;
        let remedy = format!("--allow {}", members[1].id());
        ensure!(add.contains("no allow-list, so everyone may come") && add.contains(&remedy), "{add}");
        let remove = console.refused(json!({"command": "disallow", "peer": peer})).await?;
        let remedy = format!("peerage ban {}", members[1].id());
        ensure!(remove.contains("no allow-list") && remove.contains(&remedy), "{remove}");
        ensure!(console.ask(json!({"command": "allowed"})).await?.is_null(), "a list came to be");
        stage.world.run_for(10 * SECOND).await;
        ensure!(members[0].sim.connected().len() == 2, "somebody was let go");
        Ok(())
    })
}
