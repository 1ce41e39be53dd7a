//! trib-lake
