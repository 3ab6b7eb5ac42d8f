//! The kinds of secrets that are known, and where that is said.
//!
//! The facts (beginnings, lengths, alphabets) are the vendors' own documentation's and those that gitleaks (MIT) and
//! detect-secrets (Apache-2.0) list; no text of theirs is here.

use super::matchers::{Class, Matcher};

/// A detector, as it is named in policies and in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detector {
    /// Its name.
    pub name: &'static str,
    /// What it finds.
    pub finds: &'static str,
    /// Whether it is among the credential detectors, which are on by default.
    pub default: bool,
}

const fn of(name: &'static str, finds: &'static str) -> Detector {
    Detector { name, finds, default: true }
}

/// All detectors that are built in.
pub const DETECTORS: &[Detector] = &[
    of("anthropic", "Anthropic's API keys and OAuth tokens"),
    Detector { name: "aws-access-key-id", finds: "ids of AWS keys: they name a key, and open nothing", default: false },
    of("aws-bedrock-key", "Amazon Bedrock's API keys"),
    of("aws-secret-access-key", "AWS secret access keys behind a name that says so"),
    of("azure-storage-key", "keys of Azure storage accounts"),
    Detector { name: "card-number", finds: "numbers of payment cards (Luhn's checksum)", default: false },
    of("connection-string", "passwords in URLs and connection strings"),
    of("databricks", "Databricks' access tokens"),
    of("digitalocean", "DigitalOcean's tokens"),
    of("docker", "Docker Hub's access tokens"),
    of("doppler", "Doppler's tokens"),
    of("github", "GitHub's tokens"),
    of("gitlab", "GitLab's tokens"),
    of("google", "Google's API keys, OAuth tokens and client secrets"),
    of("grafana", "Grafana's tokens"),
    of("groq", "Groq's API keys"),
    of("hashicorp", "Vault's and Terraform Cloud's tokens"),
    of("huggingface", "Hugging Face's tokens"),
    of("jwt", "JSON web tokens"),
    of("linear", "Linear's API keys"),
    of("mailgun", "Mailgun's API keys"),
    of("newrelic", "New Relic's user keys"),
    of("npm", "npm's tokens"),
    of("openai", "OpenAI's API keys"),
    of("perplexity", "Perplexity's API keys"),
    of("planetscale", "PlanetScale's tokens and passwords"),
    of("postman", "Postman's API keys"),
    of("private-key", "private keys between PEM's lines, and age's"),
    of("pulumi", "Pulumi's tokens"),
    of("pypi", "PyPI's tokens"),
    of("replicate", "Replicate's tokens"),
    of("rubygems", "RubyGems' tokens"),
    of("sendgrid", "SendGrid's API keys"),
    of("sentry", "Sentry's tokens"),
    of("shopify", "Shopify's tokens"),
    of("slack", "Slack's tokens and webhooks"),
    of("square", "Square's tokens"),
    of("stripe", "Stripe's keys and webhook secrets"),
    of("supabase", "Supabase's tokens"),
    of("xai", "xAI's API keys"),
];

/// One beginning by which a detector knows its secrets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) literal: &'static str,
    /// In these letters' case alone.
    pub(super) exact: bool,
    /// No letter, digit or `_` stands before.
    pub(super) at_word: bool,
    pub(super) matcher: Matcher,
}

const fn token(name: &'static str, literal: &'static str, class: Class, min: usize, max: usize, bits: f32) -> Rule {
    let matcher = Matcher::Token { class, min, max, bits, inner: false };
    Rule { name, literal, exact: true, at_word: true, matcher }
}

const fn other(name: &'static str, literal: &'static str, at_word: bool, matcher: Matcher) -> Rule {
    Rule { name, literal, exact: true, at_word, matcher }
}

const fn any_case(name: &'static str, literal: &'static str, matcher: Matcher) -> Rule {
    Rule { name, literal, exact: false, at_word: false, matcher }
}

pub(super) const RULES: &[Rule] = &[
    token("anthropic", "sk-ant-api03-", Class::Url, 60, 140, 3.5),
    token("anthropic", "sk-ant-admin01-", Class::Url, 60, 140, 3.5),
    token("anthropic", "sk-ant-oat01-", Class::Url, 60, 140, 3.5),
    token("anthropic", "sk-ant-ort01-", Class::Url, 60, 140, 3.5),
    token("aws-access-key-id", "AKIA", Class::Base32, 16, 16, 2.5),
    token("aws-access-key-id", "ASIA", Class::Base32, 16, 16, 2.5),
    token("aws-access-key-id", "ABIA", Class::Base32, 16, 16, 2.5),
    token("aws-access-key-id", "ACCA", Class::Base32, 16, 16, 2.5),
    token("aws-bedrock-key", "ABSK", Class::Base64, 80, 300, 3.5),
    token("aws-bedrock-key", "bedrock-api-key-", Class::Base64, 60, 8192, 3.5),
    any_case("aws-secret-access-key", "secret_access", Matcher::AwsSecret),
    any_case("aws-secret-access-key", "secretaccess", Matcher::AwsSecret),
    any_case("aws-secret-access-key", "secret-access", Matcher::AwsSecret),
    any_case("aws-secret-access-key", "secret_key", Matcher::AwsSecret),
    any_case("aws-secret-access-key", "secretkey", Matcher::AwsSecret),
    any_case("aws-secret-access-key", "aws_secret", Matcher::AwsSecret),
    other(
        "azure-storage-key",
        "AccountKey=",
        true,
        Matcher::Token { class: Class::Base64, min: 80, max: 90, bits: 4.0, inner: true },
    ),
    other("card-number", "", true, Matcher::Cards),
    other("connection-string", "://", false, Matcher::Url),
    any_case("connection-string", ";password=", Matcher::Assigned),
    any_case("connection-string", "; password=", Matcher::Assigned),
    any_case("connection-string", ";pwd=", Matcher::Assigned),
    any_case("connection-string", "; pwd=", Matcher::Assigned),
    any_case("connection-string", "sharedaccesskey=", Matcher::Assigned),
    any_case("connection-string", "&password=", Matcher::Assigned),
    any_case("connection-string", "?password=", Matcher::Assigned),
    token("databricks", "dapi", Class::Hex, 32, 32, 3.0),
    token("digitalocean", "dop_v1_", Class::Hex, 64, 64, 3.0),
    token("digitalocean", "doo_v1_", Class::Hex, 64, 64, 3.0),
    token("digitalocean", "dor_v1_", Class::Hex, 64, 64, 3.0),
    token("docker", "dckr_pat_", Class::Url, 20, 60, 3.0),
    token("docker", "dckr_oat_", Class::Url, 20, 60, 3.0),
    token("doppler", "dp.pt.", Class::Alnum, 40, 44, 3.0),
    token("doppler", "dp.st.", Class::Dotted, 40, 100, 3.0),
    token("github", "ghp_", Class::Alnum, 36, 255, 3.0),
    token("github", "gho_", Class::Alnum, 36, 255, 3.0),
    token("github", "ghu_", Class::Alnum, 36, 255, 3.0),
    token("github", "ghs_", Class::Dotted, 36, 2048, 3.0),
    token("github", "ghr_", Class::Alnum, 36, 255, 3.0),
    token("github", "github_pat_", Class::Url, 60, 255, 3.0),
    token("gitlab", "glpat-", Class::Dotted, 20, 300, 3.0),
    token("gitlab", "gldt-", Class::Url, 20, 64, 3.0),
    token("gitlab", "glrt-", Class::Dotted, 20, 300, 3.0),
    token("gitlab", "glrtr-", Class::Dotted, 20, 300, 3.0),
    token("gitlab", "glcbt-", Class::Url, 20, 64, 3.0),
    token("gitlab", "glptt-", Class::Hex, 40, 40, 3.0),
    token("gitlab", "glft-", Class::Url, 20, 64, 3.0),
    token("gitlab", "glsoat-", Class::Url, 20, 64, 3.0),
    token("gitlab", "glimt-", Class::Url, 20, 64, 3.0),
    token("gitlab", "glagent-", Class::Url, 50, 64, 3.0),
    token("gitlab", "gloas-", Class::Url, 60, 70, 3.0),
    token("gitlab", "GR1348941", Class::Url, 20, 20, 3.0),
    token("google", "AIza", Class::Url, 35, 35, 3.0),
    token("google", "ya29.", Class::Url, 30, 2048, 3.0),
    token("google", "GOCSPX-", Class::Url, 28, 28, 3.0),
    token("google", "1//0", Class::Url, 40, 256, 3.5),
    token("grafana", "glsa_", Class::Url, 41, 41, 3.0),
    token("grafana", "glc_", Class::Base64, 32, 400, 3.0),
    token("groq", "gsk_", Class::Alnum, 52, 52, 3.5),
    token("hashicorp", "hvs.", Class::Url, 24, 300, 3.0),
    token("hashicorp", "hvb.", Class::Url, 100, 400, 3.0),
    other(
        "hashicorp",
        ".atlasv1.",
        false,
        Matcher::Token { class: Class::Url, min: 60, max: 80, bits: 3.5, inner: true },
    ),
    token("huggingface", "hf_", Class::Alnum, 34, 40, 3.5),
    token("huggingface", "api_org_", Class::Alnum, 34, 34, 3.5),
    other("jwt", "eyJ", true, Matcher::Jwt),
    token("linear", "lin_api_", Class::Alnum, 40, 40, 3.0),
    token("mailgun", "key-", Class::Hex, 32, 32, 3.0),
    token("newrelic", "NRAK-", Class::Alnum, 27, 27, 3.0),
    token("npm", "npm_", Class::Alnum, 36, 36, 3.0),
    token("openai", "sk-proj-", Class::Url, 40, 250, 3.5),
    token("openai", "sk-svcacct-", Class::Url, 40, 250, 3.5),
    token("openai", "sk-admin-", Class::Url, 40, 250, 3.5),
    token("openai", "sk-", Class::Alnum, 48, 48, 3.5),
    token("perplexity", "pplx-", Class::Alnum, 48, 48, 3.5),
    token("planetscale", "pscale_tkn_", Class::Dotted, 32, 64, 3.0),
    token("planetscale", "pscale_pw_", Class::Dotted, 32, 64, 3.0),
    token("planetscale", "pscale_oauth_", Class::Dotted, 32, 64, 3.0),
    token("postman", "PMAK-", Class::Url, 59, 59, 3.0),
    other("private-key", "-----BEGIN ", false, Matcher::Pem),
    token("private-key", "AGE-SECRET-KEY-1", Class::Alnum, 58, 58, 3.0),
    token("pulumi", "pul-", Class::Hex, 40, 40, 3.0),
    token("pypi", "pypi-AgEIcHlwaS5vcmc", Class::Url, 50, 1000, 3.0),
    token("pypi", "pypi-AgENdGVzdC5weXBpLm9yZw", Class::Url, 50, 1000, 3.0),
    token("replicate", "r8_", Class::Url, 37, 37, 3.5),
    token("rubygems", "rubygems_", Class::Hex, 48, 48, 3.0),
    token("sendgrid", "SG.", Class::Dotted, 60, 72, 4.0),
    token("sentry", "sntrys_", Class::Base64, 40, 500, 3.5),
    token("sentry", "sntryu_", Class::Hex, 64, 64, 3.0),
    token("shopify", "shpat_", Class::Alnum, 32, 38, 3.0),
    token("shopify", "shpca_", Class::Alnum, 32, 38, 3.0),
    token("shopify", "shppa_", Class::Alnum, 32, 38, 3.0),
    token("shopify", "shpss_", Class::Alnum, 32, 38, 3.0),
    token("slack", "xoxb-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxp-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxa-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxr-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxs-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxo-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxe-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxc-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxd-", Class::Url, 20, 500, 2.5),
    token("slack", "xoxe.xoxp-", Class::Url, 20, 255, 2.5),
    token("slack", "xoxe.xoxb-", Class::Url, 20, 255, 2.5),
    token("slack", "xapp-", Class::Url, 40, 255, 2.5),
    other("slack", "hooks.slack.com/services/", false, Matcher::Webhook),
    other("slack", "hooks.slack.com/workflows/", false, Matcher::Webhook),
    token("square", "sq0atp-", Class::Url, 22, 22, 3.0),
    token("square", "sq0csp-", Class::Url, 43, 43, 3.0),
    token("stripe", "sk_live_", Class::Alnum, 16, 247, 3.0),
    token("stripe", "sk_test_", Class::Alnum, 16, 247, 3.0),
    token("stripe", "rk_live_", Class::Alnum, 16, 247, 3.0),
    token("stripe", "rk_test_", Class::Alnum, 16, 247, 3.0),
    token("stripe", "whsec_", Class::Base64, 24, 80, 3.0),
    token("supabase", "sbp_", Class::Hex, 40, 40, 3.0),
    token("xai", "xai-", Class::Alnum, 70, 90, 3.5),
];
