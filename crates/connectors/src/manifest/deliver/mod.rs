//! A manifest as a destination: objects of an API, what can be done with their records, and how the fate of each is told.
//!
//! What is staged waits in files. A commit sends it call by call, and writes down each call before it is made and what came of it
//! afterwards, so that a killed delivery goes on where it was.

mod answers;
mod call;
mod delivery;
mod describe;
mod destination;
mod exchanges;
mod feed;
mod job;
mod log;
mod look_up;
mod object;
mod record;
mod resolve;
mod settled;

pub(super) use self::destination::ApiDestination;
#[cfg(test)]
pub(super) use self::feed::WAITING;
