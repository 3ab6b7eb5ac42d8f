//! What a policy's annotations must look like to mean something. Others are the author's own.

use std::path::Path;

use cedar_policy::{Effect, Policy};

use crate::{
    action_catalog::ActionCatalog,
    approvals, mask_target,
    places::{Places, line_and_column},
    problem::PolicyProblem,
    slice::Reads,
    suggest::nearest,
    unmask,
};

/// Annotations that mean something here.
const ANNOTATIONS: [&str; 6] = ["approvals_needed", "approvers", "id", "mask", "sponsor_may_approve", "unmask_into"];

/// Checks a policy's annotations; `id` is its name.
pub(crate) fn check(
    policy: &Policy,
    id: &str,
    file: &Path,
    text: &str,
    places: &Places,
    catalog: &dyn ActionCatalog,
    problems: &mut Vec<PolicyProblem>,
) {
    let mut bad = |annotation: &str, message: String, help: String| {
        // The policy's own: after its `@id`, if it has one.
        let from = places.of_id(id);
        let own = places.annotations.iter().find(|it| it.name == annotation && it.at >= from);
        let (line, column) = line_and_column(text, own.map_or(from, |it| it.at.saturating_sub(1)));
        problems.push(PolicyProblem { file: file.to_owned(), line, column, message, help: Some(help) });
    };
    let approvers = policy.annotation("approvers");
    if let Some(approvers) = approvers {
        if approvals::groups_of(approvers).next().is_none() {
            bad(
                "approvers",
                format!("the policy `{id}` has `@approvers` without a group"),
                "name groups: @approvers(\"sre\"), or @approvers(\"sre, security\") where either will do".into(),
            );
        }
        if policy.effect() != Effect::Forbid || !Reads::of([policy]).context("approved") {
            bad(
                "approvers",
                format!("`@approvers` on the policy `{id}`, which no approval can change"),
                "approvers are named on `forbid (…) unless { context.approved };`".into(),
            );
        }
    } else {
        for name in ["approvals_needed", "sponsor_may_approve"] {
            if policy.annotation(name).is_some() {
                bad(
                    name,
                    format!("the policy `{id}` has `@{name}` and no `@approvers`"),
                    "say who approves: @approvers(\"sre\")".into(),
                );
            }
        }
    }
    if let Some(needed) = policy.annotation("approvals_needed")
        && !needed.parse::<u32>().is_ok_and(|number| (1..=20).contains(&number))
    {
        bad(
            "approvals_needed",
            format!("the policy `{id}` has `@approvals_needed(\"{needed}\")`"),
            "it is a number of people, from 1 to 20".into(),
        );
    }
    if let Some(may) = policy.annotation("sponsor_may_approve")
        && !matches!(may, "true" | "false")
    {
        bad(
            "sponsor_may_approve",
            format!("the policy `{id}` has `@sponsor_may_approve(\"{may}\")`"),
            "it is \"true\" or \"false\"".into(),
        );
    }
    if let Some(mask) = policy.annotation("mask")
        && let Err(why) = mask_target::check(policy).and_then(|()| mask_target::parse(mask).map(|_| ()))
    {
        bad(
            "mask",
            format!("`@mask` on the policy `{id}`: {why}"),
            "write `@mask(\"sensitive, github, Items[].Secret\") permit (…);`: it masks, and permits nothing".into(),
        );
    }
    if let Err(why) = unmask::check(policy, catalog) {
        bad(
            "unmask_into",
            format!("`@unmask_into` on the policy `{id}`: {why}"),
            "write `@mask(\"SecretString\") @unmask_into(\"rds:CreateDBInstance.MasterUserPassword\") permit (…);`: an action, \
             a dot and the member's name in AWS's model"
                .into(),
        );
    }
    for (name, _) in policy.annotations() {
        if let Some(meant) = meant(name) {
            bad(
                name,
                format!("the policy `{id}` has the annotation `@{name}`, which means nothing"),
                format!("did you mean `@{meant}`?"),
            );
        }
    }
}

/// The annotation that was meant by one that is written almost like it.
fn meant(written: &str) -> Option<&'static str> {
    let first = |name: &str| name.bytes().next().map(|byte| byte.to_ascii_lowercase());
    // A short name of the author's own is near to many.
    let known = ANNOTATIONS.into_iter().filter(|known| known.len() >= 4 && first(known) == first(written));
    if ANNOTATIONS.contains(&written) { None } else { nearest(written, known) }
}
