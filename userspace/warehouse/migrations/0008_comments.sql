-- What every table and column is, for DESCRIBE and data catalogues.

ALTER TABLE body_chunks
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN sha256 'SHA-256 of the bytes',
  COMMENT COLUMN at 'when',
  COMMENT COLUMN data 'the bytes';

ALTER TABLE body_chunks MODIFY COMMENT 'Bodies'' bytes, each chunk once a month.';

ALTER TABLE body_parts
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN call 'the call: calls.id',
  COMMENT COLUMN direction 'request or response',
  COMMENT COLUMN offset 'where the part begins in the body',
  COMMENT COLUMN length 'its bytes',
  COMMENT COLUMN sha256 'SHA-256 of the bytes',
  COMMENT COLUMN at 'when';

ALTER TABLE body_parts MODIFY COMMENT 'Which chunks make up a call''s bodies.';

ALTER TABLE calls
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN session 'the session that it belongs to: sessions.id',
  COMMENT COLUMN connection 'the connection that it came by: connections.id',
  COMMENT COLUMN agent 'the agent''s name',
  COMMENT COLUMN operation 'the operation, by botocore''s name',
  COMMENT COLUMN protocol 'the wire protocol',
  COMMENT COLUMN actions 'the IAM actions that it needs',
  COMMENT COLUMN resources 'ARNs of what it is about',
  COMMENT COLUMN partition 'the AWS partition, such as aws',
  COMMENT COLUMN region 'the AWS region',
  COMMENT COLUMN account 'the AWS account',
  COMMENT COLUMN decision 'allow or deny',
  COMMENT COLUMN reason 'why, by a fixed name',
  COMMENT COLUMN policies 'the policies that decided, by their ids',
  COMMENT COLUMN policy_version 'the policy set''s SHA-256, in hexadecimal',
  COMMENT COLUMN message 'the decision in one sentence',
  COMMENT COLUMN method 'the HTTP method',
  COMMENT COLUMN target 'path and query, with presigned credentials taken out',
  COMMENT COLUMN outcome 'completed, denied, aborted, failed or interrupted',
  COMMENT COLUMN status 'the HTTP status that the agent got',
  COMMENT COLUMN aws_request_id 'AWS''s request id',
  COMMENT COLUMN error_code 'AWS''s error code, such as NoSuchKey',
  COMMENT COLUMN error 'what went wrong, for people',
  COMMENT COLUMN response_bytes 'bytes of the answer''s body',
  COMMENT COLUMN request_sha256 'SHA-256 of the request''s payload, in hexadecimal',
  COMMENT COLUMN response_sha256 'SHA-256 of the answer''s body, in hexadecimal',
  COMMENT COLUMN recorded_request_bytes 'bytes of the request''s body as it is recorded',
  COMMENT COLUMN recorded_request_sha256 'SHA-256 of them, in hexadecimal',
  COMMENT COLUMN pid 'the process''s id, in the daemon''s pid namespace',
  COMMENT COLUMN uid 'its user id',
  COMMENT COLUMN exe 'path of the executed file',
  COMMENT COLUMN argv 'its arguments, secrets masked',
  COMMENT COLUMN started 'when it began',
  COMMENT COLUMN duration_us 'from the head read to the end, in microseconds',
  COMMENT COLUMN ttfb_us 'from the head read to the answer''s head, in microseconds';

ALTER TABLE calls MODIFY COMMENT 'Calls to AWS that are over: who asked, what for, what was decided, how it ended.';

ALTER TABLE checkpoints
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN hash 'SHA-256 of the record''s head',
  COMMENT COLUMN at 'when',
  COMMENT COLUMN key 'the key''s id',
  COMMENT COLUMN signature 'the signature of the checkpoint';

ALTER TABLE checkpoints MODIFY COMMENT 'Signatures over the chain.';

ALTER TABLE command_ends
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN ended 'when it was over';

ALTER TABLE command_ends MODIFY COMMENT 'Commands'' ends.';

ALTER TABLE command_starts
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN session 'the session that it belongs to: sessions.id',
  COMMENT COLUMN started 'when it began',
  COMMENT COLUMN pid 'the process''s id, in the daemon''s pid namespace',
  COMMENT COLUMN parent_pid 'the parent process''s id',
  COMMENT COLUMN uid 'its user id',
  COMMENT COLUMN exe 'path of the executed file',
  COMMENT COLUMN exe_sha256 'SHA-256 of the executed file, in hexadecimal',
  COMMENT COLUMN argv 'its arguments, secrets masked',
  COMMENT COLUMN argv_cut 'whether there were more arguments',
  COMMENT COLUMN directory 'the working directory';

ALTER TABLE command_starts MODIFY COMMENT 'What agents executed; with its end: commands.';

ALTER TABLE commands_lost
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN at 'when';

ALTER TABLE commands_lost MODIFY COMMENT 'Commands that came too fast to be recorded.';

ALTER TABLE connection_closes
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN session 'the session that it belongs to: sessions.id',
  COMMENT COLUMN closed 'when it was over',
  COMMENT COLUMN sent_bytes 'bytes from the agent, of connections passed on',
  COMMENT COLUMN received_bytes 'bytes to the agent, of connections passed on',
  COMMENT COLUMN error 'what went wrong, for people';

ALTER TABLE connection_closes MODIFY COMMENT 'Connections'' ends.';

ALTER TABLE connection_opens
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN session 'the session that it belongs to: sessions.id',
  COMMENT COLUMN opened 'when it was accepted',
  COMMENT COLUMN kind 'inspected, metadata, passed or refused',
  COMMENT COLUMN name 'the name in the handshake or the Host field',
  COMMENT COLUMN destination 'where the process wanted to go',
  COMMENT COLUMN upstream 'where it was taken',
  COMMENT COLUMN error 'what went wrong, for people',
  COMMENT COLUMN pid 'the process''s id, in the daemon''s pid namespace',
  COMMENT COLUMN uid 'its user id',
  COMMENT COLUMN exe 'path of the executed file',
  COMMENT COLUMN argv 'its arguments, secrets masked';

ALTER TABLE connection_opens MODIFY COMMENT 'Connections'' beginnings; with their ends: connections.';

ALTER TABLE decisions
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN call 'the call: calls.id',
  COMMENT COLUMN session 'the session that it belongs to: sessions.id',
  COMMENT COLUMN agent 'the agent''s name',
  COMMENT COLUMN at 'when',
  COMMENT COLUMN service 'the AWS service, by botocore''s name',
  COMMENT COLUMN operation 'the operation, by botocore''s name',
  COMMENT COLUMN actions 'the IAM actions that it needs',
  COMMENT COLUMN resources 'ARNs of what it is about',
  COMMENT COLUMN decision 'allow or deny',
  COMMENT COLUMN reason 'why, by a fixed name',
  COMMENT COLUMN policies 'the policies that decided, by their ids',
  COMMENT COLUMN policy_version 'the policy set''s SHA-256, in hexadecimal',
  COMMENT COLUMN message 'the decision in one sentence';

ALTER TABLE decisions MODIFY COMMENT 'What was decided for each call, when it was decided: also of calls that are not over.';

ALTER TABLE ledger
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN at 'when',
  COMMENT COLUMN kind 'the record''s kind',
  COMMENT COLUMN code 'its kind, by number',
  COMMENT COLUMN flags 'the record''s flags',
  COMMENT COLUMN body_offset 'of a body''s frame: where it begins in the body',
  COMMENT COLUMN payload_len 'bytes of the payload',
  COMMENT COLUMN digest 'SHA-256 of the payload; of a body''s frame: of the body up to its end',
  COMMENT COLUMN previous 'the hash of the record before',
  COMMENT COLUMN hash 'SHA-256 of the record''s head',
  COMMENT COLUMN payload 'the event as JSON; empty for bodies'' frames';

ALTER TABLE ledger MODIFY COMMENT 'Every record''s head, and the payload of those that are not bodies'' bytes: what the chain is made of.';

ALTER TABLE schema_migrations
  COMMENT COLUMN version 'the version',
  COMMENT COLUMN name 'its name',
  COMMENT COLUMN at 'when it was applied';

ALTER TABLE schema_migrations MODIFY COMMENT 'The schema''s versions that were applied.';

ALTER TABLE session_ends
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN ended 'when it was over',
  COMMENT COLUMN why 'why, for people';

ALTER TABLE session_ends MODIFY COMMENT 'Sessions'' ends.';

ALTER TABLE session_starts
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'its id',
  COMMENT COLUMN agent 'the agent''s name',
  COMMENT COLUMN groups 'the agent''s groups',
  COMMENT COLUMN cgroup 'the cgroup''s path',
  COMMENT COLUMN started 'when it began',
  COMMENT COLUMN container_name 'the container''s name',
  COMMENT COLUMN container_image 'its image''s name',
  COMMENT COLUMN container_image_id 'its image''s id',
  COMMENT COLUMN container_labels 'its labels';

ALTER TABLE session_identities
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the record''s number in the journal',
  COMMENT COLUMN id 'the session',
  COMMENT COLUMN at 'when the token was believed',
  COMMENT COLUMN by 'how the token came',
  COMMENT COLUMN provider 'the issuer''s name in the configuration',
  COMMENT COLUMN issuer 'the token''s issuer',
  COMMENT COLUMN subject 'whom the issuer says it is',
  COMMENT COLUMN groups 'the token''s groups',
  COMMENT COLUMN sponsor 'the person that the agent works for',
  COMMENT COLUMN display_name 'its name for people',
  COMMENT COLUMN token_id 'the token''s id (jti)',
  COMMENT COLUMN claims 'what else the configuration keeps of the token',
  COMMENT COLUMN expires 'when the token ends';

ALTER TABLE session_identities MODIFY COMMENT 'Who sessions'' agents are, by their tokens: a row for each token that was believed.';

ALTER TABLE session_starts MODIFY COMMENT 'Sessions'' beginnings; with their ends: sessions.';

ALTER TABLE shipped
  COMMENT COLUMN tenant 'whose it is, where several share a database',
  COMMENT COLUMN node 'the machine that recorded it',
  COMMENT COLUMN journal 'the journal''s id: one for each host''s record',
  COMMENT COLUMN seq 'the last record that is here',
  COMMENT COLUMN at 'when';

ALTER TABLE shipped MODIFY COMMENT 'How far each journal is here.';

ALTER TABLE chain_breaks MODIFY COMMENT 'Where the record in the warehouse is not whole: empty if it is.';

ALTER TABLE commands MODIFY COMMENT 'What agents executed, each with its end.';

ALTER TABLE connections MODIFY COMMENT 'Connections of agents, each with its end.';

ALTER TABLE denials MODIFY COMMENT 'Calls that were denied.';

ALTER TABLE first_uses_of_calls MODIFY COMMENT 'Keeps first_uses while calls arrive.';

ALTER TABLE sessions MODIFY COMMENT 'Sessions, each with its end and what it did.';
