//! `[[budgets]]`: how much agents may do.

use chaperone_policy::budgets::{Budget, Count, OverBudget, Per};
use serde::{Deserialize, Serialize};

use crate::daemon::KnownActions;

chaperone_model::documented! {
/// One of `[[budgets]]`. A call is counted by each that is for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSection {
    /// Its name, which agents, policies and the record are told.
    pub name: String,
    /// The agents that it is for; all, if empty.
    #[serde(default)]
    pub agents: Vec<String>,
    /// Whose it is: `agent`, all sessions of an agent together, or `session`.
    #[serde(default)]
    pub per: Per,
    /// What is counted: `calls` and `resources` (different ones) of permitted calls, `denied` calls, `bytes-out` of request
    /// bodies.
    pub count: Count,
    /// Of calls that need one of these actions, such as `ec2:RunInstances` or `s3:Delete*`; of all, if empty. Not for
    /// `bytes-out`.
    #[serde(default)]
    pub actions: Vec<String>,
    /// How much is allowed.
    pub limit: u64,
    /// In how many seconds, such as 86400; 0 is for ever, for sessions until their end.
    #[serde(default)]
    pub window: u64,
    /// What becomes of a call that is over it: `deny`, `stop` (and the agent or session is stopped), or `policy` (policies see
    /// its name in `context.over_budget`).
    #[serde(default)]
    pub over: OverBudget,
}
}

/// Of different resources: each is remembered.
const MAX_RESOURCES: u64 = 100_000;
/// Ten years, in seconds.
const MAX_WINDOW: u64 = 10 * 366 * 86_400;

impl BudgetSection {
    /// As the data path takes it.
    pub fn budget(&self) -> Budget {
        Budget {
            name: self.name.clone(),
            agents: self.agents.clone(),
            per: self.per,
            count: self.count,
            actions: self.actions.clone(),
            limit: self.limit,
            window: self.window.saturating_mul(1000),
            over: self.over,
        }
    }

    /// What TOML's types can't say.
    pub fn check(all: &[Self], agents: &[&str]) -> Result<(), String> {
        for (index, one) in all.iter().enumerate() {
            let fails = |why: String| Err(format!("[[budgets]] `{}`: {why}", one.name));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if one.name.is_empty() || !one.name.chars().all(plain) {
                return fails("a name is of letters, digits, `-`, `_` and `.`".into());
            }
            if all[..index].iter().any(|other| other.name == one.name) {
                return fails("there are two of this name".into());
            }
            if let Some(unknown) = one.agents.iter().find(|name| !agents.contains(&name.as_str())) {
                return fails(format!("there is no agent `{unknown}`; there are: {}", agents.join(", ")));
            }
            if one.count == Count::BytesOut && !one.actions.is_empty() {
                return fails("`bytes-out` is counted of all calls: leave `actions` away".into());
            }
            if let Some(wrong) = one.actions.iter().find(|action| !is_action(action)) {
                return fails(format!("`{wrong}` is not an action such as `ec2:RunInstances` or `s3:*`"));
            }
            if one.count == Count::Resources && one.limit > MAX_RESOURCES {
                return fails(format!("`resources` are counted up to {MAX_RESOURCES}"));
            }
            if one.window > MAX_WINDOW {
                return fails(format!("a window has at most {MAX_WINDOW} seconds; 0 is for ever"));
            }
        }
        Ok(())
    }
}

/// Whether it is an action that is known, or a pattern that one fits.
fn is_action(pattern: &str) -> bool {
    KnownActions::all().keys().any(|name| chaperone_model::is_like(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_counted_is_told() {
        let read = |text: &str| toml::from_str::<BudgetSection>(text).unwrap();
        let good =
            read("name = \"runs\"\ncount = \"calls\"\nactions = [\"ec2:RunInstances\"]\nlimit = 5\nwindow = 86400");
        assert_eq!(good.budget().terms(), "5 calls of ec2:RunInstances in 1 days");
        BudgetSection::check(std::slice::from_ref(&good), &["coder"]).unwrap();
        let with = |change: fn(&mut BudgetSection)| {
            let mut one = good.clone();
            change(&mut one);
            BudgetSection::check(&[one], &["coder"]).unwrap_err()
        };
        for (why, wrong) in [
            ("a name is", with(|one| one.name.clear())),
            ("no agent `codr`; there are: coder", with(|one| one.agents = vec!["codr".into()])),
            ("leave `actions` away", with(|one| one.count = Count::BytesOut)),
            ("`ec2:RunInstanecs` is not an action", with(|one| one.actions = vec!["ec2:RunInstanecs".into()])),
            ("up to 100000", with(|one| (one.count, one.limit) = (Count::Resources, 100_001))),
            ("0 is for ever", with(|one| one.window = u64::MAX)),
        ] {
            assert!(wrong.contains(why) && wrong.contains("[[budgets]]"), "{wrong}");
        }
        let two = [good.clone(), good];
        assert!(BudgetSection::check(&two, &["coder"]).unwrap_err().contains("two of this name"));
    }
}
