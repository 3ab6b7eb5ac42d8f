//! ClientHellos: once the name is known, no byte that comes after changes it.
#![no_main]

use chaperone_proxy::connection::hello::{host_name, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for end in [data.len() / 2, data.len().saturating_sub(1)] {
        if let Some(Ok(part)) = parse(&data[..end]) {
            let Some(Ok(whole)) = &whole else { panic!("more bytes made it unreadable") };
            assert_eq!(format!("{part:?}"), format!("{whole:?}"));
        }
    }
    if let Some(name) = host_name(data) {
        assert_eq!(host_name(name.as_bytes()), Some(name));
    }
});
