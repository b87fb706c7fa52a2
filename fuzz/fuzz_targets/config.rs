//! Feeds `brevet_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::config(bytes));
