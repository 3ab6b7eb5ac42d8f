//! Forms of the query and ec2 protocols: the operation is the one that WHATWG's parser finds, and the only one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let fields = [("content-type", "application/x-www-form-urlencoded")];
    for host in ["ec2.eu-west-1.amazonaws.com", "iam.amazonaws.com", "rds.eu-west-1.amazonaws.com"] {
        let Ok(call) = chaperone_fuzz::decode(&chaperone_fuzz::head("POST", host, "/", &fields), data) else {
            continue;
        };
        let actions: Vec<_> = form_urlencoded::parse(data).filter(|(name, _)| name == "Action").collect();
        assert_eq!(actions.len(), 1, "{actions:?}");
        assert_eq!(actions[0].1, call.operation);
    }
});
