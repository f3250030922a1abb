//! Reading a settings file.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::table::{Setting, TABLE};

/// The longest settings file, in bytes.
pub(crate) const MAX_BYTES: u64 = 1024 * 1024;
/// A name that is further from every known one is met without a guess.
const MIN_LIKENESS: f64 = 0.7;

/// The settings of a file, over the defaults.
///
/// # Errors
/// One line: the file, the place, the fault and the remedy.
pub(crate) fn load(path: &Path) -> Result<Settings, String> {
    let name = path.display();
    let file =
        fs::File::open(path).map_err(|error| format!("the settings file {name} cannot be read: {error}"))?;
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| format!("the settings file {name} cannot be read: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!(
            "the settings file {name} has more than {MAX_BYTES} bytes: is it the right one?"
        ));
    }
    let mut settings = Settings::default();
    apply(&mut settings, &text).map_err(|fault| match fault.place {
        Some(place) => format!("{name}, line {}: {}", line_of(&text, place), fault.text),
        None => format!("{name}: {}", fault.text),
    })?;
    Ok(settings)
}

/// What is wrong with a settings file, and where.
#[derive(Debug)]
struct Fault {
    place: Option<Range<usize>>,
    text: String,
}

fn apply(settings: &mut Settings, text: &str) -> Result<(), Fault> {
    let table = DeTable::parse(text)
        .map_err(|error| Fault { place: error.span(), text: error.message().to_owned() })?;
    apply_table(settings, "", table.get_ref())?;
    check(settings).map_err(|text| Fault { place: None, text })
}

fn apply_table(settings: &mut Settings, prefix: &str, table: &DeTable<'_>) -> Result<(), Fault> {
    // In the order of the file, so that the first fault is the one that is told.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let name =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        match TABLE.iter().find(|setting| setting.name == name) {
            Some(setting) => set(settings, setting, value)?,
            None => match value.get_ref() {
                DeValue::Table(inner) if is_section(&name) => apply_table(settings, &name, inner)?,
                _ => return Err(Fault { place: Some(key.span()), text: unknown(&name) }),
            },
        }
    }
    Ok(())
}

fn set(settings: &mut Settings, setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
    (setting.set)(settings, value.get_ref())
        .map_err(|hint| Fault { place: Some(value.span()), text: format!("{}: {hint}", setting.name) })
}

fn is_section(name: &str) -> bool {
    let begins =
        |setting: &Setting| setting.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    TABLE.iter().any(begins)
}

fn unknown(name: &str) -> String {
    if let Some(why) = crate::limits::why_no_setting(name) {
        return format!("{name} is a limit that no setting changes ({why})");
    }
    let likeness = |setting: &Setting| {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        // Somebody may have the right word in the wrong section.
        strsim::jaro_winkler(setting.name, name).max(strsim::jaro_winkler(&last(setting.name), &last(name)))
    };
    let nearest = TABLE
        .iter()
        .map(|setting| (likeness(setting), setting.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS);
    match nearest {
        Some((_, nearest)) => format!("there is no setting {name}: did you mean {nearest}?"),
        None => format!("there is no setting {name}: `peerage limits --all` shows what there is"),
    }
}

/// What no single line can be checked for.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    settings.memory.validate()?;
    settings.node_limits.validate()?;
    settings.bench.validate()?;
    settings.dht.validate()?;
    settings.records.validate()?;
    settings.transport.validate().map_err(|error| error.to_string())
}

fn line_of(text: &str, place: Range<usize>) -> usize {
    text.as_bytes().iter().take(place.start).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(text: &str) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        load(file.path()).map_err(|error| error.replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let settings = read(
            "[node]\nlisten = [\"/ip4/127.0.0.1/udp/4400/quic-v1\"]\nmoniker = \"a\"\n\
             [peers]\nmax_inbound = 7\nbackoff_base = \"250ms\"\nforeign = \"refuse\"\n\
             [transport]\npeer_window_bytes = \"16 MiB\"\nadmission.per_address = { burst = 5, per_second = 1 }\n",
        )
        .unwrap();
        assert_eq!(settings.node.listen.len(), 1);
        assert_eq!((settings.peers.max_inbound, settings.peers.max_outbound), (7, 10));
        assert_eq!(settings.peers.backoff_base, Duration::from_millis(250));
        assert_eq!(settings.transport.peer_window_bytes, 16 << 20);
        assert_eq!(settings.transport.admission.per_address, peerage::Rate::new(5, 1));
        assert_eq!(read("").unwrap().transport, Settings::default().transport);
    }

    #[test]
    fn a_fault_is_told_with_its_place_and_remedy() {
        for (text, told) in [
            (
                "[peers]\nmax_inbonud = 7",
                "FILE, line 2: there is no setting peers.max_inbonud: did you mean peers.max_inbound?",
            ),
            (
                "max_outbound = 7",
                "FILE, line 1: there is no setting max_outbound: did you mean peers.max_outbound?",
            ),
            ("[perse]\nx = 1", "there is no setting perse"),
            ("[dht]\nqueue = 5", "line 2: dht.queue is a limit that no setting changes (fixed)"),
            ("\n[peers]\nmax_inbound = -1", "FILE, line 3: peers.max_inbound: give a whole number"),
            ("[peers]\nbackoff_base = 5", "line 2: peers.backoff_base: give a time as a text"),
            ("[peers]\nforeign = \"maybe\"", "give \"allow\" or \"refuse\""),
            ("[transport]\npeer_window_bytes = \"many\"", "give a number of bytes or a text"),
            ("[transport.admission]\nper_address = { burst = 5 }", "give { burst = N, per_second = N }"),
            ("[transport]\nidle_timeout = \"1ms\"", "FILE: the transport setting keep_alive"),
            ("[node]\nseed = [\"/ip4/1.2.3.4/tcp/1\"]", "FILE, line 2: node.seed: "),
            ("[node]\nseed = \"x\"", "give a list of texts"),
            ("[node]\nserve_bench = 1", "line 2: node.serve_bench: give true or false"),
            ("[bench]\nmax_runs = 0", "FILE: the limit max_runs of bench is 0"),
            ("a = = 1", "FILE, line 1: "),
            ("zzzzzzzzqqqq = 1", "`peerage limits --all` shows what there is"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_none_or_endless_is_refused() {
        assert!(load(Path::new("/nowhere/at/all")).unwrap_err().contains("cannot be read"));
        assert!(load(Path::new("/dev/zero")).is_err());
        assert!(read(&"#\n".repeat(600_000)).unwrap_err().contains("more than 1048576 bytes"));
    }
}
