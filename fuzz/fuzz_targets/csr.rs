//! Feeds `brevet_fuzz::csr`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::csr(bytes));
