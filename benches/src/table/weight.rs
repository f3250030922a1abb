//! How much a library costs to build: the crates in the tree of a hello-world, and the processor time of its cold release build.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use peerage_bench_peer::Outcome;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// What one library weighs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Weight {
    /// Crates for x86_64 Linux, build dependencies and the hello-world itself included.
    pub(crate) crates: usize,
    /// Processor seconds of the cold release build.
    pub(crate) cpu_seconds: f64,
}

/// What both weigh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Weights {
    pub(crate) ours: Weight,
    pub(crate) raw_quinn: Weight,
}

/// The longest that one cold build may take.
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);
const TARGET: &str = "x86_64-unknown-linux-gnu";
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Counts and builds a hello-world with each library in a temporary folder.
///
/// # Errors
/// No cargo, no folder, or a build that fails.
pub(crate) async fn measure() -> Outcome<Weights> {
    let ours = format!("peerage = {{ path = {:?} }}", Path::new(ROOT).join("crates/peerage"));
    let raw = "quinn = \"0.11.12\"".to_owned();
    Ok(Weights {
        ours: of("peerage", &ours, "let _ = peerage::Node::builder();").await?,
        raw_quinn: of("raw quinn", &raw, "let _ = quinn::EndpointConfig::default();").await?,
    })
}

async fn of(name: &str, dependency: &str, line: &str) -> Outcome<Weight> {
    eprintln!("weight of {name}: a cold release build, minutes");
    let folder = tempfile::tempdir()?;
    let manifest = format!(
        "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependency}\ntokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n"
    );
    std::fs::create_dir(folder.path().join("src"))?;
    std::fs::write(folder.path().join("Cargo.toml"), manifest)?;
    // The same versions as here.
    std::fs::copy(Path::new(ROOT).join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
    std::fs::write(
        folder.path().join("src/main.rs"),
        format!("#[tokio::main]\nasync fn main() {{\n    {line}\n}}\n"),
    )?;
    let tree = ["tree", "--prefix", "none", "--edges", "normal,build", "--target", TARGET, "--format", "{p}"];
    let tree = cargo(folder.path(), &tree).await?;
    cargo(folder.path(), &["fetch", "--target", TARGET]).await?;
    let cpu = build(folder.path()).await?;
    Ok(Weight { crates: count(&tree), cpu_seconds: cpu.as_secs_f64() })
}

/// Different packages in the output of `cargo tree`; one that was listed before is marked with an asterisk.
fn count(tree: &str) -> usize {
    let names = tree.lines().map(|line| line.trim_end_matches(" (*)").trim_end_matches(" (proc-macro)"));
    names.filter(|name| !name.is_empty()).collect::<std::collections::BTreeSet<_>>().len()
}

fn cargo_name() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // What was set for the build of this program is not meant for that one.
    for name in ["CARGO_TARGET_DIR", "CARGO_INCREMENTAL", "RUSTFLAGS", "RUSTC_WRAPPER"] {
        command.env_remove(name);
    }
    command
}

async fn cargo(folder: &Path, arguments: &[&str]) -> Outcome<String> {
    let output = command(&cargo_name(), folder).args(arguments).output().await?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cargo {}: {complaint}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The processor time of cargo and all that it started. A shell prints what its children used, for they are no longer there to be asked.
async fn build(folder: &Path) -> Outcome<Duration> {
    let mut shell = command("sh", folder);
    shell.stdout(Stdio::piped());
    shell.args(["-c", "\"$0\" build --release --quiet && times", &cargo_name()]);
    let mut process = shell.spawn()?;
    let mut text = String::new();
    let mut stdout = process.stdout.take().ok_or("the shell has no standard output")?;
    let finished = async {
        stdout.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(process.wait().await?.success())
    };
    let late = |_| format!("the cold build did not end within {BUILD_DEADLINE:?}");
    if !tokio::time::timeout(BUILD_DEADLINE, finished).await.map_err(late)?? {
        return Err("the cold build failed (see above)".into());
    }
    Ok(children(&text).ok_or_else(|| format!("the shell's times are not understood: {text:?}"))?)
}

/// What `times` says of a shell's children: its second line, user and system, as `1m2.34s`.
fn children(times: &str) -> Option<Duration> {
    let of = |text: &str| {
        let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.replace(',', ".").parse::<f64>().ok()?)
    };
    let line = times.lines().nth(1)?;
    let seconds = line.split_whitespace().map(of).collect::<Option<Vec<f64>>>()?;
    Duration::try_from_secs_f64(seconds.iter().sum()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_of_a_tree_counts_once() {
        let tree = "hello v0.1.0 (/tmp/x)\nbytes v1.12.0\n\nserde_derive v1.0.0 (proc-macro)\nbytes v1.12.0 (*)\nbytes v0.5.0\n";
        assert_eq!(count(tree), 4);
    }

    #[test]
    fn the_times_of_a_shells_children_are_understood() {
        let times = "0m0.01s 0m0.00s\n2m3.50s 0m1.25s\n";
        assert_eq!(children(times), Some(Duration::from_secs_f64(124.75)));
        assert_eq!(children("nothing"), None);
    }
}
