//! Feeds `brevet_fuzz::spiffe_id`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::spiffe_id(bytes));
