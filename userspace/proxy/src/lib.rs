//! The data path.
#![forbid(unsafe_code)]
pub mod hello;
pub mod strict;
