//! Feeds `brevet_fuzz::x509_svid`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| brevet_fuzz::x509_svid(bytes));
