//! trib-runtime
