//! What of a call its answer's masking goes by: whether the answer is data that somebody stored, and its format.

use chaperone_aws::{SensitiveMembers, Sensitivity, has_raw_answer};
use chaperone_masking::Format;
use chaperone_model::Protocol;
use http::{HeaderMap, header::CONTENT_TYPE};

/// Services and operations whose answers are data that somebody stored: they are looked through where a policy says so.
const DATA: [(&str, &str); 26] = [
    ("appsync", ""),
    ("athena", "GetQueryResults"),
    ("aoss", ""),
    ("bedrock-agent-runtime", ""),
    ("bedrock-agentcore", ""),
    ("bedrock-runtime", ""),
    ("cloudtrail", "GetQueryResults"),
    ("dax", ""),
    ("dynamodb", ""),
    ("dynamodbstreams", ""),
    ("es", ""),
    ("execute-api", ""),
    ("kinesis", ""),
    ("logs", "FilterLogEvents"),
    ("logs", "GetLogEvents"),
    ("logs", "GetLogRecord"),
    ("logs", "GetQueryResults"),
    ("neptunedata", ""),
    ("qconnect", ""),
    ("rds-data", ""),
    ("redshift-data", "GetStatementResult"),
    ("redshift-data", "GetStatementResultV2"),
    ("sqs", "ReceiveMessage"),
    ("stepfunctions", ""),
    ("timestream-query", ""),
    ("vpc-lattice-svcs", ""),
];

/// Operations that are answered with an event stream, in botocore's models and, for Transcribe's, which botocore leaves out,
/// by its documentation. Another one's answer that says it is one isn't believed: it is read as its protocol has it, and
/// refused if it is something else.
const EVENTS: [(&str, &str); 26] = [
    ("bedrock-agent-runtime", "AgenticRetrieveStream"),
    ("bedrock-agent-runtime", "InvokeAgent"),
    ("bedrock-agent-runtime", "InvokeFlow"),
    ("bedrock-agent-runtime", "InvokeInlineAgent"),
    ("bedrock-agent-runtime", "OptimizePrompt"),
    ("bedrock-agent-runtime", "RetrieveAndGenerateStream"),
    ("bedrock-agentcore", "InvokeAgentRuntimeCommand"),
    ("bedrock-agentcore", "InvokeCodeInterpreter"),
    ("bedrock-agentcore", "InvokeHarness"),
    ("bedrock-runtime", "ConverseStream"),
    ("bedrock-runtime", "InvokeModelWithBidirectionalStream"),
    ("bedrock-runtime", "InvokeModelWithResponseStream"),
    ("connecthealth", "StartMedicalScribeListeningSession"),
    ("devops-agent", "SendMessage"),
    ("healthlake", "UpdateProfileWithAgent"),
    ("iotsitewise", "InvokeAssistant"),
    ("kinesis", "SubscribeToShard"),
    ("lambda", "InvokeWithResponseStream"),
    ("lexv2-runtime", "StartConversation"),
    ("logs", "GetLogObject"),
    ("logs", "StartLiveTail"),
    ("polly", "StartSpeechSynthesisStream"),
    ("qbusiness", "Chat"),
    ("s3", "SelectObjectContent"),
    ("sagemaker-runtime", "InvokeEndpointWithResponseStream"),
    ("transcribe-streaming", ""),
];

/// Whether a list has an operation, or all of its service's.
fn lists(list: &[(&str, &str)], service: &str, operation: &str) -> bool {
    list.iter().any(|(of, name)| *of == service && (name.is_empty() || *name == operation))
}

/// What is needed to know of the call.
pub(super) struct Asked {
    pub(super) service: String,
    pub(super) operation: String,
    pub(super) protocol: Protocol,
}

impl Asked {
    pub(super) fn is_data(&self) -> bool {
        lists(&DATA, &self.service, &self.operation) || self.is_raw()
    }

    /// Whether its answer is whatever somebody has put there.
    pub(super) fn is_raw(&self) -> bool {
        has_raw_answer(&self.service, &self.operation) || self.protocol == Protocol::Http || self.is_kubernetes()
    }

    /// Its API answers with whatever its users keep there, as JSON, text or protobuf.
    fn is_kubernetes(&self) -> bool {
        self.service == "k8s"
    }

    /// Whether nothing is masked in its answer unless a policy says so.
    pub(super) fn has_no_defaults(&self) -> bool {
        let has = |xml| {
            SensitiveMembers::of(&self.service, &self.operation, xml)
                .is_some_and(|it| it.secrets.is_some() || it.body == Some(Sensitivity::Secret))
        };
        self.is_data() && !has(false) && !has(true)
    }

    /// Whether its answer is an event stream. Those of names that are no API of AWS's may be anything.
    fn has_events(&self) -> bool {
        lists(&EVENTS, &self.service, &self.operation) || self.protocol == Protocol::Http
    }

    /// The format by what the head says or, where that says nothing of use, by the protocol.
    pub(super) fn format(&self, headers: &HeaderMap, success: bool) -> Format {
        let told = headers.get(CONTENT_TYPE).and_then(|kind| Format::of(kind.to_str().ok()?));
        let told = told.filter(|format| *format != Format::EventStream || self.has_events());
        // One object after the other, which it calls JSON.
        let follows = self.is_kubernetes() && self.operation == "watch" && success;
        let told = told.map(|format| if follows && format == Format::Json { Format::JsonLines } else { format });
        match told {
            Some(format) if format != Format::Text => format,
            _ if has_raw_answer(&self.service, &self.operation) || self.is_kubernetes() || !success => Format::Text,
            _ => match self.protocol {
                Protocol::Json | Protocol::RestJson => Format::Json,
                Protocol::Ec2 | Protocol::Query | Protocol::RestXml => Format::Xml,
                Protocol::RpcV2Cbor => Format::Cbor,
                Protocol::Http => Format::Text,
            },
        }
    }
}
