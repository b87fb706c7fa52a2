//! Feeds `brevet_fuzz::policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::policy(bytes));
