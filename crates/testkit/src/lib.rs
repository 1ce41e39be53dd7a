//! trib-testkit
