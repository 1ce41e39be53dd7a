//! trib-store
