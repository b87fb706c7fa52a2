//! The Brevet daemon and its command line.
//!
//! [`app`] builds every part once; [`broker`] tells each use case as a story over the [`table`] of task trees, the
//! policies and the mint; [`grpc`] and [`http`] are the surfaces, [`net`] the edge in front of them. [`clock`] is
//! the only file that reads the time.

pub mod app;
pub mod bookmarks;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod configuration;
pub mod deadlines;
pub mod demo;
pub mod dev;
pub mod discovery;
pub mod grpc;
pub mod hardening;
pub mod http;
pub mod known_tokens;
pub mod metrics;
pub mod net;
pub mod notices;
pub mod openers;
pub mod reaper;
pub mod reload;
pub mod remembered;
pub mod shares;
pub mod table;
pub mod telemetry;
pub mod threads;
pub mod token_bindings;
pub mod trust;
pub mod turns;
