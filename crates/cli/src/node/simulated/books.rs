//! Address books that go from one node to another.

use std::io::Write as _;

use super::*;

#[test]
fn an_exported_book_leads_a_node_without_contacts_into_the_overlay() -> Result<(), Failed> {
    operate(async |stage| {
        let members = stage.overlay(5).await?;
        stage.world.run_for(60 * SECOND).await;
        let newcomer = stage.start(named("newcomer")).await?;
        let book = stage.console(&members[2]).ask(json!({"command": "book_export"})).await?;
        let book = book.as_str().unwrap_or_default();
        for other in members.iter().filter(|other| other.id() != members[2].id()) {
            ensure!(book.contains(&other.id().to_string()), "{} is missing: {book}", other.sim.name());
        }
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(book.as_bytes())?;
        stage.world.run_for(60 * SECOND).await;
        ensure!(newcomer.sim.connected().is_empty(), "it knew somebody");
        let mut console = stage.console(&newcomer);
        let read = console.ask(json!({"command": "book_import", "path": file.path()})).await?;
        ensure!(read == 4, "{read} entries were read");
        let met = || newcomer.sim.connected().len() == 5;
        stage.world.until("it has met everybody", 120 * SECOND, met).await?;
        Ok(())
    })
}

#[test]
fn what_is_no_book_is_refused_and_changes_nothing() -> Result<(), Failed> {
    operate(async |stage| {
        let member = stage.start(named("reader")).await?;
        let mut console = stage.console(&member);
        let before = console.ask(json!({"command": "book_export"})).await?;
        let missing = console.refused(json!({"command": "book_import", "path": "/nonexistent/book"})).await?;
        ensure!(missing.contains("/nonexistent/book cannot be read"), "{missing}");
        for junk in ["", "[1, 2", "{\"peers\": 7}", "null"] {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(junk.as_bytes())?;
            let refused = console.refused(json!({"command": "book_import", "path": file.path()})).await?;
            ensure!(!refused.is_empty(), "{junk} was refused without a word");
        }
        let after = console.ask(json!({"command": "book_export"})).await?;
        ensure!(before == after, "{before} became {after}");
        Ok(())
    })
}
