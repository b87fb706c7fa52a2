//! The Brevet daemon and its command line.
