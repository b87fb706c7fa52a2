//! Feeds `brevet_fuzz::jws`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::jws(bytes));
