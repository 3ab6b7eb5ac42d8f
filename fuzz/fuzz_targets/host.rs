//! Hosts: only names that the CA's certificate may vouch for are AWS's.
#![no_main]

use chaperone_aws::Catalog;
use chaperone_proxy::connection::hello::host_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(name) = host_name(data) else { return };
    let Some(host) = Catalog::global().host(&name) else { return };
    let vouched =
        ["amazonaws", "aws", "amazon", "amazonwebservices", "amazoncognito", "c2s", "sc2s", "hci", "adc-e", "cloud"];
    assert!(name.split('.').any(|label| vouched.iter().any(|word| label.contains(word))), "{name}: {host:?}");
    let upper = name.to_ascii_uppercase();
    assert_eq!(
        format!("{host:?}"),
        format!("{:?}", Catalog::global().host(&host_name(upper.as_bytes()).unwrap()).unwrap())
    );
});
