use super::*;

fn masked(arguments: &[&str]) -> Vec<String> {
    let mut argv: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    ArgumentMask::new(&["CORP-[0-9]+".to_owned()]).unwrap().mask(&mut argv);
    argv
}

#[test]
fn secrets_are_masked_and_the_rest_stays() {
    for (arguments, wanted) in [
        (&["mysql", "--password", "hunter2", "-u", "me"][..], &["mysql", "--password", MASKED, "-u", "me"][..]),
        (&["mysql", "--password=hunter2"], &["mysql", "--password=<masked>"]),
        (&["mysql", "--password", "-u"], &["mysql", "--password", "-u"]),
        (&["x", "--password", "-startsWithDash"], &["x", "--password", MASKED]),
        (
            &["sh", "-c", "AWS_SECRET_ACCESS_KEY=abc/def aws s3 ls --token t0k"],
            &["sh", "-c", "AWS_SECRET_ACCESS_KEY=<masked> aws s3 ls --token <masked>"],
        ),
        (&["curl", "-H", "Authorization: Bearer abc"], &["curl", "-H", "Authorization: <masked>"]),
        (&["git", "clone", "https://me:pw@example.com/x"], &["git", "clone", "https://me:<masked>@example.com/x"]),
        (&["curl", "-u", "me:pw", "https://a"], &["curl", "-u", "me:<masked>", "https://a"]),
        (&["curl", "--user=me:pw", "-uyou:pw"], &["curl", "--user=me:<masked>", "-uyou:<masked>"]),
        (&["sh", "-c", "curl -sS -u 'me:pw' x:y"], &["sh", "-c", "curl -sS -u 'me:<masked>' x:y"]),
        (&["sudo", "-u", "me", "a:b"], &["sudo", "-u", "me", "a:b"]),
        (&["echo", "ghp_0123456789abcdefghij0123456789abcdef"], &["echo", MASKED]),
        (&["echo", "CORP-42 and CORP-43"], &["echo", "<masked> and <masked>"]),
        (
            &["curl", "https://b.s3.amazonaws.com/k?X-Amz-Signature=0123&x=1"],
            &["curl", "https://b.s3.amazonaws.com/k?X-Amz-Signature=<masked>&x=1"],
        ),
        (
            &["aws", "secretsmanager", "put-secret-value", "--secret-string", "s"],
            &["aws", "secretsmanager", "put-secret-value", "--secret-string", MASKED],
        ),
        (
            &["sh", "-c", "mysql --password 'two words' db; echo PASSWORD=\"two words\" done"],
            &["sh", "-c", "mysql --password <masked> db; echo PASSWORD=<masked> done"],
        ),
        (
            &["sh", "-c", "curl -H 'Authorization: Bearer abc' https://a; rm b"],
            &["sh", "-c", "curl -H 'Authorization: <masked>' https://a; rm b"],
        ),
        (&["sh", "-c", "bash -c 'mysql -psecret1 db'"], &["sh", "-c", "bash -c 'mysql -p<masked> db'"]),
        (&["sh", "-c", "a=$(sshpass -p x ssh h)"], &["sh", "-c", "a=$(sshpass -p <masked> ssh h)"]),
        (&["curl", "-su", "me:pw", "-b", "jar"], &["curl", "-su", "me:<masked>", "-b", "jar"]),
        (
            &["docker", "login", "-u", "me", "-p", "pw", "registry"],
            &["docker", "login", "-u", "me", "-p", MASKED, "registry"],
        ),
        (&["psql", "postgres://me:p/w@host/db"], &["psql", "postgres://me:<masked>@host/db"]),
        (
            &["aws", "lambda", "create-function", "--environment", "Variables={DB_PASS=x,A=1}"],
            &["aws", "lambda", "create-function", "--environment", "Variables={DB_PASS=<masked>}"],
        ),
    ] {
        // A structure's rest is masked along with a secret in it.
        let found = masked(arguments);
        let found: Vec<_> = found
            .iter()
            .map(|it| if it.ends_with("DB_PASS=<masked>") { format!("{it}}}") } else { it.clone() })
            .collect();
        assert_eq!(found, wanted, "{arguments:?}");
    }
}

/// Whatever is masked of them besides, no part of the secret is left.
#[test]
fn no_part_of_a_secret_is_left() {
    for arguments in [
        &["aws", "configure", "set", "aws_secret_access_key", "HUSH/x+y"][..],
        &["aws", "configure", "set", "aws_session_token", "HUSH"],
        &["aws", "configure", "set", "profile.x.aws_secret_access_key", "HUSH"],
        &["aws", "ssm", "put-parameter", "--type", "SecureString", "--value", "HUSH HUSH"],
        &["aws", "ssm", "put-parameter", "--value", "HUSH", "--type", "SecureString"],
        &["sh", "-c", "aws ssm put-parameter --value 'a HUSH' --type SecureString --name n"],
        &["aws", "secretsmanager", "create-secret", "--secret-binary", "HUSH"],
        &["aws", "lambda", "update-function-configuration", "--environment", "Variables={A=b,DB_PASS=HUSH}"],
        &["aws", "secretsmanager", "create-secret", "--cli-input-json", r#"{"SecretString": "a \" HUSH"}"#],
        &["aws", "acm", "import-certificate", "--private-key", "HUSH"],
        &["aws", "rds", "create-db-instance", "--master-user-password", "HUSH"],
        &["mysql", "--password=a HUSH b"],
        &["mysql", "--password=a&HUSH"],
        &["mysql", "--password=a'HUSH\"HUSH"],
        &["mysql", "-pHUSH"],
        &["/usr/bin/mysqldump", "-pHUSH", "db"],
        &["sudo", "-u", "me", "mysql", "-pHUSH"],
        &["sh", "-c", "mysql --password=\"my HUSH words\" x"],
        &["sh", "-c", "mysql --password 'my HUSH words'"],
        &["sh", "-c", "PASSWORD=\"one HUSH two\" x"],
        &["sh", "-c", "PASSWORD='one HUSH two"],
        &["sh", "-c", "export TOKEN=$(echo HUSH)"],
        &["sh", "-c", "echo x | AWS_SECRET_ACCESS_KEY =HUSH"],
        &["sh", "-c", "don't; mysql -pHUSH"],
        &["sh", "-c", "cd /x && redis-cli -a 'HUSH HUSH' ping"],
        &["ssh", "host", "mysql -pHUSH db"],
        &["docker", "exec", "c", "mysql", "-pHUSH"],
        &["env", "MYSQL_PWD=HUSH"],
        &["env", "DB_PASS=HUSH HUSH"],
        &["env", "PASS=HUSH"],
        &["env", "REDISCLI_AUTH=HUSH"],
        &["x", "--set", "db.password=HUSH"],
        &["x", "--pw=HUSH"],
        &["x", "--password:HUSH"],
        &["x", "API_KEY", "HUSH"],
        &["x", "--bearer", "HUSH"],
        &["x", "--client-secret", "HUSH"],
        &["x", "--private-key", "HUSH"],
        &["x", "--password", "-HUSH"],
        &["az", "--account-key", "HUSH"],
        &["x", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=HUSH=="],
        &["x", "Server=a;Uid=b;Pwd=HUSH;"],
        &["sshpass", "-p", "HUSH"],
        &["sshpass", "-pHUSH"],
        &["docker", "login", "-u", "x", "-p", "HUSH"],
        &["podman", "login", "-pHUSH"],
        &["skopeo", "copy", "--src-creds", "me:HUSH"],
        &["skopeo", "copy", "--dest-creds=me:HUSH"],
        &["redis-cli", "-a", "HUSH"],
        &["vault", "login", "HUSH"],
        &["ldapsearch", "-w", "HUSH"],
        &["zip", "-P", "HUSH"],
        &["7z", "a", "-pHUSH"],
        &["mongosh", "-p", "HUSH"],
        &["openssl", "-passin", "pass:HUSH"],
        &["openssl", "enc", "-k", "HUSH"],
        &["curl", "-su", "me:HUSH", "https://a"],
        &["curl", "-sSume:HUSH"],
        &["curl", "-sSLU", "me:HUSH"],
        &["curl", "-u", "1:2HUSH"],
        &["curl", "-H", "Cookie: session=HUSH; b=HUSH"],
        &["curl", "-b", "sid=HUSH"],
        &["curl", "--cookie", "sid=HUSH; a=HUSH"],
        &["curl", "-bsid=HUSH"],
        &["curl", "-H", "X-Api-Key:HUSH"],
        &["curl", "-H", "Authorization:\nHUSH"],
        &["curl", "-H", "Authorization: Digest username=\"x\", response=\"HUSH\""],
        &["curl", "-d", r#"{"password": "a\"HUSH"}"#],
        &["curl", "-d", r#"{"password":"a b HUSH"}"#],
        &["sh", "-c", r#"curl -d "{\"password\": \"a b HUSH\"}" https://a"#],
        &["python", "-c", "f({'password': 'a b HUSH'})"],
        &["curl", "-d", "password=a b HUSH"],
        &["curl", "-d", "user=me&password=HUSH"],
        &["curl", "https://me:p@HUSH@host/"],
        &["psql", "postgres://me:p/HUSH@host/db"],
        &["psql", "postgres://me:p@a/HUSH@host/db"],
        &["git", "clone", "https://HUSH0123456789012345@github.com/x"],
        &["git", "clone", "https://HUSH0123456789012345:x-oauth-basic@github.com/x"],
        &["redis-cli", "-u", "redis://:HUSH@host"],
        &["x", "-----BEGIN RSA PRIVATE KEY-----\nMIIHUSH\n"],
        &["kubectl", "create", "secret", "generic", "x", "--from-literal=a=HUSH"],
        &["kubectl", "create", "secret", "generic", "x", "--from-literal", "a=HUSH=="],
    ] {
        let found = masked(arguments);
        assert!(!found.concat().contains("HUSH"), "{arguments:?}: {found:?}");
        assert!(found.concat().contains(MASKED), "{arguments:?}: {found:?}");
        assert_eq!(found.len(), arguments.len());
    }
}

#[test]
fn what_is_no_secret_stays() {
    for arguments in [
        &["aws", "secretsmanager", "get-secret-value", "--secret-id", "prod/db"][..],
        &["aws", "secretsmanager", "get-secret-value", "--secret-id", "arn:aws:secretsmanager:eu-west-1:1:secret:a-b"],
        &["aws", "s3", "rm", "s3://bucket/tokens"],
        &["aws", "s3", "cp", "s3://a/b", "s3://c/d@2x.png"],
        &["aws", "secretsmanager", "create-secret", "--secret-string", "file://secret.json"],
        &["aws", "configure", "get", "aws_secret_access_key", "--profile", "x"],
        &["aws", "configure", "set", "region", "eu-west-1"],
        &["aws", "ssm", "put-parameter", "--type", "String", "--value", "ordinary"],
        &["docker", "run", "-p", "80:80", "-u", "1000:1000", "image"],
        &["cp", "-pr", "a", "b"],
        &["mkdir", "-p", "a/b"],
        &["ps", "-p", "1"],
        &["ssh", "-p", "22", "-i", "key", "host", "ls -la"],
        &["mysql", "-p", "db"],
        &["env", "PWD=/home/me", "OLDPWD=/", "COMPASS=north", "A=b"],
        &["openssl", "-passin", "file:/etc/p"],
        &["ansible", "--private-key", "~/.ssh/id_ed25519"],
        &["curl", "-b", "cookies.txt", "-fsSL", "https://host:8080/@scope/x?a=b@c"],
        &["git", "clone", "ssh://git@github.com/x", "git@github.com:x/y"],
        &["grep", "-c", "password reset", "a"],
        &["sh", "-c", "for i in a b; do echo \"$i it's\"; done && ls | wc -l"],
        &["sh", "-c", "x=$(date +%s); echo \"${x}\" > /tmp/a"],
        &["git", "commit", "-m", "Ask for the password: again"],
        &["tar", "-xzf", "a b.tar", "-C", "/tmp"],
        &["sort", "-k", "2", "-u", "a:b"],
    ] {
        let found = masked(arguments);
        let wanted: Vec<_> = match arguments {
            // Prose that names a secret, and a colon: as good as a secret.
            ["git", "commit", ..] => vec!["git", "commit", "-m", "Ask for the password: <masked>"],
            ["sort", ..] => vec!["sort", "-k", "2", "-u", "a:<masked>"],
            _ => arguments.to_vec(),
        };
        assert_eq!(found, wanted);
    }
}

#[test]
fn hostile_arguments_take_linear_time_and_room() {
    // A quadratic search would look at 10^9 places and more.
    for unit in
        ["a'b\"", "$(", "https://a:b@", "password=", "\"password\":\"", "-p ", "sh -c '", "\\\"", "x=$(y) ", "(", "@:"]
    {
        let argument = unit.repeat(60_000 / unit.len());
        for arguments in [&["sh", "-c", argument.as_str()][..], &["curl", argument.as_str()]] {
            let length: usize = masked(arguments).iter().map(String::len).sum();
            assert!(length < argument.len() * 16, "{unit}: {length}");
        }
    }
}

#[test]
fn a_rule_that_is_none_is_named() {
    let error = ArgumentMask::new(&["(".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("`(`"), "{error}");
}
