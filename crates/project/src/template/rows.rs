//! The example's rows: made up, the same each time, and awkward where real ones are.

use std::fmt::Write;

use serde_json::json;

const CUSTOMERS: u64 = 200;
const ORDERS: u64 = 1_000;
const EVENTS_A_DAY: u64 = 80;

const FIRST: [&str; 20] = [
    "Søren",
    "Zoë",
    "李",
    "Ana",
    "Null",
    "عمر",
    "Łukasz",
    "Noor",
    "Ólafur",
    "Siân",
    "Nguyễn",
    "Björk",
    "Renée",
    "Ιωάννα",
    "Chloé",
    "Jean-Luc",
    "D’Arcy",
    "Müşerref",
    "Ye",
    "김",
];
const LAST: [&str; 20] = [
    "Ångström",
    "O'Brien",
    "小龙",
    "de la Cruz",
    "Null",
    "حسن",
    "Żółć",
    "van 't Hoff",
    "Þórsson",
    "\"Bobby\" Tables",
    "Thị Ánh",
    "Señor",
    "Straße",
    "Παπά",
    "N/A",
    "True",
    "Smith, Jr.",
    "Çelik",
    "🦊",
    "민수",
];
const COUNTRIES: [&str; 12] = ["US", "DE", "FR", "NO", "NA", "BR", "JP", "IN", "GB", "KE", "CI", "NZ"];
/// Campaigns, what a day of each costs in euros, and how many of a hundred sign-ups it brings.
const CAMPAIGNS: [(&str, u64, u64); 4] = [("newsletter", 12, 35), ("search", 60, 40), ("radio", 140, 15), ("billboard", 220, 10)];
/// Days of the campaigns, from the first of January 2024.
const CAMPAIGN_DAYS: u64 = 60;
const NOTES: [&str; 6] = ["", "leave at the door", "it's a gift; wrap it", "línea 1\nlínea 2", "100% cotton \\ 40°", "🎁 for Zoë"];

/// SplitMix64: a small generator whose numbers depend on nothing but the seed.
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len() as u64) as usize]
    }
}

/// Statements that make the shop's database, in one transaction.
pub fn shop() -> String {
    let mut numbers = Numbers(1);
    let customers: Vec<String> = (1..=CUSTOMERS).map(|id| customer(id, 1, &mut numbers)).collect();
    let orders: Vec<String> = (1..=ORDERS).map(|id| order(id, CUSTOMERS, 2, &mut numbers)).collect();
    format!(
        "begin;
create table customers (
  id integer primary key,
  name text not null,
  email text,
  country text not null,
  newsletter boolean not null,
  created_at timestamp not null,
  updated_at timestamp not null
);
create table orders (
  id integer primary key,
  customer_id integer not null references customers (id),
  status text not null,
  amount decimal(12, 2) not null,
  note text,
  created_at timestamp not null,
  updated_at timestamp not null
);
create index orders_updated_at on orders (updated_at);
insert into customers values\n{};
insert into orders values\n{};
commit;
",
        customers.join(",\n"),
        orders.join(",\n"),
    )
}

/// Statements for the day after: 12 orders are shipped, 25 are new; two customers move, three are new.
pub fn shop_changes() -> String {
    let mut numbers = Numbers(2);
    let mut sql = "begin;\n".to_owned();
    for i in 0..12 {
        let id = 1 + i * 83;
        // Writing into a String cannot fail.
        let _ = writeln!(sql, "update orders set status = 'shipped', updated_at = '2024-03-04 09:{i:02}:00' where id = {id};");
    }
    let _ = writeln!(sql, "update customers set country = 'NO', updated_at = '2024-03-04 08:00:00' where id in (7, 77);");
    let customers: Vec<String> = (1..=3).map(|i| customer(CUSTOMERS + i, 4, &mut numbers)).collect();
    let orders: Vec<String> = (1..=25).map(|i| order(ORDERS + i, CUSTOMERS + 3, 4, &mut numbers)).collect();
    let _ = write!(
        sql,
        "insert into customers values\n{};\ninsert into orders values\n{};\ncommit;\n",
        customers.join(",\n"),
        orders.join(",\n")
    );
    sql
}

/// Events of one day of March 2024 as JSON Lines.
pub fn events(day: u64) -> String {
    let mut numbers = Numbers(1_000 + day);
    let mut lines = String::new();
    for i in 0..EVENTS_A_DAY {
        let kind = ["page_view", "page_view", "search", "add_to_cart", "purchase"][numbers.below(5) as usize];
        let minute = i * 24 * 60 / EVENTS_A_DAY;
        let items: Vec<_> = (0..if matches!(kind, "add_to_cart" | "purchase") { 1 + numbers.below(3) } else { 0 })
            .map(|_| {
                json!({
                    "sku": format!("SKU-{:04}", numbers.below(500)),
                    "quantity": 1 + numbers.below(4),
                    "price_cents": 199 + numbers.below(20_000),
                })
            })
            .collect();
        let event = json!({
            "id": format!("{:016x}", numbers.next()),
            "at": format!("2024-03-{day:02}T{:02}:{:02}:{:02}Z", minute / 60, minute % 60, numbers.below(60)),
            "type": kind,
            "user": {
                // Visitors without an account have no id.
                "id": (numbers.below(4) > 0).then(|| 1 + numbers.below(CUSTOMERS)),
                "agent": numbers.one_of(&["Mozilla/5.0", "curl/8.5", "Safari/605"]),
                "locale": {"country": numbers.one_of(&COUNTRIES), "language": numbers.one_of(&["en", "de", "no", "日本語"])},
            },
            "items": items,
        });
        lines.push_str(&event.to_string());
        lines.push('\n');
    }
    lines
}

/// What each campaign has cost on each of its days, as CSV.
pub fn spending() -> String {
    let mut numbers = Numbers(3);
    let mut lines = "campaign,day,spent\n".to_owned();
    for day in 0..CAMPAIGN_DAYS {
        for (campaign, usual, _) in CAMPAIGNS {
            let cents = usual * 80 + numbers.below(usual * 40);
            let _ = writeln!(lines, "{campaign},{},{}.{:02}", campaign_day(day), cents / 100, cents % 100);
        }
    }
    lines
}

/// Which customer has come by which campaign, and when, as CSV. Some have come by themselves.
pub fn sign_ups() -> String {
    let mut numbers = Numbers(4);
    let mut lines = "customer_id,campaign,day\n".to_owned();
    for id in 1..=CUSTOMERS {
        let mut chance = numbers.below(120);
        let of = |(_, _, share): &&(&str, u64, u64)| match chance.checked_sub(*share) {
            Some(left) => {
                chance = left;
                false
            }
            None => true,
        };
        let campaign = CAMPAIGNS.iter().find(of).map_or("", |(campaign, _, _)| campaign);
        // More of them as time goes on.
        let day = numbers.below(CAMPAIGN_DAYS).max(numbers.below(CAMPAIGN_DAYS));
        let _ = writeln!(lines, "{id},{campaign},{}", campaign_day(day));
    }
    lines
}

fn campaign_day(day: u64) -> String {
    if day < 31 { format!("2024-01-{:02}", day + 1) } else { format!("2024-02-{:02}", day - 30) }
}

/// One row; `day` is the day of March 2024 before whose end it was last changed.
fn customer(id: u64, day: u64, numbers: &mut Numbers) -> String {
    let name = format!("{} {}", numbers.one_of(&FIRST), numbers.one_of(&LAST));
    let email = if numbers.below(20) == 0 { "null".to_owned() } else { format!("'customer{id}@example.com'") };
    let (country, newsletter) = (numbers.one_of(&COUNTRIES), numbers.below(2));
    let at = time(day, numbers);
    format!("({id}, {}, {email}, '{country}', {newsletter}, '{at}', '{at}')", quoted(&name))
}

fn order(id: u64, customers: u64, day: u64, numbers: &mut Numbers) -> String {
    let status = numbers.one_of(&["open", "open", "paid", "shipped", "returned"]);
    let (euros, cents) = (numbers.below(2_000), numbers.below(100));
    let note = match numbers.one_of(&NOTES) {
        "" if numbers.below(2) == 0 => "null".to_owned(),
        note => quoted(note),
    };
    let at = time(day, numbers);
    format!("({id}, {}, '{status}', {euros}.{cents:02}, {note}, '{at}', '{at}')", 1 + numbers.below(customers))
}

fn time(day: u64, numbers: &mut Numbers) -> String {
    format!("2024-03-{day:02} {:02}:{:02}:{:02}", 10 + numbers.below(14), numbers.below(60), numbers.below(60))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
