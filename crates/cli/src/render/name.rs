//! Nodes and streams as people call them.

/// `sync/stream`; a model, whose one stream has its name, by that name alone.
pub fn node(sync: &str, stream: &str) -> String {
    if stream.is_empty() || sync == stream { sync.to_owned() } else { format!("{sync}/{stream}") }
}
