//! Which environment a command runs in.

use trib_core::error::closest;
use trib_core::{Code, Error, Result, TableName};

use crate::yaml::Node;

/// The environment of a project that declares none.
pub const DEFAULT: &str = "default";

/// Used when none is named, where it is declared.
const USUAL: &str = "dev";

/// What one environment changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub name: String,
    pub schema_prefix: String,
    /// Resets and full refreshes ask first.
    pub protected: bool,
    /// Whether API destinations are written to, or only planned.
    pub deliver: bool,
}

impl Environment {
    /// The table that a logical name means here. A table without a schema takes the prefix itself, so that two environments
    /// never write one table.
    pub fn physical(&self, logical: &TableName) -> TableName {
        match &logical.schema {
            Some(schema) => TableName::new(Some(&format!("{}{schema}", self.schema_prefix)), &logical.name),
            None => TableName::new(None, &format!("{}{}", self.schema_prefix, logical.name)),
        }
    }
}

/// The environment's name: what was asked for, which must be declared; otherwise `dev`, if that is; otherwise `default`.
pub fn choose(asked: Option<&str>, project: &Node) -> Result<String> {
    let declared: Vec<&str> = project.get("environments").map(|e| e.entries().iter().map(|e| e.key.as_str()).collect()).unwrap_or_default();
    match asked {
        Some(name) if declared.contains(&name) || name == DEFAULT => Ok(name.to_owned()),
        Some(name) => {
            let error = Error::new(Code::NotFound, "the project has no such environment").detail(format!("`{name}`"));
            Err(match (closest(name, declared.iter().copied()), declared.is_empty()) {
                (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
                (None, true) => error.hint("declare it under `environments:` in tributary.yaml"),
                (None, false) => error.hint(format!("declared are: {}", declared.join(", "))),
            })
        }
        None if declared.contains(&USUAL) => Ok(USUAL.to_owned()),
        None => Ok(DEFAULT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn choosing() {
        let project = parse("tributary.yaml", "environments: {dev: {}, prod: {}}", 1).unwrap();
        let bare = parse("tributary.yaml", "name: x", 1).unwrap();
        assert_eq!(choose(None, &project).unwrap(), "dev");
        assert_eq!(choose(Some("prod"), &project).unwrap(), "prod");
        assert_eq!(choose(None, &bare).unwrap(), "default");
        assert_eq!(choose(Some("prd"), &project).unwrap_err().hint_text(), Some("did you mean `prod`?"));
        assert!(choose(Some("prod"), &bare).is_err());
    }

    #[test]
    fn prefixes() {
        let environment = Environment { name: "dev".into(), schema_prefix: "dev_".into(), protected: false, deliver: true };
        let cases = [("raw.orders", "dev_raw.orders"), ("orders", "dev_orders")];
        for (logical, physical) in cases {
            assert_eq!(environment.physical(&TableName::parse(logical)).to_string(), physical);
        }
    }
}
