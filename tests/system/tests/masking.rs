//! Secrets that agents use without being shown them.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::io::{BufRead as _, BufReader, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use chaperone_system_tests::{Lab, both, client, installed, python, script, text};
use serde_json::Value;

const PASSWORD: &str = "correct+horse&battery=%staple";
const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("db") @mask("SecretString")
@unmask_into("rds:CreateDBInstance.MasterUserPassword, ssm:PutParameter.Value, sqs:SendMessage.MessageBody")
permit (principal, action == Action::"secretsmanager:GetSecretValue", resource);
"#;

fn sha256(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// What stands for a password arrives at RDS as the password; and neither the agent nor the record ever has that.
#[test]
fn a_password_reaches_the_database_and_not_the_agent() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    lab.operator_ok(&format!(
        "export AWS_SHARED_CREDENTIALS_FILE=$CHAPERONE_LAB/secrets/credentials AWS_CA_BUNDLE=$CHAPERONE_LAB/ca.crt
         aws --region eu-west-1 secretsmanager create-secret --name db --secret-string '{PASSWORD}'"
    ));
    let own = script("unmask.py").display().to_string();
    let mut agent = lab.spawn_agent_with_input(&format!("exec python3 {own} one"));
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut line = || -> Value {
        let line = said.next().unwrap_or_else(|| panic!("the agent ended: {}", lab.log())).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let (seen, later) = (line(), line());
    let secret = text(&seen, "secret");
    assert!(secret.starts_with("chaperone-masked-") && secret.len() == 33, "{secret}");

    // The password's member alone has it, and its neighbour what stands for it.
    assert_eq!(text(&seen, "user"), secret);
    let body = text(&seen, "body");
    let member = format!("MasterUserPassword={secret}");
    assert!(body.contains(&member), "{body}");
    let real = body.replace(&member, "MasterUserPassword=correct%2Bhorse%26battery%3D%25staple");
    let upstream = lab.upstream();
    let arrived = upstream.iter().find(|it| text(it, "host").starts_with("rds.")).unwrap();
    assert_eq!(text(arrived, "body_sha256"), sha256(&real), "{arrived}");
    let calls = lab.calls();
    let of = |action: &str| calls.iter().find(|it| it["actions"][0] == action).unwrap();
    let call = of("rds:CreateDBInstance");
    assert_eq!(text(call, "request_sha256"), sha256(body), "what is recorded is what the agent sent: {call}");

    // It can't be read out either.
    assert_eq!((text(&later, "plain"), text(&later, "message")), (secret, secret), "{later}");
    assert!(text(&later, "safe").starts_with("chaperone-masked-"), "{later}");
    let said = format!("{seen}{later}");
    assert!(!said.contains("horse"), "{said}");
    let memory = format!("{} {} {}", python(), script("find_in_memory.py").display(), later["pid"]);
    let found = |what: &str| lab.operator_ok(&format!("{memory} '{what}'")).trim().to_owned();
    assert!(!found(secret).ends_with(" 0"), "what stands for it is in its memory");
    assert!(found(PASSWORD).ends_with(" 0") && found("correct%2Bhorse").ends_with(" 0"));
    agent.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(agent.wait().unwrap().success());
    for what in [PASSWORD, "correct%2Bhorse%26battery"] {
        let grep = lab.operator(&format!(
            "grep -a -r -l '{what}' $CHAPERONE_LAB/journal $CHAPERONE_LAB/daemon.log $CHAPERONE_LAB/state"
        ));
        assert!(!grep.status.success(), "it is in no record: {}", both(&grep));
    }

    // What stands for it means nothing to another session.
    lab.agent_ok(&format!(
        "export AWS_DEFAULT_REGION=eu-west-1
         aws rds create-db-instance --db-instance-identifier two --db-instance-class db.t3.micro --engine mysql \
           --allocated-storage 5 --master-username u --master-user-password {secret}"
    ));
    let second = lab.calls().into_iter().rfind(|it| it["actions"][0] == "rds:CreateDBInstance").unwrap();
    let upstream = lab.upstream();
    let arrived = upstream.iter().rfind(|it| text(it, "host").starts_with("rds.")).unwrap();
    assert_eq!(text(arrived, "body_sha256"), text(&second, "request_sha256"));
}

const MASKED: &str = r#"
@id("all") permit (principal, action, resource);
@id("secret") @mask("SecretString") @unmask_into("sqs:SendMessage.MessageBody")
permit (principal, action == Action::"secretsmanager:GetSecretValue", resource);
@id("messages") @mask("Messages[].Body") permit (principal, action == Action::"sqs:ReceiveMessage", resource);
@id("items") @mask("Items[].pin.S") permit (principal, action == Action::"dynamodb:Scan", resource);
@id("objects") @mask("credentials") permit (principal, action == Action::"s3:GetObject", resource);
"#;

/// SDKs read masked answers, whose checksums fit what they got; and no digest tells what was masked.
#[test]
fn clients_read_masked_answers_without_a_wrong_checksum() {
    const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let lab = Lab::start_with(&["--aws", "moto"], MASKED);
    lab.operator_ok(&format!(
        r#"export AWS_SHARED_CREDENTIALS_FILE=$CHAPERONE_LAB/secrets/credentials AWS_CA_BUNDLE=$CHAPERONE_LAB/ca.crt
        export AWS_DEFAULT_REGION=eu-west-1
        mkdir $CHAPERONE_LAB/made && cd $CHAPERONE_LAB/made
        aws secretsmanager create-secret --name masked --secret-string '{PASSWORD}'
        aws ssm put-parameter --name /masked --type SecureString --value '{PASSWORD}'
        aws dynamodb create-table --table-name masked --billing-mode PAY_PER_REQUEST \
          --key-schema AttributeName=id,KeyType=HASH --attribute-definitions AttributeName=id,AttributeType=S
        aws dynamodb put-item --table-name masked --item '{{"id":{{"S":"1"}},"pin":{{"S":"{PASSWORD}"}}}}'
        queue=$(aws sqs create-queue --queue-name masked --query QueueUrl --output text)
        aws sqs send-message --queue-url $queue --message-body '{PASSWORD}' \
          --message-attributes '{{"a":{{"DataType":"String","StringValue":"b"}}}}'
        aws s3 mb s3://masked
        echo 'token = {TOKEN};' > object
        aws s3api put-object --bucket masked --key k --body object --metadata 'note={TOKEN}'
        aws ec2 create-launch-template --launch-template-name masked \
          --launch-template-data '{{"ImageId":"ami-12345678","UserData":"{data}"}}'
        role=$(aws iam create-role --role-name masked --assume-role-policy-document '{{}}' --query Role.Arn --output text)
        python3 -c 'import zipfile; zipfile.ZipFile("f.zip", "w").writestr("f.py", "")'
        aws lambda create-function --function-name masked --runtime python3.12 --handler f.f --role $role \
          --zip-file fileb://f.zip --environment 'Variables={{PIN={PASSWORD}}}'"#,
        data = base64_of(PASSWORD),
    ));
    let read: Value =
        serde_json::from_str(&lab.agent_ok(&format!("python3 {}", script("masked.py").display()))).unwrap();
    let masked = |value: &Value| value.as_str().unwrap().starts_with("chaperone-masked-");
    for name in ["secret", "parameter", "body", "note"] {
        assert!(masked(&read[name]), "{name}: {read}");
    }
    assert!(masked(&read["item"]["pin"]["S"]) && read["item"]["id"]["S"] == "1", "{read}");
    assert!(masked(&read["environment"]["PIN"]) && text(&read, "account").len() == 12, "{read}");
    let object = text(&read, "object");
    assert!(object.starts_with("token = chaperone-masked-") && object.ends_with(";\n"), "{read}");
    assert!(!read.to_string().contains(&base64_of(PASSWORD)), "{read}");
    for name in ["told", "sent"] {
        assert_eq!(read[name], serde_json::json!([true, false]), "{name}: {read}");
    }

    let program = installed("js").join("masked.mjs").display().to_string();
    let heavy = if cfg!(feature = "all-clients") {
        let (go, java, rust) = (installed("go").join("client"), installed("java"), installed("rust").join("client"));
        format!(
            "export AWS_REGION=eu-west-1; {} masked $own; {} masked $own; cd $(mktemp -d); sh {} {} masked $own",
            go.display(),
            rust.display(),
            client("java.sh").display(),
            java.display()
        )
    } else {
        String::new()
    };
    // Its session has its own placeholder, which it reads by the CLI first.
    let said = lab.agent_ok(&format!(
        "export AWS_DEFAULT_REGION=eu-west-1
         own=$(aws secretsmanager get-secret-value --secret-id masked --query SecretString --output text)
         aws sqs receive-message --queue-url $(aws sqs get-queue-url --queue-name masked --output text) \
           --visibility-timeout 0 --query 'Messages[0].Body' --output text
         aws dynamodb scan --table-name masked --query 'Items[0].pin.S' --output text
         aws s3 cp s3://masked/k -
         /usr/bin/aws dynamodb scan --table-name masked --query 'Items[0].pin.S' --output text
         /usr/bin/aws s3 cp s3://masked/k -
         node {program} $own
         {heavy}"
    ));
    let others = said.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>();
    assert_eq!(others.len(), if cfg!(feature = "all-clients") { 4 } else { 1 }, "{said}");
    assert_eq!(said.matches("token = chaperone-masked-").count(), 2 + others.len(), "both versions of the CLI: {said}");
    let read: Value = serde_json::from_str(others[0]).unwrap();
    for other in &others[1..] {
        // One session: what stands for a value is the same.
        assert_eq!(serde_json::from_str::<Value>(other).unwrap(), read, "{said}");
    }
    assert!(masked(&read["pin"]) && masked(&read["body"]) && read["id"] == "1" && read["sent"] == 2, "{said}");
    assert!(text(&read, "object").starts_with("token = chaperone-masked-"), "{said}");
    assert!(!said.contains("horse") && !said.contains(TOKEN), "{said}");
    let grep = lab.operator(&format!("grep -a -r -l -e '{PASSWORD}' -e {TOKEN} $CHAPERONE_LAB/journal"));
    assert!(!grep.status.success(), "it is in no record: {}", both(&grep));
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
