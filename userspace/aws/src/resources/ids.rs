//! Ids that tell what they are of, so that a member for resources of several types names those of one.

/// The kind of a resource as ARNs have it, by the form of its id; `None` where the form says nothing.
pub(super) fn kind(id: &str) -> Option<&'static str> {
    if let Some(container) = id.strip_prefix("ecs:") {
        // As Session Manager names it: `ecs:CLUSTER_TASK_RUNTIME`.
        return (!container.contains([':', '/']) && container.matches('_').count() >= 2).then_some("task/");
    }
    let (_, number) = id.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_number { of_ec2(id) } else { None }
}

/// Whether an id can be one of the type whose ARNs have that before it. Where the form says nothing it can.
pub(super) fn may_be(service: &str, before: &str, id: &str) -> bool {
    match service {
        // AWS's own have names such as `aws.browser.v1`; those of accounts have no dots.
        "bedrock-agentcore" => match before {
            ":aws:browser/" | ":aws:code-interpreter/" => id.starts_with("aws."),
            _ if before.ends_with(":browser-custom/") || before.ends_with(":code-interpreter-custom/") => {
                !id.starts_with("aws.")
            }
            _ => true,
        },
        // `anthropic.claude-…`, `eu.anthropic.claude-…`; names and ids of one's own have no dots.
        "bedrock" => match before.trim_start_matches(':') {
            "foundation-model/" | "inference-profile/" => id.contains('.'),
            "custom-model/" | "application-inference-profile/" => !id.contains('.'),
            _ => true,
        },
        "organizations" => {
            const PREFIXES: [&str; 5] = ["ou-", "r-", "p-", "rp-", "rt-"];
            let is_account = id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
            match before.strip_prefix('/') {
                Some("") => is_account || !PREFIXES.iter().any(|prefix| id.starts_with(prefix)),
                Some(prefix) if PREFIXES.contains(&prefix) => {
                    id.starts_with(prefix) || !is_account && !PREFIXES.iter().any(|other| id.starts_with(other))
                }
                _ => true,
            }
        }
        _ => true,
    }
}

/// By an id of EC2's, or of a machine that Systems Manager manages.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html>
pub(super) fn of_ec2(id: &str) -> Option<&'static str> {
    Some(match id.rsplit_once('-')?.0 {
        "acl" => "network-acl/",
        "ami" => "image/",
        "cgw" => "customer-gateway/",
        "dopt" => "dhcp-options/",
        "eipalloc" => "elastic-ip/",
        "eni" => "network-interface/",
        "fl" => "vpc-flow-log/",
        "i" => "instance/",
        "igw" => "internet-gateway/",
        "key" => "key-pair/",
        "lt" => "launch-template/",
        "mi" => "managed-instance/",
        "nat" => "natgateway/",
        "pcx" => "vpc-peering-connection/",
        "pl" => "prefix-list/",
        "rtb" => "route-table/",
        "sg" => "security-group/",
        "snap" => "snapshot/",
        "subnet" => "subnet/",
        "tgw" => "transit-gateway/",
        "tgw-attach" => "transit-gateway-attachment/",
        "vgw" => "vpn-gateway/",
        "vol" => "volume/",
        "vpc" => "vpc/",
        "vpce" => "vpc-endpoint/",
        "vpn" => "vpn-connection/",
        _ => return None,
    })
}
