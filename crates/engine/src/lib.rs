//! trib-engine
