//! `cargo xtask tidy`: the house's rules that a compiler doesn't know. Every finding is a line `path:line: what`.

mod functions;

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most lines of a source file.
const FILE_LINES_MAX: usize = 700;
/// Most lines of a function; aim at 70.
const FUNCTION_LINES_MAX: usize = 100;
/// Folders that hold nothing of ours, wherever they are.
const SKIPPED_FOLDERS: [&str; 7] = [".git", "target", "node_modules", ".venv", "__pycache__", "dist", "objects"];
/// Files that tools write, registries' names and all.
const GENERATED_FILES: [&str; 3] = ["Cargo.lock", "package-lock.json", "pnpm-lock.yaml"];
/// What is read as text.
const TEXT_EXTENSIONS: [&str; 25] = [
    "rs", "toml", "md", "py", "sh", "ts", "tsx", "js", "css", "html", "json", "yml", "yaml", "go", "ex", "exs", "service",
    "socket", "conf", "ipynb", "txt", "svg", "rules", "ini", "j2",
];

/// Text that stands nowhere, and why. Written in halves, so that this file may hold it.
const BANNED: [(&str, &str, &str); 7] = [
    ("todo", "!", "unfinished code"),
    ("unimpl", "emented!", "unfinished code"),
    ("/ro", "ot/", "a path of one machine"),
    ("crates", ".io", "a registry's host"),
    ("pypi", ".org", "a registry's host"),
    ("npmjs", ".org", "a registry's host"),
    ("proxy.gol", "ang.org", "a registry's host"),
];

/// Checks the tree under `root` and prints what it finds.
pub fn run(root: &Path) -> Result<()> {
    report("tidy", check(root)?)
}

/// Prints findings; an error if there are some.
pub fn report(task: &str, findings: Vec<String>) -> Result<()> {
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("{task}: 1 finding"),
        count => bail!("{task}: {count} findings"),
    }
}

/// All findings, in order of paths.
fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        // Fixtures may hold any bytes.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        check_text(root, &name, &text, &mut findings);
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => check_source(&name, &text, &mut findings),
            Some("md") => check_links(&file, &name, &text, &mut findings),
            _ => {}
        }
        if file.file_name().is_some_and(|name| name == "Cargo.toml") {
            check_manifest(&name, &text, &mut findings)?;
        }
    }
    Ok(findings)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
            walk(&path, files)?;
        } else if kind.is_file() && is_text(&path, &name) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_text(path: &Path, name: &str) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let known = extension.is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension));
    (known || name == "Makefile" || name == "Dockerfile") && !GENERATED_FILES.contains(&name)
}

/// Banned text, and the place of this very clone.
fn check_text(root: &Path, name: &str, text: &str, findings: &mut Vec<String>) {
    let here = format!("{}/", root.display());
    // A clone right under `/` has a name that may be anybody's.
    let is_telling = root.components().filter(|part| matches!(part, Component::Normal(_))).count() >= 2;
    // A notebook holds what compilers print, and rustc's help proposes unfinished code.
    let is_printed = name.ends_with(".ipynb");
    for (i, line) in text.lines().enumerate() {
        for (first, second, why) in &BANNED {
            let is_allowed = is_printed && *why == "unfinished code";
            if line.contains(&format!("{first}{second}")) && !is_allowed {
                findings.push(format!("{name}:{}: `{first}{second}`: {why}", i + 1));
            }
        }
        if is_telling && line.contains(&here) {
            findings.push(format!("{name}:{}: the path of this clone", i + 1));
        }
    }
}

/// Module docs, sizes of files and functions.
fn check_source(name: &str, text: &str, findings: &mut Vec<String>) {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        findings.push(format!("{name}:1: no module docs: say in one line what this file is about"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{name}:{FILE_LINES_MAX}: {lines} lines, at most {FILE_LINES_MAX}: split it by concept"));
    }
    for function in functions::longer_than(text, FUNCTION_LINES_MAX) {
        let functions::Function { name: function, line, lines } = function;
        findings.push(format!("{name}:{line}: `{function}` has {lines} lines, at most {FUNCTION_LINES_MAX}"));
    }
}

/// Links to files beside the page.
fn check_links(file: &Path, name: &str, text: &str, findings: &mut Vec<String>) {
    let folder = file.parent().unwrap_or(file);
    for (i, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !folder.join(target).exists() {
                findings.push(format!("{name}:{}: link to {target}, which isn't there", i + 1));
            }
        }
    }
}

/// A package says what it is and follows the workspace's lints (unless it is a workspace of its own).
fn check_manifest(name: &str, text: &str, findings: &mut Vec<String>) -> Result<()> {
    let manifest: toml::Table = text.parse().with_context(|| format!("reading {name}"))?;
    let Some(package) = manifest.get("package") else { return Ok(()) };
    let description = package.get("description").and_then(toml::Value::as_str).unwrap_or_default();
    if description.trim().is_empty() {
        findings.push(format!("{name}:1: no description"));
    }
    let follows = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if follows != Some(true) && !manifest.contains_key("workspace") {
        findings.push(format!("{name}:1: no `[lints] workspace = true`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"a\"\ndescription = \"A.\"\n[lints]\nworkspace = true\n";

    /// A clean tree with one file more.
    fn findings(name: &str, content: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.replace("{here}", &directory.path().display().to_string())).unwrap();
        };
        write("crates/a/Cargo.toml", MANIFEST);
        write("crates/a/src/lib.rs", "//! A.\n\nfn f() {}\n");
        write("README.md", "[a](crates/a/src/lib.rs) [b](https://example.org/x) [c](#here)\n");
        write("target/debug/any.rs", "no docs\n");
        assert_eq!(check(directory.path()).unwrap(), Vec::<String>::new(), "the clean tree");
        write(name, content);
        check(directory.path()).unwrap()
    }

    fn check_found(name: &str, content: &str, expected: &str) {
        let found = findings(name, content);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?} is not {expected}");
    }

    #[test]
    fn planted_violations_are_found() {
        check_found("crates/a/src/b.rs", "fn f() {}\n", "crates/a/src/b.rs:1: no module docs");
        check_found("crates/a/src/b.rs", &format!("//! B.\n{}", "// x\n".repeat(700)), "crates/a/src/b.rs:700: 701 lines");
        let long = format!("//! B.\n\nfn long() {{\n{}}}\n", "    g();\n".repeat(99));
        check_found("crates/a/src/b.rs", &long, "crates/a/src/b.rs:3: `long` has 101 lines");
        check_found("notes.md", "[gone](docs/gone.md)\n", "notes.md:1: link to docs/gone.md");
        check_found("crates/b/Cargo.toml", &MANIFEST.replace("A.", " "), "crates/b/Cargo.toml:1: no description");
        check_found("crates/b/Cargo.toml", &MANIFEST.replace("true", "false"), "crates/b/Cargo.toml:1: no `[lints]");
        check_found("scripts/a.sh", "cd {here}/crates\n", "scripts/a.sh:1: the path of this clone");
        for (first, second, _) in BANNED {
            check_found("Makefile", &format!("\nx {first}{second} y\n"), &format!("Makefile:2: `{first}{second}`"));
        }
    }

    #[test]
    fn what_is_allowed() {
        for (name, content) in [
            ("crates/a/src/b.rs", "#![allow(dead_code)]\n\n//! B.\n"),
            ("crates/a/src/c.rs", &format!("//! C.\n{}", "// x\n".repeat(699))),
            ("kernel/Cargo.toml", "[package]\nname = \"k\"\ndescription = \"K.\"\n[workspace]\n"),
            ("Cargo.lock", &format!("{}{}", BANNED[3].0, BANNED[3].1)),
            ("a.ipynb", &format!("{}{}", BANNED[0].0, BANNED[0].1)),
        ] {
            assert_eq!(findings(name, content), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn one_finding_fails_the_task() {
        assert!(report("tidy", vec![]).is_ok());
        assert_eq!(report("tidy", vec!["x".into()]).unwrap_err().to_string(), "tidy: 1 finding");
    }
}
