//! Feeds `brevet_fuzz::jwk_set`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::jwk_set(bytes));
