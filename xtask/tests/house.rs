//! The house rules that a machine can see to: crates import downwards only, as ARCHITECTURE.md has it; every file says at its head what it is; what the documents name is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is made, not written.
const MADE: [&str; 3] = [".git", "artifacts", "target"];

/// Every file whose name ends so, from the root on.
fn files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let kind = entry.file_type().expect("its kind");
            if kind.is_dir() && !MADE.iter().any(|made| entry.file_name() == *made) {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_string_lossy().ends_with(ending) {
                found.push(entry.path().strip_prefix(root()).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A crate's floor, by the table in ARCHITECTURE.md; those aside have none.
fn floors() -> (BTreeMap<String, usize>, Vec<String>) {
    let text = read("ARCHITECTURE.md");
    let (_, table) = text.split_once("| floor | crates |\n").expect("the table of floors");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    let mut found = BTreeMap::new();
    let mut aside = Vec::new();
    for (floor, row) in rows.iter().enumerate() {
        let (name, crates) = row.trim_matches('|').split_once('|').expect("two columns");
        for one in quoted(crates) {
            match name.trim() {
                "aside" => aside.push(one.trim_end_matches("/*").to_owned()),
                _ => assert!(found.insert(one.to_owned(), floor).is_none(), "{one} is on two floors"),
            }
        }
    }
    (found, aside)
}

/// The crates of this workspace that a manifest names under `section`.
fn dependencies(manifest: &str, section: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == section;
        } else if inside && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| root().join("crates").join(name).join("Cargo.toml").exists() && !name.is_empty()) {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn crates_import_downwards_only() {
    let (floors, aside) = floors();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).expect("crates").flatten().filter(|entry| entry.path().join("Cargo.toml").exists()) {
        let name = entry.file_name().into_string().expect("a name");
        if aside.contains(&name) {
            continue;
        }
        let Some(floor) = floors.get(&name) else {
            wrong.push(format!("{name} is on no floor of ARCHITECTURE.md"));
            continue;
        };
        let manifest = read(format!("crates/{name}/Cargo.toml"));
        for below in dependencies(&manifest, "[dependencies]").into_iter().chain(dependencies(&manifest, "[build-dependencies]")) {
            match floors.get(&below) {
                Some(other) if other < floor => {}
                // The roof carries the load generator as a command.
                None if name == "coracle" && aside.contains(&below) => {}
                _ => wrong.push(format!("{name} imports {below}, which is not below it")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_is_on_the_map_and_says_what_it_is() {
    let (floors, aside) = floors();
    let rooms = read("crates/README.md");
    for name in floors.keys().chain(aside.iter().filter(|name| root().join("crates").join(name).exists())) {
        assert!(rooms.contains(&format!("[{name}]({name})")), "{name} has no line in crates/README.md");
        let lines = root().join(format!("crates/{name}/README.md")).exists().then(|| read(format!("crates/{name}/README.md")).lines().count());
        assert!(lines.is_none_or(|lines| lines <= 30), "crates/{name}/README.md is longer than 30 lines");
    }
}

#[test]
fn every_file_says_at_its_head_what_it_is() {
    let silent: Vec<String> = files(".rs").into_iter().filter(|name| !read(name).trim_start_matches("#![doc = include_str!(\"../README.md\")]\n").starts_with("//!")).collect();
    assert!(silent.is_empty(), "no `//!` at the head of {silent:#?}");
}

/// Where a document's word may lead: beside it, in the workspace, among the crates, or in the `src` of a crate.
fn exists(document: &Path, word: &str) -> bool {
    let word = word.trim_end_matches('/');
    let beside = document.parent().unwrap_or(Path::new(""));
    let mut tries: Vec<PathBuf> = vec![beside.join(word), word.into(), Path::new("crates").join(word), beside.join("src").join(word)];
    if let Some((name, rest)) = word.split_once('/') {
        tries.push(Path::new("crates").join(name).join("src").join(rest));
    }
    tries.iter().any(|path| root().join(path).exists())
}

/// `cargo xtask WORD` and `coracle WORD` in what documents have to be typed.
fn commands_named<'a>(text: &'a str, program: &'a str) -> impl Iterator<Item = &'a str> {
    // At the beginning of what is typed: `nft list map ip coracle services` is another program's.
    let places = text.match_indices(program).filter(|(at, _)| text[..*at].trim_end_matches([' ', '\t']).chars().next_back().is_none_or(|before| "`\n|&($#".contains(before)));
    let words = places.map(|(at, _)| text[at + program.len()..].split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').next().unwrap_or_default());
    words.filter(|word| !word.is_empty() && !word.starts_with('-'))
}

#[test]
fn commands_that_documents_name_are_there() {
    let chores = read("xtask/src/main.rs");
    let cli = read("crates/coracle/src/cli.rs");
    let (_, subcommands) = cli.split_once("enum Command {").expect("the commands");
    let subcommands: Vec<String> = subcommands
        .lines()
        .take_while(|line| *line != "}")
        .filter_map(|line| line.trim().split_once('(').map(|(name, _)| name.to_lowercase()))
        .filter(|name| name.chars().all(|letter| letter.is_ascii_lowercase()))
        .collect();
    assert!(subcommands.len() > 10, "{subcommands:?}");
    let mut unknown = Vec::new();
    for name in files(".md") {
        let text = read(&name);
        // Prose has the programs' names too: only code counts.
        let code: String = text.split("```").enumerate().map(|(at, part)| if at % 2 == 1 { part.to_owned() } else { quoted(part).collect::<Vec<_>>().join("\n") }).collect::<Vec<_>>().join("\n");
        for word in commands_named(&code, "cargo xtask ") {
            if !chores.contains(&format!("name: \"{word}\"")) {
                unknown.push(format!("{name}: cargo xtask {word}"));
            }
        }
        for word in commands_named(&code, "coracle ") {
            if !subcommands.iter().any(|known| known == word) && word.chars().all(|letter| letter.is_ascii_lowercase()) {
                unknown.push(format!("{name}: coracle {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for name in files(".md") {
        let text = read(&name);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !root().join(&name).parent().is_some_and(|folder| folder.join(target).exists()) {
                dead.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn paths_that_documents_name_are_there() {
    let mut gone = Vec::new();
    let sources = files("");
    for name in files(".md") {
        let text = read(&name);
        let outside: String = text.split("```").step_by(2).collect();
        for word in quoted(&outside) {
            let is_path = [".rs", ".md", ".sh", ".toml", ".proto"].iter().any(|ending| word.ends_with(ending) && word != *ending);
            let is_plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
            let is_there = match word.contains('/') {
                true => word.starts_with('/') || exists(Path::new(&name), word),
                // By its name alone: of any room.
                false => sources.iter().any(|file| file.rsplit('/').next() == Some(word)),
            };
            if is_path && is_plain && !is_there {
                gone.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
}
