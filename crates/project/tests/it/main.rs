//! Whole project folders: what is read from them, and what is said about mistakes in them.

mod connectors;
mod errors;
mod example;
mod folder;
mod streams;
