//! ARCHITECTURE.md and CONTRACT.md say nothing without a test: each test that they cite exists, each row and each promise has its answer, and
//! the tests name the promises and invariants that they prove.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The tags that the table of rows must answer, each once.
const REQUIRED: &[(&str, &[RangeInclusive<u32>])] = &[
    ("TM2-", &[14..=45]),
    ("DN-", &[11..=24, 38..=38]),
    ("FP-", &[2..=25, 29..=44]),
    ("AL-", &[1..=71]),
    ("TM2 w", &[1..=15]),
    ("DN w", &[1..=15]),
    ("FP w", &[1..=17]),
    ("AL w", &[1..=20]),
    ("X-", &[1..=30]),
];

/// Rows of which something is not built yet. This list only shrinks: whoever builds the rest takes the tag out, here and in the table.
const OPEN: &[&str] = &["AL-53"];

/// Rows that belong to parts that don't exist yet.
const LATER: &[&str] = &[
    "DN w4", "DN w5", "DN w6", "DN w7", "AL-60", "AL-61", "AL-62", "AL-63", "AL-64", "AL-65", "AL-66",
    "AL-68", "X-18",
];

/// What is known of a test function of one name: the lines of its doc comments.
type Tests = BTreeMap<String, String>;

#[test]
fn every_row_is_answered_and_its_tests_exist() {
    let root = root();
    let text = read(&root.join("ARCHITECTURE.md"));
    let exists = |path: &str| root.join("crates").join(path).exists() || root.join(path).exists();
    let faults = faults_of_rows(&text, &tests(&root), &exists);
    assert!(faults.is_empty(), "ARCHITECTURE.md:\n{}", faults.join("\n"));
}

#[test]
fn every_promise_is_cited_by_its_tests_and_no_test_cites_another() {
    let root = root();
    let faults = faults_of_contract(&read(&root.join("CONTRACT.md")), &tests(&root));
    assert!(faults.is_empty(), "CONTRACT.md:\n{}", faults.join("\n"));
}

/// a limit that no test holds to its word is no limit.
#[test]
fn every_limit_names_its_tests_and_they_exist() {
    let root = root();
    let faults = faults_of_limits(&read(&root.join("ARCHITECTURE.md")), &tests(&root));
    assert!(faults.is_empty(), "ARCHITECTURE.md:\n{}", faults.join("\n"));
}

#[test]
fn every_test_that_another_page_cites_exists() {
    let root = root();
    let tests = tests(&root);
    for page in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CONTRACT.md"] {
        let text = read(&root.join(page));
        // A name of five words or more is a sentence, and sentences are tests.
        let missing: Vec<_> = quoted(&text)
            .filter(|word| is_name(word) && word.matches('_').count() >= 4 && !tests.contains_key(*word))
            .collect();
        assert!(missing.is_empty(), "{page} cites tests that don't exist: {missing:?}");
    }
}

/// The checks above find what they are there to find.
#[test]
fn a_document_that_claims_too_much_is_found_out() {
    let tests: Tests = [
        ("a_cat_purrs", "X-07: it purrs.\nContract C-1."),
        ("a_dog_barks", "Contract C-1, C-3."),
        ("a_cow_moos", ""),
    ]
    .map(|(name, docs)| (name.to_owned(), docs.to_owned()))
    .into();
    let exists = |path: &str| path == "zoo/src/cat.rs";
    let rows = |line: &str| {
        let text = format!("## Before\n| TM2-14 | no row | | |\n## Rows\n{line}\n## After\n");
        let faults = faults_of_rows(&text, &tests, &exists);
        faults.into_iter().filter(|fault| !fault.ends_with("has no row")).collect::<Vec<_>>()
    };
    let open = |tag: &str| format!("| {tag} | It purrs. | `zoo/src/cat.rs` | open: the dog |");
    assert_eq!(rows("| X-07 | It purrs. | `zoo/src/cat.rs` | `a_cat_purrs` |"), [""; 0]);
    assert_eq!(rows("| TM2-14 | It purrs. | – | needless: why |"), [""; 0]);
    for (line, fault) in [
        (
            "| X-07 | It purrs. | `zoo/src/cat.rs` | `a_cat_flies` |".to_owned(),
            "X-07: no test is called a_cat_flies",
        ),
        (
            "| X-07 | It purrs. | `zoo/src/cow.rs` | `a_cat_purrs` |".to_owned(),
            "X-07: zoo/src/cow.rs is no file",
        ),
        (
            "| X-07 | It purrs. | `zoo/src/cat.rs` | `a_cow_moos` |".to_owned(),
            "X-07: none of its tests bears the number",
        ),
        ("| X-07 | It purrs. | `zoo/src/cat.rs` | |".to_owned(), "X-07: no test, and no reason why none"),
        ("| X-07 | | `zoo/src/cat.rs` | `a_cat_purrs` |".to_owned(), "X-07: it says nothing"),
        (
            "| X-99 | It purrs. | `zoo/src/cat.rs` | `a_cat_purrs` |".to_owned(),
            "X-99: nobody asks for this tag",
        ),
        (
            "| X-18 | It purrs. | `zoo/src/cat.rs` | `a_cat_purrs` |".to_owned(),
            "X-18: it is built: take it out of LATER",
        ),
        (open("TM2-14"), "TM2-14: it is open and not in OPEN"),
        (
            ["| X-07 | It purrs. | `zoo/src/cat.rs` | `a_cat_purrs` |"; 2].join("\n"),
            "X-07: it stands there twice",
        ),
    ] {
        assert!(rows(&line).contains(&fault.to_owned()), "{line}\n{:?}", rows(&line));
    }
    assert!(faults_of_rows("## Rows\n", &tests, &exists).contains(&"FP-44: it has no row".to_owned()));

    let limits = |rows: &str| faults_of_limits(&format!("## Limits\n{rows}\n## After\n"), &tests);
    assert_eq!(
        limits("| `cats.most` | 9 | Cats | `a_cat_purrs`, `a_dog_barks` |"),
        ["the table has 1 rows: the search is broken"]
    );
    for (row, fault) in [
        ("| `cats.most` | 9 | Cats | |", "cats.most: no test"),
        ("| `cats.most` | 9 | Cats | later |", "cats.most: no test"),
        ("| `cats.most` | 9 | Cats | `a_cat_flies` |", "cats.most: no test is called a_cat_flies"),
        ("| `cats.most` | 9 | Cats |", "| `cats.most` | 9 | Cats |: a row has four cells"),
    ] {
        assert!(limits(row).contains(&fault.to_owned()), "{row}\n{:?}", limits(row));
    }

    let contract = |text: &str| faults_of_contract(text, &tests);
    let good = "- **C-1** Cats purr and dogs bark. (`a_cat_purrs`, `a_dog_barks`)\n\
                - **C-2** Both live. (`a_cow_moos`)\n  \n- **C-3** Dogs bark. (`a_dog_barks`)";
    assert_eq!(contract(good), ["C-2: the comment of a_cow_moos does not say «Contract C-2»"]);
    let short = "- **C-1** Cats purr. (`a_cat_purrs`)\n- **C-2** They sleep.";
    assert_eq!(
        contract(short),
        [
            "C-1: a_dog_barks says that it proves it, and is not cited",
            "C-2: it cites no test",
            "C-3: a_dog_barks says that it proves it, and is not cited"
        ]
    );
    let birds = contract("- **C-2** Birds. (`a_bird_sings`)\n- **C-2** Birds. (`a_bird_sings`)");
    for fault in ["C-2: it should be C-3 or more", "C-2: no test is called a_bird_sings"] {
        assert!(birds.contains(&fault.to_owned()), "{birds:?}");
    }
}

/// What is wrong with the table of rows.
fn faults_of_rows(text: &str, tests: &Tests, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let required = required();
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for line in section(text, "## Rows").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [tag, what, place, proof] = cells[..] else {
            faults.push(format!("{line}: a row has four cells"));
            continue;
        };
        if tag == "tag" {
            continue;
        }
        let mut fault = |detail: String| faults.push(format!("{tag}: {detail}"));
        if !required.contains(tag) {
            fault("nobody asks for this tag".into());
        }
        if !seen.insert(tag.to_owned()) {
            fault("it stands there twice".into());
        }
        if what.is_empty() {
            fault("it says nothing".into());
        }
        quoted(place)
            .filter(|path| path.contains('/') && !exists(path))
            .for_each(|path| fault(format!("{path} is no file")));
        faults_of_proof(tag, proof, tests).into_iter().for_each(fault);
    }
    faults.extend(
        required.iter().filter(|tag| !seen.contains(*tag)).map(|tag| format!("{tag}: it has no row")),
    );
    faults
}

/// What is wrong with the last cell of a row.
fn faults_of_proof(tag: &str, proof: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let cited: Vec<&str> = quoted(proof).filter(|word| is_name(word)).collect();
    faults.extend(
        cited
            .iter()
            .filter(|name| !tests.contains_key(**name))
            .map(|name| format!("no test is called {name}")),
    );
    let (open, later) = (proof.contains("open: "), proof.contains("later: "));
    for (is, list, name) in [(open, OPEN, "OPEN"), (later, LATER, "LATER")] {
        match (is, list.contains(&tag)) {
            (true, false) => faults.push(format!("it is {} and not in {name}", name.to_lowercase())),
            (false, true) => faults.push(format!("it is built: take it out of {name}")),
            _ => {}
        }
    }
    if cited.is_empty() && !open && !later && !proof.starts_with("needless: ") {
        faults.push("no test, and no reason why none".into());
    }
    let bears = |name: &&str| tests.get(*name).is_some_and(|docs| numbers(docs, "X-").contains(tag));
    if tag.starts_with("X-") && !open && !later && !cited.iter().any(bears) {
        faults.push("none of its tests bears the number".into());
    }
    faults
}

/// What is wrong with the table of limits. That it is whole is checked where the code's own list of limits is known.
fn faults_of_limits(text: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let rows: Vec<_> = section(text, "## Limits").lines().filter(|line| line.starts_with("| `")).collect();
    for line in &rows {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, _, proof] = cells[..] else {
            faults.push(format!("{line}: a row has four cells"));
            continue;
        };
        let name = name.trim_matches('`');
        let cited: Vec<_> = quoted(proof).collect();
        if cited.is_empty() {
            faults.push(format!("{name}: no test"));
        }
        let missing = cited.iter().filter(|test| !tests.contains_key(**test));
        faults.extend(missing.map(|test| format!("{name}: no test is called {test}")));
    }
    if rows.len() < 150 {
        faults.push(format!("the table has {} rows: the search is broken", rows.len()));
    }
    faults
}

/// What is wrong with the promises. A promise is a list item that begins with its number.
fn faults_of_contract(text: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let mut cited: BTreeSet<(String, String)> = BTreeSet::new();
    let promises = text
        .split("\n- **C-")
        .map(|item| item.trim_start_matches("- **C-"))
        .filter(|item| item.starts_with(|c: char| c.is_ascii_digit()));
    let mut last = 0;
    for item in promises {
        // An item ends where the list does.
        let item = item.split("\n\n").next().unwrap();
        let number = format!("C-{}", item.split("**").next().unwrap());
        // A number is never given to another promise: one that is withdrawn leaves a gap.
        match number[2..].parse::<u32>() {
            Ok(next) if next > last => last = next,
            _ => faults.push(format!("{number}: it should be C-{} or more", last + 1)),
        }
        let names: Vec<&str> = quoted(item).filter(|word| is_name(word) && word.contains('_')).collect();
        if names.is_empty() {
            faults.push(format!("{number}: it cites no test"));
        }
        for name in names {
            cited.insert((number.clone(), name.to_owned()));
            match tests.get(name) {
                None => faults.push(format!("{number}: no test is called {name}")),
                Some(docs) if !promised(docs).contains(&number) => {
                    faults.push(format!("{number}: the comment of {name} does not say «Contract {number}»"));
                }
                Some(_) => {}
            }
        }
    }
    for (name, docs) in tests {
        let claims = promised(docs).into_iter().map(|number| (number, name.clone()));
        let uncited = claims.filter(|claim| !cited.contains(claim));
        faults.extend(
            uncited
                .map(|(number, name)| format!("{number}: {name} says that it proves it, and is not cited")),
        );
    }
    faults.sort();
    faults
}

fn required() -> BTreeSet<String> {
    let ranges = |(prefix, ranges): &(&str, &'static [RangeInclusive<u32>])| {
        let prefix = (*prefix).to_owned();
        let numbers = ranges.iter().cloned().flatten();
        // Weaknesses are counted as the list counts them, rows and invariants with two digits.
        numbers.map(
            move |n| if prefix.ends_with('w') { format!("{prefix}{n}") } else { format!("{prefix}{n:02}") },
        )
    };
    REQUIRED.iter().flat_map(ranges).collect()
}

/// The text below a heading, to the next one of the same rank.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(&format!("{heading}\n")) else { return "" };
    rest.split("\n## ").next().unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether a word can be the name of a function.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The promises that a doc comment names: `Contract C-1, C-2.`
fn promised(docs: &str) -> BTreeSet<String> {
    docs.lines().filter(|line| line.starts_with("Contract ")).flat_map(|line| numbers(line, "C-")).collect()
}

/// All that begins with `prefix` and goes on with digits.
fn numbers(text: &str, prefix: &str) -> BTreeSet<String> {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let found = text.split(prefix).skip(1).map(digits).filter(|digits| !digits.is_empty());
    found.map(|digits| format!("{prefix}{digits}")).collect()
}

/// Every test function below the folders that hold code, with its doc comment. Tests of one name share an entry.
fn tests(root: &Path) -> Tests {
    let mut tests = Tests::new();
    for folder in ["crates", "interop", "benches", "fuzz"] {
        collect(&root.join(folder), &mut tests);
    }
    assert!(tests.len() > 400, "only {} tests were found: the search is broken", tests.len());
    tests
}

fn collect(folder: &Path, tests: &mut Tests) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            collect(&path, tests);
        } else if name.ends_with(".rs") {
            read_tests(&read(&path), tests);
        }
    }
}

/// A test is a function behind `#[test]` or `#[tokio::test…]`; its doc comment stands before or between its attributes.
fn read_tests(source: &str, tests: &mut Tests) {
    let (mut docs, mut is_test) = (String::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc.trim());
            docs.push('\n');
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else {
            let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
            if let (true, Some(name)) = (is_test, name) {
                tests.entry(name.to_owned()).or_default().push_str(&docs);
            }
            docs.clear();
            is_test = false;
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
