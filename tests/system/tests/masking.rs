//! Secrets in AWS's answers don't reach agents, and clients notice nothing else.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use chaperone_system_tests::{Lab, PERMIT_ALL};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";
const SECRET: &str = "battery-staple-4711";

#[test]
fn agents_get_placeholders_and_the_record_says_for_what() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok(&format!(
        "{REGION} aws secretsmanager create-secret --name s --secret-string {SECRET}; \
         aws ssm put-parameter --name p --type SecureString --value {SECRET}; \
         aws ssm put-parameter --name open --type String --value open-sesame; \
         aws dynamodb create-table --table-name t --attribute-definitions AttributeName=k,AttributeType=S \
           --key-schema AttributeName=k,KeyType=HASH --billing-mode PAY_PER_REQUEST; \
         aws dynamodb put-item --table-name t --item '{{\"k\":{{\"S\":\"{SECRET}\"}}}}'"
    ));
    let secret = lab.agent_ok(&format!("{REGION} aws secretsmanager get-secret-value --secret-id s"));
    assert!(secret.contains("chaperone-masked-") && !secret.contains(SECRET), "{secret}");
    let parameter = lab.agent_ok(&format!("{REGION} aws ssm get-parameter --name p --with-decryption"));
    assert!(parameter.contains("chaperone-masked-") && !parameter.contains(SECRET), "{parameter}");
    let open = lab.agent_ok(&format!("{REGION} aws ssm get-parameter --name open"));
    assert!(open.contains("open-sesame"), "{open}");
    let key =
        lab.agent_ok(&format!("{REGION} aws iam create-user --user-name u; aws iam create-access-key --user-name u"));
    assert!(key.contains("\"SecretAccessKey\": \"chaperone-masked-"), "{key}");
    // Items are data: as they are stored, with a checksum that boto3 holds them against.
    let item = lab.agent_ok(&format!("{REGION} aws dynamodb scan --table-name t"));
    assert!(item.contains(SECRET), "{item}");
}
