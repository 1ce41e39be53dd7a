//! What stands behind an error.

use std::error::Error;

/// The first error of a kind among an error and its causes.
pub fn find<'a, E: Error + 'static>(e: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(e), |&e| e.source()).find_map(|e| e.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_error_itself_and_its_causes_are_looked_at() {
        let text = String::from_utf8(vec![0xff]).err().map(io::Error::other);
        let e = io::Error::new(io::ErrorKind::InvalidData, text.map_or_else(|| io::Error::other("none"), |e| e));
        assert_eq!(find::<io::Error>(&e).map(io::Error::kind), Some(io::ErrorKind::InvalidData));
        assert!(find::<std::fmt::Error>(&e).is_none());
    }
}
