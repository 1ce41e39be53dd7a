//! What the server's and the driver's errors mean.

use std::error::Error as StdError;
use std::io;

use tokio_postgres::error::DbError;
use trib_core::{Code, Error};
use trib_kit::cause;

/// Translates an error of the driver.
pub fn driver(e: tokio_postgres::Error) -> Error {
    if let Some(db) = e.as_db_error() {
        return server(db);
    }
    if let Some(io) = cause::find::<io::Error>(&e) {
        return connection(io);
    }
    if e.is_closed() {
        return Error::new(Code::ConnectionLost, "the connection to the server broke").hint("the step is tried again");
    }
    let text = chain(&e);
    if text.contains("TLS") {
        return tls("the server does not offer TLS, or its certificate is not trusted").source(e);
    }
    if text.contains("password missing") {
        return Error::new(Code::AuthFailed, "the server asks for a password and there is none").hint("give the connection a `password`");
    }
    if text.contains("authentication") {
        return Error::new(Code::AuthFailed, "the server asks for a way to log in that is not supported").source(e);
    }
    Error::new(Code::SystemError, "the server's answer was not understood").source(e)
}

/// Translates what happens to a socket.
pub fn connection(e: &io::Error) -> Error {
    use io::ErrorKind as K;
    if let Some(tls_error) = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls("TLS could not be agreed on with the server").source(tls_error.clone());
    }
    match e.kind() {
        K::ConnectionRefused => Error::new(Code::ConnectionRefused, "nothing listens at the server's address")
            .hint("is the server running, and are `host` and `port` right?"),
        K::NotFound => Error::new(Code::ConnectionRefused, "the server's socket is not there"),
        K::TimedOut => Error::new(Code::Timeout, "the server did not answer in time"),
        K::PermissionDenied => Error::new(Code::PermissionDenied, "the server's socket may not be opened"),
        K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable => {
            Error::new(Code::ConnectionRefused, "the server's address cannot be reached")
        }
        _ => Error::new(Code::ConnectionLost, "the connection to the server broke").hint("the step is tried again"),
    }
    .detail(e.to_string())
}

pub fn tls(message: &'static str) -> Error {
    Error::new(Code::TlsFailed, message).hint(
        "`sslmode: require` encrypts without checking the certificate; `sslrootcert` names the authority to trust; `disable` does without",
    )
}

/// Translates an error that the server itself reports, by its SQLSTATE.
fn server(db: &DbError) -> Error {
    let state = db.code().code();
    let (code, message) = meaning(state);
    let about_values = state.starts_with("22");
    let mut detail = if about_values { without_values(db.message()) } else { db.message().to_owned() };
    let told = match db.detail() {
        Some(_) if about_values => None,
        Some(told) if state.starts_with("23") => key_columns(told).map(str::to_owned),
        told => told.and_then(|told| told.lines().next()).map(str::to_owned),
    };
    let place = db.where_().filter(|_| about_values).and_then(|place| place.lines().next()).map(without_values);
    for more in [told, place].into_iter().flatten() {
        detail.push_str("; ");
        detail.push_str(&more);
    }
    let error = Error::new(code, message).detail(format!("{detail} (SQLSTATE {state})"));
    match hint(state).or(db.hint()) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The server quotes the value that does not fit, in its message and in the place: `COPY t, line 3, column n: "x"`.
fn without_values(text: &str) -> String {
    match (text.find('"'), text.rfind('"')) {
        // Whatever stands between the quotes may hold some itself.
        (Some(from), Some(to)) if from < to => format!("{}\"…\"{}", &text[..from], &text[to + 1..]),
        _ => text.to_owned(),
    }
}

/// About a broken constraint the server tells the row that breaks it: what remains is which columns it is about.
fn key_columns(told: &str) -> Option<&str> {
    // `Key (a, b)=(1, x) already exists.`
    told.starts_with("Key (").then(|| told.split_once("=(").map(|(columns, _)| columns))?
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn meaning(state: &str) -> (Code, &'static str) {
    match state {
        "28P01" | "28000" => (Code::AuthFailed, "the server does not accept user and password"),
        "3D000" => (Code::NotFound, "the server has no such database"),
        "42501" => (Code::PermissionDenied, "the database user may not do this"),
        "42P01" => (Code::NotFound, "there is no such table"),
        "42703" => (Code::NotFound, "there is no such column"),
        "3F000" => (Code::NotFound, "there is no such schema"),
        "53100" => (Code::ResourceExhausted, "the server's disk is full"),
        "53300" => (Code::ResourceExhausted, "the server takes no more connections"),
        "57P01" | "57P02" | "57P05" => (Code::ConnectionLost, "the server ended the connection"),
        "57P03" => (Code::ConnectionRefused, "the server is starting up or shutting down"),
        "57014" => (Code::TransactionAborted, "the server cancelled the statement"),
        "55P03" => (Code::Timeout, "a lock was not to be had in time"),
        "40001" | "40P01" => (Code::TransactionAborted, "the server gave up the transaction in favour of another"),
        "25006" => (Code::Unsupported, "the server is read-only"),
        "23502" => (Code::DataInvalid, "a column that must have a value has none"),
        "23505" => (Code::DataInvalid, "rows share a key that must be unique"),
        "54011" => (Code::Unsupported, "the table has more columns than the server takes"),
        _ => match state.get(..2).unwrap_or_default() {
            "08" => (Code::ConnectionLost, "the connection to the server broke"),
            "22" => (Code::DataInvalid, "a value does not fit its column's type"),
            "23" => (Code::DataInvalid, "a row breaks a constraint of the table"),
            "53" => (Code::ResourceExhausted, "the server is out of a resource"),
            "0A" => (Code::Unsupported, "the server cannot do this"),
            "40" => (Code::TransactionAborted, "the server gave up the transaction"),
            _ => (Code::SystemError, "the server answered with an error"),
        },
    }
}

fn hint(state: &str) -> Option<&'static str> {
    Some(match state {
        "28P01" | "28000" => "check `user` and `password`, and the server's pg_hba.conf",
        "3D000" => "check `database`; `psql -l` lists them",
        "42501" => "the owner can allow it with GRANT; `trib check` names the statements",
        "53100" => "free some space on the server; the load starts over by itself",
        "53300" => "lower `threads`, or raise max_connections",
        "25006" => "load into the primary server, not into a standby",
        "57P01" | "57P02" | "57P05" => "the step is tried again",
        _ => return None,
    })
}

/// Whether the server says this, by SQLSTATE.
pub fn is_state(e: &tokio_postgres::Error, states: &[&str]) -> bool {
    e.code().is_some_and(|code| states.contains(&code.code()))
}

/// The texts of an error and its causes: the driver's own kinds of error are private.
fn chain(e: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(e);
    while let Some(cause) = next {
        text.push_str(&cause.to_string());
        text.push_str("; ");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_constraint_shows_no_values() {
        let cases = [
            ("Key (id, \"a b\")=(1, hunter2) already exists.", Some("Key (id, \"a b\")")),
            ("Failing row contains (1, Key (x)=(hunter2)).", None),
            ("Schlüssel »(id)=(1)« existiert bereits.", None),
        ];
        for (told, shown) in cases {
            assert_eq!(key_columns(told), shown);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_not_shown() {
        let cases = [
            ("invalid input syntax for type integer: \"hun\"ter2\"", "invalid input syntax for type integer: \"…\""),
            ("value \"99999999999\" is out of range for type integer", "value \"…\" is out of range for type integer"),
            ("COPY t, line 3, column n: \"hunter2\"", "COPY t, line 3, column n: \"…\""),
            ("value too long for type character varying(3)", "value too long for type character varying(3)"),
        ];
        for (said, shown) in cases {
            assert_eq!(without_values(said), shown);
        }
    }

    #[test]
    fn states_have_a_meaning() {
        let cases = [
            ("28P01", Code::AuthFailed),
            ("3D000", Code::NotFound),
            ("53100", Code::ResourceExhausted),
            ("57P01", Code::ConnectionLost),
            ("22003", Code::DataInvalid),
            ("40P01", Code::TransactionAborted),
            ("XX000", Code::SystemError),
            ("", Code::SystemError),
        ];
        for (state, code) in cases {
            assert_eq!(meaning(state).0, code, "{state}");
        }
    }
}
