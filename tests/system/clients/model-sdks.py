"""httpx, and the SDKs of OpenAI and Anthropic, at Amazon Bedrock, by the session's own token: what each answered.

Nothing is configured but that token, which is where Bedrock's API key would be; what is trusted comes from the environment.
"""

import anthropic
import httpx
import openai

ROLE = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
plain = httpx.Client(trust_env=False)
ticket = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
ticket = {"X-aws-ec2-metadata-token": plain.put("http://169.254.169.254/latest/api/token", headers=ticket).text}
key = plain.get(ROLE + plain.get(ROLE, headers=ticket).text.strip(), headers=ticket).json()["Token"]
MANTLE = "https://bedrock-mantle.eu-west-1.api.aws"
RUNTIME = "https://bedrock-runtime.eu-west-1.amazonaws.com"
messages = [{"role": "user", "content": "hello"}]


def said(what, answer):
    try:
        print(what, answer())
    except Exception as error:
        print(what, "failed:", type(error).__name__, error)


said("httpx", lambda: httpx.get("https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15").status_code)
for name, url in [("mantle", MANTLE + "/v1"), ("runtime", RUNTIME + "/openai/v1")]:
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    chat = client.chat.completions
    said(f"openai {name}", lambda: chat.create(model="openai.gpt-oss-20b-1:0", messages=messages).choices[0].message.content)
client = openai.OpenAI(base_url=MANTLE + "/v1", api_key=key, max_retries=0)
said("responses", lambda: client.responses.create(model="openai.gpt-oss-20b", input="hello").output_text)
said("models", lambda: [model.id for model in client.models.list()])
claude = anthropic.Anthropic(base_url=MANTLE + "/anthropic", api_key=key, max_retries=0)
said("anthropic", lambda: claude.messages.create(model="anthropic.claude-haiku", max_tokens=9, messages=messages).content[0].text)
other = openai.OpenAI(base_url=MANTLE + "/v1", api_key="somebody-elses", max_retries=0)
said("another key", lambda: other.chat.completions.create(model="m", messages=messages))
