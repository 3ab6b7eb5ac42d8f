// Clients of the AWS SDK for JavaScript that speak HTTP/2, event streams, or both: what each answered.
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand, InvokeModelWithBidirectionalStreamCommand, InvokeModelWithResponseStreamCommand } from "@aws-sdk/client-bedrock-runtime";
import { KinesisClient, ListShardsCommand, SubscribeToShardCommand } from "@aws-sdk/client-kinesis";
import { LexRuntimeV2Client, RecognizeTextCommand, StartConversationCommand } from "@aws-sdk/client-lex-runtime-v2";
import { PollyClient, SynthesizeSpeechCommand } from "@aws-sdk/client-polly";
import { StartStreamTranscriptionCommand, TranscribeStreamingClient } from "@aws-sdk/client-transcribe-streaming";

const options = { region: "eu-west-1", maxAttempts: 2 };
const bytes = (text) => new TextEncoder().encode(text);
const text = (bytes) => new TextDecoder().decode(bytes);
const messages = [{ role: "user", content: [{ text: "hello" }] }];
const modelId = "eu.anthropic.claude-sonnet-4-20250514-v1:0";

async function said(what, answer) {
  try {
    console.log(what, JSON.stringify(await answer()));
  } catch (error) {
    console.log(what, "failed:", error.name, error.message, error.$metadata?.httpStatusCode);
  }
}

async function events(stream) {
  const all = [];
  for await (const event of stream) all.push(event);
  return all;
}

const bedrock = new BedrockRuntimeClient(options);
await said("Converse", async () => (await bedrock.send(new ConverseCommand({ modelId, messages }))).output.message);
// On the same connection, one after another and at once.
const again = [1, 2, 3].map(() => bedrock.send(new ConverseCommand({ modelId, messages })));
await said("at once", async () => (await Promise.all(again)).map((answer) => answer.stopReason));
await said("ConverseStream", async () => {
  const all = await events((await bedrock.send(new ConverseStreamCommand({ modelId, messages }))).stream);
  return all.map((event) => event.contentBlockDelta?.delta.text ?? Object.keys(event)[0]);
});
const body = JSON.stringify({ anthropic_version: "bedrock-2023-05-31", max_tokens: 9, messages });
await said("InvokeModel", async () => JSON.parse(text((await bedrock.send(new InvokeModelCommand({ modelId, body }))).body)));
await said("InvokeModel of 3 MB", async () => {
  const large = new InvokeModelCommand({ modelId, body: JSON.stringify({ x: "y".repeat(3_000_000) }) });
  return (await bedrock.send(large)).$metadata.httpStatusCode;
});
await said("InvokeModelWithResponseStream", async () => {
  const all = await events((await bedrock.send(new InvokeModelWithResponseStreamCommand({ modelId, body }))).body);
  return all.map((event) => text(event.chunk.bytes));
});
async function* spoken() {
  for (const word of ["one", "two"]) yield { chunk: { bytes: bytes(word) } };
}
await said("InvokeModelWithBidirectionalStream", async () => {
  const command = new InvokeModelWithBidirectionalStreamCommand({ modelId: "amazon.nova-sonic-v1:0", body: spoken() });
  return (await events((await bedrock.send(command)).body)).length;
});

const kinesis = new KinesisClient(options);
await said("ListShards", async () => (await kinesis.send(new ListShardsCommand({ StreamName: "s" }))).Shards.length);
await said("SubscribeToShard", async () => {
  const ConsumerARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/s/consumer/c:1700000000";
  const command = new SubscribeToShardCommand({ ConsumerARN, ShardId: "shardId-000000000000", StartingPosition: { Type: "LATEST" } });
  const all = await events((await kinesis.send(command)).EventStream);
  return all.map((event) => event.SubscribeToShardEvent?.ContinuationSequenceNumber);
});

async function* audio() {
  for (const length of [3200, 6400, 1]) yield { AudioEvent: { AudioChunk: new Uint8Array(length) } };
}
await said("StartStreamTranscription", async () => {
  const command = new StartStreamTranscriptionCommand({
    LanguageCode: "en-US", MediaEncoding: "pcm", MediaSampleRateHertz: 16000, AudioStream: audio(),
  });
  return (await events((await new TranscribeStreamingClient(options).send(command)).TranscriptResultStream)).length;
});

const bot = { botId: "ABCDEFGHIJ", botAliasId: "TSTALIASID", localeId: "en_US", sessionId: "s" };
const lex = new LexRuntimeV2Client(options);
async function* talk() {
  yield { TextInputEvent: { text: "hello" } };
  yield { DisconnectionEvent: {} };
}
await said("StartConversation", async () => {
  const command = new StartConversationCommand({ ...bot, conversationMode: "TEXT", requestEventStream: talk() });
  return (await events((await lex.send(command)).responseEventStream)).length;
});
await said("RecognizeText", async () => (await lex.send(new RecognizeTextCommand({ ...bot, text: "hello" }))).sessionId);

await said("SynthesizeSpeech", async () => {
  const command = new SynthesizeSpeechCommand({ OutputFormat: "mp3", Text: "hello", VoiceId: "Joanna" });
  return (await new PollyClient(options).send(command)).AudioStream !== undefined;
});
