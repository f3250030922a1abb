#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerage_fuzz_targets::dht_mail::run(data));
