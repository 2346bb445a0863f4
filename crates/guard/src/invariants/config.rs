//! What must hold for every text that somebody gives a guard as its configuration.

use crate::cli::{
    config::{ConfigError, Settings},
    run::Run,
};
use std::path::Path;

/// A text as the configuration: settings that are whole, or what is wrong in one line, at a line that the text has.
pub fn config(text: &str) {
    let path = Path::new("guard.toml");
    match Settings::of(&Run::of_file(path), path, text) {
        Ok(settings) => assert!(!settings.options.protect.is_empty(), "{settings:?}"),
        Err(ConfigError::Value { line, message, .. }) => {
            assert!((1..=text.matches('\n').count() + 1).contains(&line), "line {line}: {message}");
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        }
        Err(error) => assert!(error.to_string().starts_with("guard.toml: "), "{error}"),
    }
}

const PACKAGED: &str = include_str!("../../../../packaging/guard.toml");

/// Every key of the packaged file, those that it leaves to their defaults among them, without its comments.
pub fn keys() -> String {
    let named = PACKAGED.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
    named.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// Texts to begin with: the packaged file as it is, all its keys, and each of its paragraphs, for short texts bend better.
pub fn seeds() -> Vec<String> {
    let keys = keys();
    let least = "interface = 'eth0'\nprotect = ['tcp/30303']\n";
    let paragraphs: Vec<String> = keys.split("\n\n").map(|paragraph| format!("{least}{paragraph}\n")).collect();
    [PACKAGED.to_string(), keys].into_iter().chain(paragraphs).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hold_for_the_seeds() {
        let seeds = super::seeds();
        assert!(seeds.len() > 20);
        seeds.iter().for_each(|text| super::config(text));
    }
}
