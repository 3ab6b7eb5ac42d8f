//! How well the catalog knows which resources operations touch. The table in `docs/aws-coverage.md` is this test's;
//! `CHAPERONE_WRITE_COVERAGE=1 cargo test -p chaperone-aws coverage` writes it anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use chaperone_model::AccessLevel;

use crate::{Catalog, catalog::Operation};

const BY_HAND: [&str; 5] = ["apigateway", "apigatewayv2", "dynamodb", "s3", "sqs"];
const BEGIN: &str = "<!-- coverage: begin -->\n";
const END: &str = "<!-- coverage: end -->\n";

/// How an operation's resources are said, for those of which IAM requires one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// All by members.
    Whole,
    /// By members and `*` for what AWS adds to names, or that the input leaves open.
    InPart,
    /// New ones, whose names AWS assigns.
    New,
    /// It lists all of a type.
    All,
    /// By nothing in the input.
    Unknown,
}

fn said(service: &str, operation: &Operation) -> Option<Said> {
    let has_member = |template: &str| template.contains("{=") || template.contains("{~");
    let mut required = operation.templates.iter().filter(|template| template.starts_with(['!', '|', '+'])).peekable();
    required.peek()?;
    if BY_HAND.contains(&service) {
        return Some(Said::Whole);
    }
    let by_arn =
        |template: &&str| !operation.arn_members.is_empty() && !template.starts_with('+') && !has_member(template);
    let open: Vec<_> = required.filter(|template| template.contains("{*}") && !by_arn(template)).collect();
    let lists = ["List", "Search", "Describe", "Get"].iter().any(|verb| operation.name.starts_with(verb))
        && (operation.name.ends_with('s')
            || operation.name.starts_with("List")
            || operation.name.starts_with("Search"))
        && operation.actions.iter().all(|action| action.level() <= AccessLevel::Read);
    Some(match () {
        () if open.is_empty() => Said::Whole,
        () if operation.templates.iter().any(|template| !template.starts_with('~') && has_member(template)) => {
            Said::InPart
        }
        () if open.iter().all(|template| template.starts_with('+')) => Said::New,
        () if lists => Said::All,
        () => Said::Unknown,
    })
}

/// `service operation`, of which a reviewed line says why nothing says its resource.
fn reviewed() -> BTreeMap<(&'static str, &'static str), bool> {
    let mut all = BTreeMap::new();
    for line in include_str!("../data/unknown-resources.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [service, operations, why] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(!why.is_empty(), "{line}");
        for operation in operations.split(' ') {
            assert!(all.insert((service, operation), false).is_none(), "{service} {operation} is listed twice");
        }
    }
    all
}

#[test]
fn every_required_resource_is_said_or_known_to_be_unknown() {
    let catalog = Catalog::global();
    let mut reviewed = reviewed();
    let mut services: BTreeMap<&str, BTreeMap<Said, usize>> = BTreeMap::new();
    let (mut unlisted, mut wrongly, mut total) = (Vec::new(), Vec::new(), BTreeMap::<Said, usize>::new());
    for (position, name) in catalog.service_names().enumerate() {
        for operation in &catalog.service(position).operations {
            let Some(said) = said(name, operation) else { continue };
            *services.entry(name).or_default().entry(said).or_default() += 1;
            *total.entry(said).or_default() += 1;
            let listed = reviewed.get_mut(&(name, operation.name));
            match (said, listed) {
                (Said::Unknown, Some(used)) => *used = true,
                (Said::Unknown, None) => unlisted.push(format!("{name}:{} {:?}", operation.name, operation.templates)),
                (_, Some(_)) => wrongly.push(format!("{name} {}", operation.name)),
                (_, None) => {}
            }
        }
    }
    assert!(wrongly.is_empty(), "listed as unknown, and their resources are said: {wrongly:?}");
    assert!(unlisted.is_empty(), "give them members (xtask/python) or a reason (unknown-resources.tsv): {unlisted:#?}");
    let gone: Vec<_> = reviewed.iter().filter(|(_, used)| !**used).collect();
    assert!(gone.is_empty(), "listed, and no operation: {gone:?}");

    let columns = [Said::Whole, Said::InPart, Said::New, Said::All, Said::Unknown];
    let row = |name: &str, counts: &BTreeMap<Said, usize>| {
        let cells: Vec<_> = columns.iter().map(|said| counts.get(said).copied().unwrap_or(0).to_string()).collect();
        format!("| {name} | {} | {} |\n", counts.values().sum::<usize>(), cells.join(" | "))
    };
    let mut table = String::from(
        "| service | require a resource | said | in part | new | lists all | unknown |\n|---|---|---|---|---|---|---|\n",
    );
    table.push_str(&row("all", &total));
    let mut whole = Vec::new();
    for (name, counts) in &services {
        if counts.len() == 1 && counts.contains_key(&Said::Whole) {
            whole.push(format!("{name} ({})", counts[&Said::Whole]));
        } else {
            table.push_str(&row(name, counts));
        }
    }
    let _ = writeln!(table, "\nAll said, with the number of operations: {}.", whole.join(", "));

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/aws-coverage.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the document has a mark for the table");
    let (committed, after) = rest.split_once(END).expect("the document has a mark for the table's end");
    if std::env::var_os("CHAPERONE_WRITE_COVERAGE").is_some() {
        fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert_eq!(committed, table, "CHAPERONE_WRITE_COVERAGE=1 writes docs/aws-coverage.md anew");
    }
}

/// A member that says two variables says one of them wrongly.
#[test]
fn one_member_says_one_variable() {
    let catalog = Catalog::global();
    for (position, name) in catalog.service_names().enumerate() {
        for operation in &catalog.service(position).operations {
            for template in &operation.templates {
                let mut members: Vec<_> =
                    template.split("{=").skip(1).filter_map(|rest| rest.split('}').next()).collect();
                let all = members.len();
                members.sort_unstable();
                members.dedup();
                assert_eq!(all, members.len(), "{name}:{} {template}", operation.name);
            }
        }
    }
}

#[test]
fn operations_with_a_role_need_to_pass_it() {
    let catalog = Catalog::global();
    let passing: usize = (0..catalog.service_names().count())
        .map(|position| catalog.service(position).operations.iter().filter(|one| one.passes_role != 0).count())
        .sum();
    assert!(passing >= 950, "{passing}");
    for (service, operation) in [
        ("rds", "CreateDBInstance"),
        ("sagemaker", "CreateModel"),
        ("lambda", "CreateFunction"),
        ("eks", "CreateCluster"),
        ("firehose", "CreateDeliveryStream"),
        ("stepfunctions", "CreateStateMachine"),
        ("opensearch", "CreateDomain"),
        ("iot", "CreateTopicRule"),
    ] {
        let position = usize::from(catalog.position(service).unwrap());
        assert_ne!(catalog.service(position).operation(operation).unwrap().passes_role, 0, "{service}:{operation}");
    }
}
