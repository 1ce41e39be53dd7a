//! `jobs/*.yaml`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::amount::Time;
use super::connection::yes;
use super::one_or_many::OneOrMany;

/// What runs when.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `false`: the job is never started by its schedule.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What is run, as in `trib run SELECT`.
    pub select: OneOrMany,
    /// What is left out of that.
    #[serde(default)]
    pub exclude: OneOrMany,
    /// Left out: the job runs only when somebody starts it.
    pub schedule: Option<Schedule>,
    /// What happens when the job is due and still running.
    #[serde(default)]
    pub overlap: Overlap,
    /// The run is stopped after this long.
    pub timeout: Option<Time>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// An IANA name such as `Europe/Berlin`. Left out: UTC.
    pub timezone: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The run that is due is left out.
    #[default]
    Skip,
    /// It begins when the other has ended.
    Queue,
    /// The other is stopped.
    Cancel,
}
