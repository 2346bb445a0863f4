//! `cargo xtask check-deps`: the dependency table as data. A new edge between our packages fails here until the table, and the
//! design that it mirrors, say otherwise; so does a library that a package must never contain, however deep it lies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use crate::tidy::report;

/// What a package of ours may depend on.
enum May {
    /// These packages of ours; in tests as well.
    Use(&'static [&'static str]),
    /// Anything: development tools, never linked into a node.
    Anything,
}

use May::{Anything, Use};

const PURE_CORE: &[&str] = &["types", "ledger", "mempool", "consensus", "signer", "replica"];

/// Package → the packages of ours that it may depend on. Every edge points down.
const TABLE: [(&str, May); 18] = [
    ("kernel-shared", Use(&[])),
    ("kernel-programs", Use(&["kernel-shared"])),
    ("types", Use(&[])),
    ("ledger", Use(&["types"])),
    ("mempool", Use(&["types", "ledger"])),
    ("consensus", Use(&["types"])),
    ("signer", Use(&["types"])),
    ("replica", Use(&["types", "ledger", "mempool", "consensus", "signer"])),
    ("why", Use(&["types"])),
    ("storage", Use(&["types", "ledger"])),
    ("network", Use(&["types"])),
    ("guard", Use(&["kernel-shared", "types"])),
    ("api", Use(&["types"])),
    ("sim", Use(PURE_CORE)),
    (
        "node",
        Use(&[
            "types",
            "ledger",
            "mempool",
            "consensus",
            "signer",
            "replica",
            "why",
            "storage",
            "network",
            "guard",
            "api",
            "kernel-shared",
        ]),
    ),
    ("lab", Anything),
    ("xtask", Anything),
    ("fuzz", Anything),
];

/// What brings I/O, threads, clocks or sockets.
const SHELLS: &[&str] = &[
    "tokio",
    "mio",
    "async-std",
    "smol",
    "libp2p",
    "librocksdb-sys",
    "rocksdb",
    "aya",
    "aya-obj",
    "axum",
    "hyper",
    "reqwest",
    "quinn",
];

/// Packages → libraries that none of them may contain, at any depth.
const FORBIDDEN: [(&[&str], &[&str]); 7] = [
    (&["kernel-shared", "types", "ledger", "mempool", "consensus", "signer", "replica", "why", "sim"], SHELLS),
    // Randomness is an input.
    (&["kernel-shared"], &["std", "rand", "rand_core"]),
    (&["storage"], &["tokio", "libp2p", "aya", "aya-obj", "axum"]),
    (&["network"], &["rocksdb", "aya", "axum"]),
    (&["guard"], &["rocksdb", "libp2p", "axum"]),
    (&["api"], &["rocksdb", "libp2p", "aya", "aya-obj"]),
    // The node has no privilege that a loader would need.
    (&["node"], &["aya", "aya-obj"]),
];

/// (package, dependency, feature) that a node never turns on: loading programs, attacking, breaking rules on purpose.
const FORBIDDEN_FEATURES: [(&str, &str, &str); 5] = [
    ("node", "guard", "kernel"),
    ("node", "network", "attack"),
    ("node", "consensus", "planted-bugs"),
    ("node", "signer", "planted-bugs"),
    ("node", "replica", "planted-bugs"),
];

/// Checks the manifests and the lock file under `root` and prints what it finds.
pub fn run(root: &Path) -> Result<()> {
    report("check-deps", check(root)?)
}

/// One dependency of one of our packages.
struct Dependency {
    name: String,
    is_optional: bool,
    is_dev: bool,
    features: Vec<String>,
}

/// Our packages by name.
type Packages = BTreeMap<String, Vec<Dependency>>;
/// Third-party packages by name, all versions together: the names that they depend on.
type Locked = BTreeMap<String, BTreeSet<String>>;

fn check(root: &Path) -> Result<Vec<String>> {
    let workspace = read_toml(&root.join("Cargo.toml"))?;
    let shared =
        workspace.get("workspace").and_then(|w| w.get("dependencies")).and_then(Value::as_table).cloned().unwrap_or_default();
    let packages = packages(root, &shared)?;
    let locked = locked(&read_toml(&root.join("Cargo.lock"))?, &packages);
    let mut findings = Vec::new();
    for (name, dependencies) in &packages {
        check_edges(name, dependencies, &packages, &mut findings);
        check_features(name, dependencies, &mut findings);
    }
    for (names, libraries) in &FORBIDDEN {
        for name in names.iter().filter(|name| packages.contains_key(**name)) {
            check_libraries(name, libraries, &packages, &locked, &mut findings);
        }
    }
    Ok(findings)
}

fn read_toml(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("parsing {}", path.display()))
}

/// Where our packages are.
fn manifests(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = ["lab", "xtask", "fuzz"].iter().map(|folder| root.join(folder).join("Cargo.toml")).collect();
    for parent in ["crates", "kernel"] {
        let folder = root.join(parent);
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            found.push(entry?.path().join("Cargo.toml"));
        }
    }
    found.retain(|path| path.is_file());
    found.sort();
    ensure!(!found.is_empty(), "no packages under {}", root.display());
    Ok(found)
}

fn packages(root: &Path, shared: &Table) -> Result<Packages> {
    let mut found = Packages::new();
    for path in manifests(root)? {
        let manifest = read_toml(&path)?;
        let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
        let name = name.with_context(|| format!("{} names no package", path.display()))?;
        found.insert(name.to_owned(), dependencies(&manifest, shared));
    }
    Ok(found)
}

/// Dependencies of a manifest, for every target.
fn dependencies(manifest: &Table, shared: &Table) -> Vec<Dependency> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|targets| targets.values());
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let mut found = Vec::new();
    for table in tables {
        for (section, is_dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
            let entries = table.get(section).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(key, value)| dependency(key, value, shared, is_dev)));
        }
    }
    found
}

fn dependency(key: &str, value: &Value, shared: &Table, is_dev: bool) -> Dependency {
    let inherited = if value.get("workspace").is_some() { shared.get(key) } else { None };
    let both = || [Some(value), inherited].into_iter().flatten();
    let name = both().find_map(|value| value.get("package")).and_then(Value::as_str).unwrap_or(key);
    let features = both().filter_map(|value| value.get("features")).filter_map(Value::as_array).flatten();
    Dependency {
        name: name.to_owned(),
        is_optional: value.get("optional").and_then(Value::as_bool).unwrap_or(false),
        is_dev,
        features: features.filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

fn locked(lock: &Table, packages: &Packages) -> Locked {
    let mut found = Locked::new();
    for package in lock.get("package").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = package.get("name").and_then(Value::as_str).filter(|name| !packages.contains_key(*name)) else { continue };
        let dependencies = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        // "name", or "name version" where there are several.
        let names = dependencies.filter_map(Value::as_str).filter_map(|entry| entry.split(' ').next());
        found.entry(name.to_owned()).or_default().extend(names.map(str::to_owned));
    }
    found
}

fn check_edges(name: &str, dependencies: &[Dependency], packages: &Packages, findings: &mut Vec<String>) {
    let Some((_, may)) = TABLE.iter().find(|(package, _)| *package == name) else {
        findings.push(format!("{name}: not in the dependency table: a package needs a reason and a row"));
        return;
    };
    let Use(allowed) = may else { return };
    for Dependency { name: dependency, .. } in dependencies {
        let is_ours = packages.contains_key(dependency);
        // A package may turn on a feature of itself for its own tests.
        if is_ours && dependency != name && !allowed.contains(&dependency.as_str()) {
            findings.push(format!("{name} → {dependency}: not in the dependency table"));
        }
    }
}

fn check_features(name: &str, dependencies: &[Dependency], findings: &mut Vec<String>) {
    for (package, dependency, feature) in FORBIDDEN_FEATURES {
        let turns_on = |found: &&Dependency| found.name == dependency && found.features.iter().any(|f| f == feature);
        if name == package && dependencies.iter().any(|found| turns_on(&found)) {
            findings.push(format!("{name} → {dependency}: turns on `{feature}`"));
        }
    }
}

/// Walks everything that is linked into a package; dev and, of our own packages, optional dependencies are not.
fn check_libraries(name: &str, forbidden: &[&str], packages: &Packages, locked: &Locked, findings: &mut Vec<String>) {
    let mut came_from: BTreeMap<String, String> = BTreeMap::new();
    let mut open = vec![name.to_owned()];
    while let Some(at) = open.pop() {
        let next: Vec<String> = match packages.get(&at) {
            Some(ours) => ours.iter().filter(|d| !d.is_dev && !d.is_optional).map(|d| d.name.clone()).collect(),
            None => locked.get(&at).into_iter().flatten().cloned().collect(),
        };
        for dependency in next {
            if dependency != name && !came_from.contains_key(&dependency) {
                came_from.insert(dependency.clone(), at.clone());
                open.push(dependency);
            }
        }
    }
    for library in forbidden.iter().filter(|library| came_from.contains_key(**library)) {
        let mut path = vec![*library];
        while let Some(before) = path.last().and_then(|last| came_from.get(*last)) {
            path.push(before);
        }
        path.reverse();
        findings.push(format!("{}: {name} must never contain {library}", path.join(" → ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small workspace; `extra` is put below one package's `[dependencies]`.
    fn findings(package: &str, extra: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write(
            "Cargo.toml",
            "[workspace.dependencies]\ntypes = { path = \"crates/types\" }\nledger = { path = \"crates/ledger\" }\nborsh = \"1\"\n\
             guard = { path = \"crates/guard\", default-features = false }\nserde = \"1\"\n",
        );
        write(
            "Cargo.lock",
            "[[package]]\nname = \"borsh\"\ndependencies = [\"bytes 1.0.0\"]\n[[package]]\nname = \"bytes\"\n\
             [[package]]\nname = \"innocent\"\ndependencies = [\"deep\"]\n[[package]]\nname = \"deep\"\ndependencies = [\"tokio 1.2.3\"]\n\
             [[package]]\nname = \"tokio\"\n",
        );
        let base = [
            ("crates/types", "types", "borsh.workspace = true"),
            ("crates/ledger", "ledger", "types.workspace = true"),
            ("crates/guard", "guard", "types.workspace = true\naya = { version = \"1\", optional = true }"),
            ("crates/node", "node", "ledger.workspace = true\nguard.workspace = true\ntokio = \"1\""),
            ("kernel/shared", "kernel-shared", ""),
            ("lab", "lab", "guard = { workspace = true, features = [\"kernel\"] }"),
        ];
        for (folder, name, dependencies) in base {
            let extra = if name == package { extra } else { "" };
            let manifest = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}\n{extra}\n");
            write(&format!("{folder}/Cargo.toml"), &manifest);
        }
        if !base.iter().any(|(_, name, _)| *name == package) {
            write(&format!("crates/{package}/Cargo.toml"), &format!("[package]\nname = \"{package}\"\n[dependencies]\n{extra}\n"));
        }
        check(directory.path()).unwrap()
    }

    #[test]
    fn planted_violations_are_found() {
        for (package, extra, expected) in [
            ("types", "ledger.workspace = true", "types → ledger: not in the dependency table"),
            ("ledger", "[dev-dependencies]\nguard.workspace = true", "ledger → guard: not in the dependency table"),
            ("ledger", "[target.'cfg(unix)'.dependencies]\nguard.workspace = true", "ledger → guard: not in the dependency table"),
            ("ledger", "g = { package = \"guard\", path = \"../guard\" }", "ledger → guard: not in the dependency table"),
            ("helpers", "", "helpers: not in the dependency table: a package needs a reason and a row"),
            ("ledger", "tokio = \"1\"", "ledger → tokio: ledger must never contain tokio"),
            ("ledger", "innocent = \"1\"", "ledger → innocent → deep → tokio: ledger must never contain tokio"),
            ("node", "aya = \"1\"", "node → aya: node must never contain aya"),
            (
                "node",
                "[build-dependencies]\nguard = { workspace = true, features = [\"kernel\"] }",
                "node → guard: turns on `kernel`",
            ),
        ] {
            assert_eq!(findings(package, extra), [expected], "{package}: {extra}");
        }
    }

    #[test]
    fn what_is_allowed() {
        for (package, extra) in [
            ("types", "serde.workspace = true"),
            ("ledger", "[dev-dependencies]\ntokio = \"1\""),
            ("lab", "ledger.workspace = true\ntokio = \"1\""),
            ("why", "types.workspace = true"),
        ] {
            assert_eq!(findings(package, extra), Vec::<String>::new(), "{package}: {extra}");
        }
    }

    #[test]
    fn the_table_has_no_cycle_and_each_row_once() {
        let names: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), TABLE.len());
        let mut placed = BTreeSet::new();
        while placed.len() < TABLE.len() {
            let before = placed.len();
            for (name, may) in &TABLE {
                let Use(allowed) = may else {
                    placed.insert(*name);
                    continue;
                };
                assert!(allowed.iter().all(|allowed| names.contains(allowed)));
                if allowed.iter().all(|allowed| placed.contains(allowed)) {
                    placed.insert(*name);
                }
            }
            assert!(placed.len() > before, "a cycle beside {placed:?}");
        }
    }
}
