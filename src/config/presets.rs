//! Presets: checks with a name, embedded from the files of `conf/presets`. A preset is a health table like any other,
//! read by the same reader; `validate` merges it with the keys that a user has written.

use std::path::Path;
use std::sync::LazyLock;

use toml::de::DeTable;

use super::Env;
use super::raw::Health;
use super::read::Reader;
use super::report::Report;
use super::values::{Kind, Scheme, Word};

/// One of the presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name, as a configuration writes it.
    pub name: &'static str,
    /// The kind of system.
    pub group: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

macro_rules! presets {
    ($($group:literal: [$($name:literal),* $(,)?]),* $(,)?) => {
        impl Word for Preset {
            const WORDS: &'static [(&'static str, Preset)] = &[$($((
                $name,
                Preset {
                    name: $name,
                    group: $group,
                    text: include_str!(concat!("../../conf/presets/", $name, ".toml")),
                },
            ),)*)*];
        }
    };
}

presets![
    "Applications": ["aspnet", "rails", "spring-boot"],
    "Databases and caches": [
        "elasticsearch", "galera", "memcached", "mysql", "patroni-primary", "patroni-replica", "postgresql", "redis",
    ],
    "Messages and mail": ["amqp", "mqtt", "nats", "smtp"],
    "Infrastructure": [
        "consul", "etcd", "grafana", "keycloak", "kubernetes", "ldap", "minio", "prometheus", "vault", "zookeeper",
    ],
    "KrakenD": ["krakend"],
    "Portus and Clair": ["clair", "portus", "portus-ping"],
    "Smallest.ai Waves": ["smallest-waves", "smallest-waves-detailed"],
    "WSO2": [
        "wso2-apim-gateway",
        "wso2-apim-key-manager",
        "wso2-apim-traffic-manager",
        "wso2-apim-version",
        "wso2-apim-websocket",
        "wso2-mi",
        "wso2-mi-liveness",
    ],
];

/// Every preset, group by group, by name in each.
pub fn all() -> impl Iterator<Item = Preset> {
    Preset::WORDS.iter().map(|(_, preset)| *preset)
}

/// What a preset's first check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstCheck {
    /// Its `type`.
    pub kind: &'static str,
    /// Whether its `scheme` is "https".
    pub https: bool,
}

impl Preset {
    /// The preset of this name.
    pub fn named(name: &str) -> Option<Preset> {
        all().find(|preset| preset.name == name)
    }

    /// The check that keys written beside the preset belong to.
    pub fn first_check(&self) -> FirstCheck {
        let table = self.table();
        let first = table.checks.value().and_then(|checks| checks.iter().next());
        let probe = first.map_or(&table.probe, |at| &at.value.probe);
        let https = probe.scheme.value().is_some_and(|scheme| scheme.0 == Scheme::Https);
        FirstCheck { kind: probe.kind.value().map_or(Kind::Tcp, |kind| kind.0).as_str(), https }
    }

    /// What it is for, in one line: system and version, and what its check means.
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().map_or("", |line| line.trim_start_matches(['#', ' ']))
    }

    /// The rest of its comment: what it catches, what it cannot catch, what to write beside it.
    #[cfg(test)]
    fn notes(&self) -> impl Iterator<Item = &'static str> {
        let comment = self.text.lines().skip(1).take_while(|line| line.starts_with('#'));
        comment
            .map(|line| line.trim_start_matches('#').strip_prefix(' ').unwrap_or(""))
            .skip_while(|line| line.is_empty())
    }

    /// Its keys, read once per process.
    pub(super) fn table(&self) -> &'static Health {
        static TABLES: LazyLock<Vec<(&'static str, Health)>> = LazyLock::new(|| {
            all().map(|preset| (preset.name, read(&preset).expect("every preset is tested"))).collect()
        });
        let found = TABLES.iter().find(|(name, _)| *name == self.name);
        found.map(|(_, table)| table).expect("there are no presets but these")
    }
}

fn read(preset: &Preset) -> Option<Health> {
    let mut report = Report::new(preset.name);
    let table = DeTable::parse(preset.text).ok()?;
    let health = Health::read_table(table.get_ref(), &mut Reader::new(preset.text, &EmptyEnv, &mut report));
    (!report.has_errors()).then_some(health)
}

/// An environment without variables and files: a preset refers to neither.
pub(in crate::config) struct EmptyEnv;

impl Env for EmptyEnv {
    fn var(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn read_file(&self, _: &Path) -> Result<String, String> {
        Err("cannot be read from a preset".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_presets_are_the_files_of_their_directory() {
        let files =
            std::fs::read_dir("conf/presets").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<_> = files.collect();
        let known: BTreeSet<_> = all().map(|preset| format!("{}.toml", preset.name)).collect();
        assert_eq!(known, files);
        for group in Preset::WORDS.chunk_by(|(_, a), (_, b)| a.group == b.group) {
            assert!(group.is_sorted_by_key(|(name, _)| *name));
        }
    }

    #[test]
    fn every_preset_is_read_without_a_mistake_and_says_what_it_is_for() {
        for preset in all() {
            assert!(read(&preset).is_some(), "{}", preset.name);
            assert!(preset.summary().len() > 20 && preset.text.starts_with("# "), "{}", preset.name);
            let notes = preset.notes().collect::<Vec<_>>().join(" ");
            assert!(notes.contains("Catches: ") && notes.contains("Cannot: "), "{}: {notes}", preset.name);
            let tried = ["Tested with ", "From the documentation "].iter().any(|words| notes.contains(words));
            assert!(tried, "{}: whether it was tried: {notes}", preset.name);
            let log = notes.to_lowercase().contains("in the server's log");
            assert!(log, "{}: what it leaves in the server's log: {notes}", preset.name);
        }
    }
}
