//! Services whose resources no template says: EC2's launches, SQS's queues, API Gateway's paths.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Place, checked, ids, names::ambiguous, texts};
use crate::{actions::Requirements, catalog::Operation, decode_error::DecodeError};

/// What launching touches: besides what is named, new instances, their volumes and interfaces. What isn't named is the
/// launch template's or the account's default, and could be any.
pub(crate) fn run_instances(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let region = place.region.as_deref().unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let ours = |kind: &str, id: &str| place.arn("ec2", &format!("{kind}/{id}"));
    let any = |needs: &mut Requirements, arn: String| {
        needs.unknown(arn, Cow::Borrowed("a launch template's, or the account's default"), false)
    };
    // Images and snapshots have no account in their ARNs.
    let image = |id: &str| format!("arn:{}:ec2:{region}::image/{id}", place.partition);
    match text(members.get("ImageId")) {
        Some(id) => needs.resource(checked(&image(&id))?)?,
        None => any(needs, image("*"))?,
    }
    let interfaces = members.get("NetworkInterfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut subnets: Vec<String> = text(members.get("SubnetId")).into_iter().collect();
    let mut groups: Vec<String> = texts(members.get("SecurityGroupIds")).map(str::to_owned).collect();
    let mut joined = Vec::new();
    for interface in interfaces {
        subnets.extend(text(interface.get("SubnetId")));
        groups.extend(texts(interface.get("Groups")).map(str::to_owned));
        joined.extend(text(interface.get("NetworkInterfaceId")));
    }
    for (kind, ids) in [("subnet", subnets), ("security-group", groups), ("network-interface", joined)] {
        // Interfaces that aren't named are new ones.
        if ids.is_empty() && kind == "network-interface" {
            needs.made_resource(ours(kind, "*"))?;
        } else if ids.is_empty() {
            any(needs, ours(kind, "*"))?;
        }
        for id in ids {
            needs.resource(checked(&ours(kind, &id))?)?;
        }
    }
    for kind in ["instance", "volume"] {
        needs.made_resource(ours(kind, "*"))?;
    }
    if let Some(name) = text(members.get("KeyName")) {
        needs.resource(checked(&ours("key-pair", &name))?)?;
    }
    if let Some(template) = members.get("LaunchTemplate") {
        if let Some(id) = text(template.get("LaunchTemplateId")) {
            needs.resource(checked(&ours("launch-template", &id))?)?;
        } else {
            let why = Cow::Borrowed("the launch template is named otherwise than by its id");
            needs.unknown(ours("launch-template", "*"), why, false)?;
        }
    }
    let within = |member: &str, name: &str| members.get(member).and_then(|outer| text(outer.get(name)));
    if let Some(group) = within("Placement", "GroupName") {
        needs.resource(checked(&ours("placement-group", &group))?)?;
    }
    if within("Placement", "GroupId").is_some() {
        let why = Cow::Borrowed("the placement group is named by its id, and its ARN has its name");
        needs.unknown(ours("placement-group", "*"), why, false)?;
    }
    if let Some(id) = within("Placement", "HostId") {
        needs.resource(checked(&ours("dedicated-host", &id))?)?;
    }
    if let Some(target) =
        members.get("CapacityReservationSpecification").and_then(|it| it.get("CapacityReservationTarget"))
        && let Some(id) = text(target.get("CapacityReservationId"))
    {
        needs.resource(checked(&ours("capacity-reservation", &id))?)?;
    }
    let licences = members.get("LicenseSpecifications").and_then(Value::as_array).into_iter().flatten();
    let licences = licences.filter_map(|licence| text(licence.get("LicenseConfigurationArn")));
    let reserved = members
        .get("CapacityReservationSpecification")
        .and_then(|it| text(it.get("CapacityReservationTarget")?.get("CapacityReservationResourceGroupArn")));
    for arn in licences.chain(reserved).chain(within("Placement", "HostResourceGroupArn")) {
        super::names::arn(needs, &checked(&arn)?)?;
    }
    for mapping in members.get("BlockDeviceMappings").and_then(Value::as_array).into_iter().flatten() {
        if let Some(snapshot) = mapping.get("Ebs").and_then(|ebs| text(ebs.get("SnapshotId"))) {
            needs.resource(checked(&format!("arn:{}:ec2:{region}::snapshot/{snapshot}", place.partition))?)?;
        }
    }
    Ok(())
}

pub(crate) fn sqs(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    path: &str,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    // By the query protocol, the queue is in the path too, and there it is the one that counts.
    if let Some((account, name)) = path.trim_matches('/').split_once('/') {
        let region = place.region.as_deref().unwrap_or_default();
        needs.resource(checked(&format!("arn:{}:sqs:{region}:{account}:{name}", place.partition))?)?;
    }
    for name in ["SourceArn", "DestinationArn"] {
        if let Some(arn) = members.get(name).and_then(Value::as_str) {
            super::names::arn(needs, &checked(arn)?)?;
        }
    }
    let (account, name) = match (members.get("QueueUrl").and_then(Value::as_str), members.get("QueueName")) {
        // SQS takes the name of one's own queue in the place of its URL.
        (Some(name), _) if !name.is_empty() && !name.contains('/') => (None, name),
        (Some(url), _) => {
            // https://sqs.REGION.amazonaws.com/ACCOUNT/NAME
            let mut parts = url.rsplit('/');
            let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if name.is_empty() || account.is_empty() {
                return Err(DecodeError::Body("without a queue that can be told"));
            }
            (Some(account).filter(|a| a.bytes().all(|b| b.is_ascii_digit())), name)
        }
        (None, Some(Value::String(name))) => {
            (members.get("QueueOwnerAWSAccountId").and_then(Value::as_str), name.as_str())
        }
        _ => return Ok(()),
    };
    let region = place.region.as_deref().unwrap_or_default();
    let account = account.or(place.account).unwrap_or("*");
    // Queues' names have no colons, and an owner is a number.
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !is_name || !(super::names::is_account(account) || account == "*") {
        let any = format!("arn:{}:sqs:{region}:*:*", place.partition);
        return needs.unknown(any, Cow::Borrowed("no name of a queue"), false);
    }
    needs.resource(checked(&format!("arn:{}:sqs:{region}:{account}:{name}", place.partition))?)
}

/// EventBridge's rules: on a bus of one's own they are below its name. `false`: the rule isn't said plainly.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridge.html>
pub(super) fn rule(
    needs: &mut Requirements,
    operation: &Operation,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<bool, DecodeError> {
    let member = match operation.name {
        "DeleteRule" | "DescribeRule" | "DisableRule" | "EnableRule" | "PutRule" => "Name",
        "ListTargetsByRule" | "PutTargets" | "RemoveTargets" => "Rule",
        _ => return Ok(false),
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    // Partners' buses alone have slashes in their names.
    let is_bus = |bus: &str| match bus.strip_prefix("aws.partner/") {
        Some(rest) => rest.split('/').all(|part| is_name(&part)),
        None => is_name(&bus),
    };
    let Some(name) = text(member).filter(is_name) else { return Ok(false) };
    let ours = |kind: &str| place.arn_of("events", "rule/", kind);
    let arn = match text("EventBusName") {
        None | Some("default") => ours(name),
        Some(bus) => match bus.strip_prefix("arn:").map(|_| bus.splitn(6, ':').collect::<Vec<_>>()) {
            None if is_bus(bus) => ours(&[bus, "/", name].concat()),
            None => return Ok(false),
            // The bus of another account or region has its rules there.
            Some(parts) => match parts[..] {
                ["arn", partition, "events", region, account, bus] => {
                    let Some(bus) = bus.strip_prefix("event-bus/").filter(|bus| is_bus(bus)) else { return Ok(false) };
                    let bus = if bus == "default" { String::new() } else { [bus, "/"].concat() };
                    format!("arn:{partition}:events:{region}:{account}:rule/{bus}{name}")
                }
                _ => return Ok(false),
            },
        },
    };
    needs.resource(checked(&arn)?)?;
    Ok(true)
}

/// API Gateway's permissions are on the paths of its API.
pub(crate) fn api_gateway(operation: &Operation, members: &Map<String, Value>, place: &Place<'_>) -> String {
    let mut path = String::new();
    for segment in operation.uri.split('/').filter(|segment| !segment.is_empty()) {
        path.push('/');
        match segment.strip_prefix('{').and_then(|label| label.strip_suffix('}')) {
            Some(label) => {
                // Labels go by their names on the wire, such as `restapi_id` for `restApiId`.
                let plain: String =
                    label.trim_end_matches('+').chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
                let value = members
                    .iter()
                    .find(|(name, _)| name.to_ascii_lowercase() == plain)
                    .and_then(|(_, value)| value.as_str());
                // A label that holds a slash would be another path.
                path.push_str(
                    value.filter(|value| !value.contains(['/', ':']) && ambiguous(value).is_none()).unwrap_or("*"),
                );
            }
            None => path.push_str(segment),
        }
    }
    let region = place.region.as_deref().unwrap_or_default();
    format!("arn:{}:apigateway:{region}::{path}", place.partition)
}

/// What EC2 tags: resources of any type, by ids that tell it.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html>
pub(super) fn tagged(
    needs: &mut Requirements,
    members: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<(), DecodeError> {
    let region = place.region.as_deref().unwrap_or_default();
    for id in texts(members.get("Resources")) {
        let Some(kind) = ids::of_ec2(id) else {
            needs.unknown(place.arn("ec2", "*"), Cow::Borrowed("an id whose type isn't known"), false)?;
            continue;
        };
        if id.contains(['*', '?']) {
            needs.unknown(place.arn("ec2", &format!("{kind}*")), Cow::Borrowed("a wildcard in the request"), false)?;
            continue;
        }
        // Images and snapshots have no account in their ARNs.
        let account = if matches!(kind, "image/" | "snapshot/") { "" } else { place.account.unwrap_or("*") };
        needs.resource(checked(&format!("arn:{}:ec2:{region}:{account}:{kind}{id}", place.partition))?)?;
    }
    Ok(())
}
