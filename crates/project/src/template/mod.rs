//! What `trib init` and `trib discover --write` write.

mod discovered;
mod rows;

pub use discovered::sync;

/// Files to write and databases to make, as paths relative to the project.
#[derive(Clone, Debug, Default)]
pub struct Template {
    pub files: Vec<File>,
    pub databases: Vec<Database>,
}

#[derive(Clone, Debug)]
pub struct File {
    pub path: &'static str,
    pub contents: String,
}

/// A SQLite database, and the statements that make or change it.
#[derive(Clone, Debug)]
pub struct Database {
    pub path: &'static str,
    pub sql: String,
}

macro_rules! file {
    ($path:literal, $source:literal) => {
        File { path: $path, contents: include_str!($source).to_owned() }
    };
}

const SHOP: &str = "data/shop.db";

/// An empty project of this name.
pub fn minimal(name: &str) -> Template {
    let mut files = vec![
        file!("tributary.yaml", "minimal/tributary.yaml"),
        file!("connections.yaml", "minimal/connections.yaml"),
        file!("README.md", "minimal/README.md"),
        file!(".gitignore", "gitignore"),
    ];
    for file in &mut files {
        file.contents = file.contents.replace("NAME", name);
    }
    Template { files, databases: Vec::new() }
}

/// A small shop that runs as it is. The same bytes each time.
pub fn example() -> Template {
    let mut files = vec![
        file!("tributary.yaml", "example/tributary.yaml"),
        file!("connections.yaml", "example/connections.yaml"),
        file!("syncs/shop.yaml", "example/syncs/shop.yaml"),
        file!("syncs/events.yaml", "example/syncs/events.yaml"),
        file!("syncs/census.yaml", "example/syncs/census.yaml"),
        file!("syncs/marketing.yaml", "example/syncs/marketing.yaml"),
        file!("syncs/crm.yaml", "example/syncs/crm.yaml"),
        file!("connectors/crm.yaml", "example/connectors/crm.yaml"),
        file!("crm.py", "example/crm.py"),
        file!("models/best_customers.sql", "example/models/best_customers.sql"),
        file!("models/return_by_campaign.sql", "example/models/return_by_campaign.sql"),
        file!("models/sign_ups_by_day.sql", "example/models/sign_ups_by_day.sql"),
        file!("models/sign_up_forecast.py", "example/models/sign_up_forecast.py"),
        file!("models/revenue_by_country.sql", "example/models/revenue_by_country.sql"),
        file!("models/orders_by_day.sql", "example/models/orders_by_day.sql"),
        file!("tests/revenue.yaml", "example/tests/revenue.yaml"),
        file!("data/countries.csv", "example/data/countries.csv"),
        file!("README.md", "example/README.md"),
        file!(".gitignore", "gitignore"),
    ];
    files.push(File { path: "data/marketing/spending.csv", contents: rows::spending() });
    files.push(File { path: "data/marketing/sign_ups.csv", contents: rows::sign_ups() });
    let days = ["data/events/2024-03-01.jsonl", "data/events/2024-03-02.jsonl", "data/events/2024-03-03.jsonl"];
    files.extend((1..).zip(days).map(|(day, path)| File { path, contents: rows::events(day) }));
    Template { files, databases: vec![Database { path: SHOP, sql: rows::shop() }] }
}

/// What happens in the shop after the first run, so that a second one has something to move: some rows change, some are new, and
/// one more file arrives.
pub fn example_changes() -> Template {
    Template {
        files: vec![File { path: "data/events/2024-03-04.jsonl", contents: rows::events(4) }],
        databases: vec![Database { path: SHOP, sql: rows::shop_changes() }],
    }
}
