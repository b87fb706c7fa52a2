//! Feeds `brevet_fuzz::claims`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::claims(bytes));
