//! CBOR bodies: what we can read, `ciborium` can, and it finds the same in it.
#![no_main]

use ciborium::Value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let host = "monitoring.eu-west-1.amazonaws.com";
    let target = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
    let fields = [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")];
    let Ok(call) = chaperone_fuzz::decode(&chaperone_fuzz::head("POST", host, target, &fields), data) else { return };
    assert_eq!(call.operation, "PutMetricData");
    if data.is_empty() {
        return;
    }
    let mut read = ciborium::from_reader::<Value, _>(data);
    while let Ok(Value::Tag(_, inner)) = read {
        read = Ok(*inner);
    }
    let Ok(Value::Map(members)) = read else {
        panic!("ours alone could read it: {}", call.parameters);
    };
    let namespaces: Vec<_> = members.iter().filter(|(key, _)| key.as_text() == Some("Namespace")).collect();
    assert!(namespaces.len() < 2, "a member came twice: {}", call.parameters);
    if let [(_, Value::Text(namespace))] = namespaces[..]
        && namespace.len() <= 4096
    {
        assert_eq!(call.parameters["Namespace"], **namespace);
    }
});
