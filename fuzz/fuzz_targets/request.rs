//! Feeds `brevet_fuzz::request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::request(bytes));
