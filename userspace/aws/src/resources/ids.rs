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
