//! What stands behind an error.

use std::error::Error;
use std::io;

/// The first error of a kind among an error and its causes.
pub fn find<'a, E: Error + 'static>(e: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(e), |&e| behind(e)).find_map(|e| e.downcast_ref())
}

/// An I/O error that was made of another gives that one's cause for its own, and would hide the other.
fn behind<'a>(e: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => e.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_itself_and_its_causes_are_looked_at() {
        let text = String::from_utf8(vec![0xff]).err().map(io::Error::other);
        let e = io::Error::new(io::ErrorKind::InvalidData, text.unwrap_or_else(|| io::Error::other("none")));
        assert_eq!(find::<io::Error>(&e).map(io::Error::kind), Some(io::ErrorKind::InvalidData));
        assert!(find::<std::fmt::Error>(&e).is_none());
        let wrapped = io::Error::other(io::Error::other(std::fmt::Error));
        assert!(find::<std::fmt::Error>(&wrapped).is_some());
    }
}
