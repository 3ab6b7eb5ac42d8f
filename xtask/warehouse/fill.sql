-- A believable past of a fleet, by a seed: {calls} calls of {agents} agents over {days} days. Every row says that it is
-- made up: its tenant is `generated`. Zipf's law in rough: few agents and few operations make most calls.

INSERT INTO session_starts (tenant, node, journal, seq, id, agent, groups, cgroup, started)
SELECT 'generated', concat('runner-', leftPad(toString(number % 20), 2, '0')),
       reinterpretAsUUID(sipHash128('journal', {seed}, number % 20)), number,
       reinterpretAsUUID(sipHash128('session', {seed}, number)),
       concat('agent-', leftPad(toString(number % {agents}), 3, '0')),
       [['coders', 'reviewers', 'operators', 'analysts'][number % {agents} % 4 + 1]],
       concat('/agents/', toString(number)),
       now64(6, 'UTC') - toIntervalSecond(toUInt32({days} * 86400 * (1 - number / {sessions})))
FROM numbers({sessions});

INSERT INTO session_ends (tenant, journal, seq, id, ended, why)
SELECT tenant, journal, seq, id, started + INTERVAL 45 MINUTE, 'the cgroup is empty'
FROM session_starts WHERE tenant = 'generated' AND started < now() - INTERVAL 1 HOUR;

INSERT INTO command_starts (tenant, node, journal, seq, id, session, started, pid, parent_pid, uid, cgroup, exe, argv,
                            argv_cut, directory, found)
SELECT 'generated', concat('runner-', leftPad(toString(s % 20), 2, '0')),
       reinterpretAsUUID(sipHash128('journal', {seed}, s % 20)), number,
       reinterpretAsUUID(sipHash128('command', {seed}, number)),
       if(h % 500 = 0, NULL, reinterpretAsUUID(sipHash128('session', {seed}, s))),
       now64(6, 'UTC') - toIntervalSecond(toUInt32({days} * 86400 * (1 - s / {sessions}))) + toIntervalSecond(h % 2600),
       h % 30000 + 100, h % 20000 + 10, 1000, s,
       ['/usr/bin/aws', '/usr/bin/python3', '/usr/bin/terraform', '/bin/bash'][h % 4 + 1],
       [['aws', 'python3', 'terraform', 'bash'][h % 4 + 1], ['s3', 'deploy.py', 'plan', '-c'][h % 4 + 1]],
       false, '/work', h % 900 = 0
FROM (SELECT number, intDiv(number, 4) AS s, sipHash64('command', {seed}, number) AS h FROM numbers(4 * {sessions}));

INSERT INTO connection_opens (tenant, node, journal, seq, id, session, opened, kind, name, destination, upstream, error,
                              pid, uid, exe, argv, decision, reason, policies, policy_version, message)
SELECT 'generated', concat('runner-', leftPad(toString(s % 20), 2, '0')),
       reinterpretAsUUID(sipHash128('journal', {seed}, s % 20)), number,
       reinterpretAsUUID(sipHash128('connection', {seed}, number)), reinterpretAsUUID(sipHash128('session', {seed}, s)),
       now64(6, 'UTC') - toIntervalSecond(toUInt32({days} * 86400 * (1 - s / {sessions}))) + toIntervalSecond(h % 2600),
       if(h % 44 = 2, 'refused', ['inspected', 'inspected', 'passed', 'metadata'][h % 4 + 1]),
       if(h % 4 = 2, multiIf(h % 5 = 0, 'github.com', h % 5 = 1, 'wiki.example', h % 5 = 2, 'modules.example',
                             h % 97 = 0, concat('host-', toString(h % 1000), '.example.net'), 'api.example.com'),
          'sts.eu-west-1.amazonaws.com'),
       concat('198.51.100.', toString(h % 250), ':443'), '', if(h % 44 = 2, 'no policy permits it', ''),
       h % 30000 + 100, 1000, '/usr/bin/aws', ['aws'],
       multiIf(h % 44 = 2, 'deny', h % 4 = 2, 'allow', ''), multiIf(h % 44 = 2, 'forbidden', h % 4 = 2, 'permitted', ''),
       multiIf(h % 44 = 2, ['only-these'], h % 4 = 2, ['known-hosts'], []), if(h % 4 = 2, repeat('ab', 32), ''),
       if(h % 44 = 2, 'only-these forbids it', '')
FROM (SELECT number, intDiv(number, 8) AS s, sipHash64('connection', {seed}, number) AS h
      FROM numbers(8 * {sessions}));

INSERT INTO connection_closes (tenant, journal, seq, id, session, closed, sent_bytes, received_bytes, error)
SELECT tenant, journal, seq, id, session, opened + INTERVAL 20 SECOND,
       if(kind = 'passed', sipHash64('sent', id) % 100000, 0), if(kind = 'passed', sipHash64('got', id) % 10000000, 0), ''
FROM connection_opens WHERE tenant = 'generated';

INSERT INTO calls (tenant, node, journal, seq, outcome_seq, id, session, connection, agent, service, operation, protocol,
  actions, resources, partition, region, account, decision, reason, policies, policy_version, message, method, host,
  target, outcome, status, aws_request_id, error_code, error, request_bytes, response_bytes, recorded_request_bytes,
  pid, uid, exe, argv, started, duration_us, ttfb_us, masked_rules, masked_paths, masked_counts)
WITH [
  ('s3', 'GetObject', 's3:GetObject', 'GET'), ('s3', 'PutObject', 's3:PutObject', 'PUT'),
  ('s3', 'ListObjectsV2', 's3:ListBucket', 'GET'), ('dynamodb', 'GetItem', 'dynamodb:GetItem', 'POST'),
  ('dynamodb', 'PutItem', 'dynamodb:PutItem', 'POST'), ('sts', 'GetCallerIdentity', 'sts:GetCallerIdentity', 'POST'),
  ('ec2', 'DescribeInstances', 'ec2:DescribeInstances', 'POST'), ('sqs', 'SendMessage', 'sqs:SendMessage', 'POST'),
  ('lambda', 'Invoke', 'lambda:InvokeFunction', 'POST'), ('logs', 'PutLogEvents', 'logs:PutLogEvents', 'POST'),
  ('bedrock', 'InvokeModel', 'bedrock:InvokeModel', 'POST'), ('ssm', 'GetParameter', 'ssm:GetParameter', 'POST'),
  ('secretsmanager', 'GetSecretValue', 'secretsmanager:GetSecretValue', 'POST'), ('kms', 'Decrypt', 'kms:Decrypt', 'POST'),
  ('ec2', 'RunInstances', 'ec2:RunInstances', 'POST'), ('s3', 'PutBucketPolicy', 's3:PutBucketPolicy', 'PUT'),
  ('iam', 'CreateAccessKey', 'iam:CreateAccessKey', 'POST'), ('iam', 'AttachRolePolicy', 'iam:AttachRolePolicy', 'POST'),
  ('cloudtrail', 'StopLogging', 'cloudtrail:StopLogging', 'POST'),
  ('ec2', 'ModifySnapshotAttribute', 'ec2:ModifySnapshotAttribute', 'POST')] AS kinds
SELECT 'generated', concat('runner-', leftPad(toString(s % 20), 2, '0')),
       reinterpretAsUUID(sipHash128('journal', {seed}, s % 20)), 2 * number, 2 * number + 1,
       reinterpretAsUUID(sipHash128('call', {seed}, number)), reinterpretAsUUID(sipHash128('session', {seed}, s)),
       reinterpretAsUUID(sipHash128('connection', {seed}, 8 * s + h % 8)),
       concat('agent-', leftPad(toString(s % {agents}), 3, '0')) AS agent,
       kind.1 AS service, kind.2 AS operation, if(service = 's3', 'rest-xml', 'json') AS protocol, [kind.3],
       [if(service = 's3',
           concat('arn:aws:s3:::bucket-', toString(h % 40), if(h % 3 = 0, '', concat('/object-', toString(h2 % 5000)))),
           concat('arn:aws:', service, ':', region, ':', account, ':thing/', toString(h2 % 300)))],
       'aws', ['eu-west-1', 'eu-west-1', 'us-east-1', 'eu-central-1'][h % 4 + 1] AS region,
       ['111111111111', '222222222222', '333333333333'][s % 3 + 1] AS account,
       if(denied, 'deny', 'allow'),
       if(denied, ['forbidden', 'not-permitted', 'not-permitted', 'foreign-authority'][h2 % 4 + 1], 'permitted') AS why,
       multiIf(NOT denied, [concat('permit-', service)], why = 'forbidden', [concat('no-', service, '-changes')], []),
       'generated', if(denied, 'denied, as an example', 'permitted'), kind.4,
       concat(service, '.', region, '.amazonaws.com'), '/', if(denied, 'denied', 'completed'),
       multiIf(denied, 403, h2 % 50 = 0, 404, h2 % 211 = 0, 503, 200),
       lower(hex(h2)), if(h2 % 50 = 0, 'NoSuchKey', NULL), NULL,
       if(kind.4 = 'PUT', h2 % 200000, 120 + h2 % 900), 300 + h % 40000, 0, h % 30000 + 100, 1000, '/usr/bin/aws', ['aws'],
       now64(6, 'UTC') - toIntervalMicrosecond(toUInt64({days} * 86400e6 * (1 - number / {calls}))) AS started,
       2000 + h % 90000, 1500 + h % 50000,
       if(service = 'secretsmanager' AND NOT denied, ['sensitive'], []), if(service = 'secretsmanager' AND NOT denied, ['SecretString'], []),
       if(service = 'secretsmanager' AND NOT denied, [1], [])
FROM (SELECT number, sipHash64('call', {seed}, number) AS h, sipHash64('more', {seed}, number) AS h2,
             toUInt64(least({sessions} - 1, intDiv(number * {sessions}, {calls}) + h2 % 7)) AS s,
             kinds[toUInt8(multiIf(h % 1000 < 900, h2 % 11, h % 1000 < 990, 11 + h2 % 3, h % 1000 < 998, 14, 15 + h2 % 5)) + 1] AS kind,
             (h2 % 1000) < if(h % 1000 >= 990, 600, 15) AS denied
      FROM numbers({from}, {many}));

INSERT INTO decisions (tenant, node, journal, seq, call, session, agent, at, service, operation, actions, resources,
                       decision, reason, policies, policy_version, message)
SELECT tenant, node, journal, seq, id, session, agent, started, service, operation, actions, resources,
       decision, reason, policies, policy_version, message
FROM calls WHERE tenant = 'generated';

INSERT INTO ledger (tenant, node, journal, seq, at, kind, code, event, payload_len)
SELECT tenant, node, journal, row_number() OVER (PARTITION BY journal ORDER BY started), started, 'event', 2, 'call-intent', 0
FROM calls WHERE tenant = 'generated' AND started > now() - INTERVAL 7 DAY;

INSERT INTO shipped (tenant, node, journal, seq, position, floor, at)
SELECT tenant, any(node), journal, max(seq), '{}', '{}', now64(6, 'UTC') - toIntervalMinute(if(any(node) = 'runner-13', 190, 0))
FROM calls WHERE tenant = 'generated' GROUP BY tenant, journal;
