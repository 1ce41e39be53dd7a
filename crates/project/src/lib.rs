//! trib-project
