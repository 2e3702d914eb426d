//! Refusals and policies as tables; the index against a naive model.

use proptest::prelude::*;

use super::*;
use crate::coordinator::standing::Trust;
use crate::ids::{GpuClass, Region};

use Environment::{Mainnet, Testnet};

fn name(text: &str) -> SubcloudName {
    text.parse().expect("a good name")
}

fn node(i: usize) -> NodeId {
    NodeId::named(&format!("node_{i}"))
}

fn owner() -> Actor {
    Actor::Namespace(Namespace::named("owner"))
}

fn stranger() -> Actor {
    Actor::Namespace(Namespace::named("stranger"))
}

fn subcloud(environment: Environment, text: &str) -> Subcloud {
    Subcloud {
        name: name(text),
        environment,
        policy: Policy::default(),
        isolate: Isolation::Shared,
        owners: BTreeSet::from([Namespace::named("owner")]),
        allowed: Allowed::Everyone,
        nodes: BTreeSet::new(),
    }
}

fn isolated(environment: Environment, text: &str) -> Subcloud {
    Subcloud { isolate: Isolation::Isolated, ..subcloud(environment, text) }
}

fn namespaces(count: usize) -> BTreeSet<Namespace> {
    (0..count).map(|i| Namespace::named(&i.to_string())).collect()
}

/// `a` on mainnet, with node 0.
fn table() -> Subclouds {
    let mut table = Subclouds::default();
    assert_eq!(table.put(&Actor::Operator, subcloud(Mainnet, "a")), Ok(Put::Created));
    assert_eq!(table.add_node(&owner(), Mainnet, &name("a"), &node(0), Environments::BOTH), Ok(()));
    table
}

fn any_node() -> NodeFacts {
    NodeFacts {
        trust: Trust::Approved,
        region: "eu".parse().ok(),
        memory_bytes: 100,
        gpu: "h100".parse().ok(),
    }
}

#[test]
fn refused_changes_change_nothing() {
    type Change = fn(&mut Subclouds) -> Result<(), Refused>;
    let only = |e| Environments::only(e);
    assert!(only(Mainnet).contains(Mainnet));
    let changes: [(Change, Refused); 9] = [
        (|t| t.put(&owner(), subcloud(Mainnet, "new")).map(drop), Refused::NotOwner),
        (|t| t.put(&stranger(), subcloud(Mainnet, "a")).map(drop), Refused::NotOwner),
        (|t| t.put(&owner(), subcloud(Testnet, "a")).map(drop), Refused::NotOwner),
        (|t| t.drop(&stranger(), Mainnet, &name("a")).map(drop), Refused::NotOwner),
        (|t| t.drop(&Actor::Operator, Testnet, &name("a")).map(drop), Refused::Unknown),
        (|t| t.add_node(&stranger(), Mainnet, &name("a"), &node(1), Environments::BOTH), Refused::NotOwner),
        (|t| t.remove_node(&stranger(), Mainnet, &name("a"), &node(0)), Refused::NotOwner),
        (|t| t.remove_node(&owner(), Mainnet, &name("b"), &node(0)), Refused::Unknown),
        (
            |t| t.add_node(&owner(), Mainnet, &name("a"), &node(1), Environments::only(Testnet)),
            Refused::OtherEnvironment,
        ),
    ];
    for (i, (change, expected)) in changes.into_iter().enumerate() {
        let mut changed = table();
        assert_eq!(change(&mut changed), Err(expected), "{i}");
        assert_eq!(changed, table(), "{i}");
    }
}

#[test]
fn everything_is_bounded() {
    let sized = |change: fn(&mut Subcloud, usize), max: usize| {
        let mut at = subcloud(Mainnet, "a");
        change(&mut at, max);
        let mut above = subcloud(Mainnet, "a");
        change(&mut above, max + 1);
        (table().put(&owner(), at), table().put(&owner(), above))
    };
    let models = |n: usize| Some((0..n).map(|i| ModelName::from(i.to_string())).collect());
    let many = |what, max| (Ok(Put::Changed), Err(Refused::TooMany { what, max }));
    assert_eq!(sized(|s, n| s.owners.extend(namespaces(n - 1)), SUBCLOUD_OWNERS_MAX), many("owners", 64));
    let allowed = sized(|s, n| s.allowed = Allowed::Only(namespaces(n)), SUBCLOUD_ALLOWED_MAX);
    assert_eq!(allowed, many("allowed namespaces", 10_000));
    let mut policy = Policy { models: models(POLICY_MODELS_MAX), ..Policy::default() };
    assert_eq!(policy.check(), Ok(()));
    policy.models = models(POLICY_MODELS_MAX + 1);
    assert_eq!(policy.check(), Err(Refused::TooMany { what: "models", max: 256 }));
    let regions = (0..=POLICY_REGIONS_MAX).map(|i| i.to_string().parse().expect("a region")).collect();
    policy = Policy { regions: Some(regions), ..Policy::default() };
    assert_eq!(policy.check(), Err(Refused::TooMany { what: "regions", max: 64 }));
}

#[test]
fn the_table_a_subcloud_and_a_node_have_their_most() {
    let mut full = table();
    for i in 1..SUBCLOUDS_MAX {
        assert_eq!(full.put(&Actor::Operator, subcloud(Testnet, &i.to_string())), Ok(Put::Created));
    }
    let one_more = full.put(&Actor::Operator, subcloud(Testnet, "more"));
    assert_eq!(one_more, Err(Refused::TooMany { what: "subclouds", max: SUBCLOUDS_MAX }));
    assert_eq!(full.put(&Actor::Operator, isolated(Testnet, "1")), Ok(Put::Changed));
    for i in 1..NODE_SUBCLOUDS_MAX {
        let added = full.add_node(&owner(), Testnet, &name(&i.to_string()), &node(0), Environments::BOTH);
        assert_eq!(added, Ok(()), "{i}");
    }
    let add =
        |t: &mut Subclouds, to: &str| t.add_node(&owner(), Testnet, &name(to), &node(0), Environments::BOTH);
    assert_eq!(add(&mut full, "99"), Err(Refused::TooMany { what: "subclouds of a node", max: 32 }));
    assert_eq!(add(&mut full, "5"), Ok(()), "it is in that one already");

    let mut large = subcloud(Mainnet, "large");
    large.nodes = (0..SUBCLOUD_NODES_MAX).map(node).collect();
    let mut full = Subclouds::recover([large]);
    let added =
        full.add_node(&owner(), Mainnet, &name("large"), &node(SUBCLOUD_NODES_MAX), Environments::BOTH);
    assert_eq!(added, Err(Refused::TooMany { what: "nodes", max: SUBCLOUD_NODES_MAX }));
}

#[test]
fn a_change_keeps_the_nodes_and_an_end_lets_them_go() {
    let mut table = table();
    let mut change = isolated(Mainnet, "a");
    change.nodes = BTreeSet::from([node(7)]);
    assert_eq!(table.put(&owner(), change), Ok(Put::Changed));
    assert!(table.is_isolated(Mainnet, &node(0)) && !table.is_isolated(Mainnet, &node(7)));
    assert_eq!(table.drop(&owner(), Mainnet, &name("a")).map(|s| s.nodes), Ok(BTreeSet::from([node(0)])));
    assert_eq!(table, Subclouds::default());
}

#[test]
fn environments_share_nothing() {
    let mut table = table();
    table.put(&Actor::Operator, isolated(Testnet, "a")).expect("the same name is free there");
    table.add_node(&owner(), Testnet, &name("a"), &node(0), Environments::BOTH).expect("registered in both");
    assert!(table.is_isolated(Testnet, &node(0)) && !table.is_isolated(Mainnet, &node(0)));
    assert_eq!(table.reaches(Mainnet, None, &node(0), &any_node()), Ok(()));
    assert_eq!(table.reaches(Testnet, None, &node(0), &any_node()), Err(Unreached::Isolated));
    assert_eq!(table.of(&node(0)).count(), 2);
}

#[test]
fn a_job_reaches_members_that_meet_the_policy_and_else_only_what_is_not_isolated() {
    let mut table = table();
    table.put(&Actor::Operator, isolated(Mainnet, "iso")).expect("new");
    table.add_node(&owner(), Mainnet, &name("iso"), &node(1), Environments::BOTH).expect("registered");
    let strict = Policy { trust_min: Trust::Own, ..Policy::default() };
    table.put(&Actor::Operator, Subcloud { policy: strict, ..subcloud(Mainnet, "strict") }).expect("new");
    for i in [1, 2] {
        table.add_node(&owner(), Mainnet, &name("strict"), &node(i), Environments::BOTH).expect("registered");
    }
    let own = NodeFacts { trust: Trust::Own, ..any_node() };
    let rows = [
        (None, 0, any_node(), Ok(())),
        (None, 1, any_node(), Err(Unreached::Isolated)),
        (None, 9, any_node(), Ok(())),
        (Some("a"), 0, any_node(), Ok(())),
        (Some("a"), 1, any_node(), Err(Unreached::NotMember)),
        (Some("iso"), 1, any_node(), Ok(())),
        (Some("iso"), 0, any_node(), Err(Unreached::NotMember)),
        (Some("none"), 0, any_node(), Err(Unreached::Unknown)),
        (Some("strict"), 2, any_node(), Err(Unreached::Unmet(Unmet::Trust))),
        (Some("strict"), 2, own.clone(), Ok(())),
        (Some("strict"), 1, own, Ok(())),
    ];
    for (wanted, i, facts, expected) in rows {
        let wanted = wanted.map(name);
        assert_eq!(table.reaches(Mainnet, wanted.as_ref(), &node(i), &facts), expected, "{wanted:?} {i}");
    }
}

#[test]
fn who_may_use_a_subcloud_and_for_what() {
    let mut table = table();
    let only = Allowed::Only(BTreeSet::from([Namespace::named("guest")]));
    let policy = Policy { models: Some(BTreeSet::from([ModelName::from("m")])), ..Policy::default() };
    table.put(&owner(), Subcloud { allowed: only, policy, ..subcloud(Mainnet, "a") }).expect("it owns it");
    let rows = [
        ("a", "guest", "m", Ok(())),
        ("a", "owner", "m", Ok(())),
        ("a", "stranger", "m", Err(NotAdmitted::Namespace)),
        ("a", "guest", "fallback", Err(NotAdmitted::Model)),
        ("b", "guest", "m", Err(NotAdmitted::Unknown)),
    ];
    for (to, namespace, model, expected) in rows {
        let found = table.admits(Mainnet, &name(to), &Namespace::named(namespace), &model.into());
        assert_eq!(found, expected, "{to} {namespace} {model}");
    }
}

#[test]
fn a_policy_restricts_only_what_it_names() {
    let region = |text: &str| Some(BTreeSet::from([text.parse::<Region>().expect("a region")]));
    let gpu = |text: &str| text.parse::<GpuClass>().ok();
    let nothing = Policy::default();
    let rows = [
        (nothing.clone(), Ok(())),
        (Policy { trust_min: Trust::Approved, ..nothing.clone() }, Ok(())),
        (Policy { trust_min: Trust::Own, ..nothing.clone() }, Err(Unmet::Trust)),
        (Policy { regions: region("eu"), ..nothing.clone() }, Ok(())),
        (Policy { regions: region("us"), ..nothing.clone() }, Err(Unmet::Region)),
        (Policy { memory_min_bytes: 100, ..nothing.clone() }, Ok(())),
        (Policy { memory_min_bytes: 101, ..nothing.clone() }, Err(Unmet::Memory)),
        (Policy { gpu: gpu("h100"), ..nothing.clone() }, Ok(())),
        (Policy { gpu: gpu("a100"), ..nothing.clone() }, Err(Unmet::Gpu)),
    ];
    for (policy, expected) in rows {
        assert_eq!(policy.met_by(&any_node()), expected, "{policy:?}");
    }
    let bare = NodeFacts { trust: Trust::Open, region: None, memory_bytes: 0, gpu: None };
    assert_eq!(nothing.met_by(&bare), Ok(()));
    assert_eq!(Policy { regions: region("eu"), ..nothing.clone() }.met_by(&bare), Err(Unmet::Region));
    assert_eq!(Policy { gpu: gpu("h100"), ..nothing }.met_by(&bare), Err(Unmet::Gpu));
}

/// One change: what, where, of which subcloud and node.
type Act = (u8, bool, u8, usize);

proptest! {
    #[test]
    fn the_index_is_what_a_scan_would_find(acts in prop::collection::vec((0..6_u8, any::<bool>(), 0..4_u8, 0..5_usize), 1..80)) {
        let mut table = Subclouds::default();
        for (what, testnet, which, i) in acts as Vec<Act> {
            let environment = if testnet { Testnet } else { Mainnet };
            let name = name(&which.to_string());
            let by = Actor::Operator;
            match what {
                0 => _ = table.put(&by, subcloud(environment, name.as_str())),
                1 => _ = table.put(&by, isolated(environment, name.as_str())),
                2 => _ = table.drop(&by, environment, &name),
                3 => _ = table.remove_node(&by, environment, &name, &node(i)),
                _ => _ = table.add_node(&by, environment, &name, &node(i), Environments::BOTH),
            }
            for node in (0..5).map(node) {
                let members: Vec<_> = table.iter().filter(|s| s.nodes.contains(&node)).collect();
                prop_assert_eq!(table.of(&node).collect::<Vec<_>>(), members.clone());
                for environment in [Mainnet, Testnet] {
                    let scanned = members.iter().any(|s| s.environment == environment && s.isolate == Isolation::Isolated);
                    prop_assert_eq!(table.is_isolated(environment, &node), scanned);
                }
            }
        }
        prop_assert_eq!(Subclouds::recover(table.iter().cloned()), table);
    }
}
