//! Standings as a table over every combination of causes; penalties as transcripts and as properties.

use proptest::prelude::*;

use super::*;
use crate::time::Span;

const T0: Time = Time(1_000_000_000_000);
const DIGEST: Digest = Digest([1; 32]);
const OTHER_DIGEST: Digest = Digest([2; 32]);

fn model(name: &str) -> ModelName {
    name.into()
}

fn secs(secs: u64) -> Time {
    T0 + Span::from_secs(secs)
}

fn rules() -> PenaltyRules {
    PenaltyRules::default()
}

/// A node that is here and has proven `m`.
fn ready() -> Record {
    let row = NodeRow::new(NodeId::named("node_a"), Trust::Open, Environments::BOTH);
    let mut record = Record::from_row(row, T0);
    record.on_connected();
    record.on_test_passed(&model("m"), DIGEST, T0, &rules());
    record
}

fn excluded_until(verdict: Verdict) -> Time {
    match verdict {
        Verdict::Excluded { until } => until,
        Verdict::Noted => panic!("it was only noted"),
    }
}

/// Faults until the node is excluded; how many it took, and until when.
fn fail_until_excluded(record: &mut Record, now: Time) -> (u32, Time) {
    for times in 1..=1_000 {
        if let Verdict::Excluded { until } = record.fault(Fault::AttemptFailed, now, &rules()) {
            return (times, until);
        }
    }
    panic!("a thousand faults didn't exclude it");
}

#[test]
fn of_all_causes_the_strongest_shows_and_each_ends_alone() {
    type Step = fn(&mut Record);
    let causes: [(Standing, Step, Step); 7] = [
        (Standing::Banned, |r| r.ban("spam", T0), |r| r.row.banned = None),
        (Standing::Frozen, |r| r.freeze("odd answers", T0), Record::unfreeze),
        (Standing::Excluded, |r| _ = fail_until_excluded(r, T0), |r| r.reinstate(T0)),
        (Standing::Away, |r| r.on_away(T0), Record::on_connected),
        (Standing::Draining, |r| r.drain(Party::Owner, T0), |r| r.row.draining.clear()),
        (Standing::Paused, |r| r.pause(Party::Operator, T0), |r| r.resume(Party::Operator)),
        (
            Standing::Untested,
            |r| r.row.trials.clear(),
            |r| _ = r.row.trials.insert(model("m"), Trial::Passed { digest: DIGEST, at: T0 }),
        ),
    ];
    for chosen in 0..1_u32 << causes.len() {
        let mut record = ready();
        let holds = |i: usize| chosen >> i & 1 == 1;
        causes
            .iter()
            .enumerate()
            .filter(|(i, _)| holds(*i))
            .for_each(|(_, (_, begin, _))| begin(&mut record));
        for (i, (standing, _, end)) in causes.iter().enumerate().filter(|(i, _)| holds(*i)) {
            assert_eq!(record.standing(T0), *standing, "of {chosen:07b}, from {i}");
            end(&mut record);
        }
        assert_eq!(record.standing(T0), Standing::Ready, "after {chosen:07b}");
    }
}

#[test]
fn what_each_standing_allows() {
    let table = [
        (Standing::Banned, [false, false, true, false]),
        (Standing::Frozen, [false, false, true, true]),
        (Standing::Excluded, [false, false, false, true]),
        (Standing::Away, [false, false, false, true]),
        (Standing::Draining, [false, false, false, true]),
        (Standing::Paused, [false, false, false, true]),
        (Standing::Untested, [false, true, false, true]),
        (Standing::Ready, [true, true, false, true]),
    ];
    for ((standing, expected), listed) in table.into_iter().zip(Standing::ALL) {
        assert_eq!(standing, listed);
        let found =
            [standing.takes_work(), standing.takes_tests(), standing.revokes(), standing.may_connect()];
        assert_eq!(found, expected, "{standing:?}");
    }
}

#[test]
fn a_pause_ends_only_by_who_began_it() {
    let mut record = ready();
    record.pause(Party::Owner, T0);
    record.pause(Party::Operator, secs(1));
    record.resume(Party::Owner);
    assert_eq!(record.standing(T0), Standing::Paused);
    record.pause(Party::Operator, secs(9));
    assert_eq!(record.row.paused[&Party::Operator], secs(1));
    record.resume(Party::Operator);
    assert_eq!(record.standing(T0), Standing::Ready);
}

#[test]
fn leaving_ends_a_drain_and_absence_keeps_its_first_time() {
    let mut record = ready();
    record.drain(Party::Operator, T0);
    record.on_away(secs(1));
    record.on_away(secs(5));
    assert_eq!((record.away_since(), record.standing(secs(5))), (Some(secs(1)), Standing::Away));
    record.on_connected();
    assert_eq!((record.away_since(), record.standing(secs(6))), (None, Standing::Draining));
    record.on_left(secs(7));
    record.on_connected();
    assert_eq!(record.standing(secs(8)), Standing::Ready);
}

#[test]
fn a_ban_that_ends_leaves_nothing_proven() {
    let mut record = ready();
    record.unban();
    assert_eq!(record.standing(T0), Standing::Ready);
    record.ban("spam", T0);
    record.unban();
    assert_eq!(record.standing(T0), Standing::Untested);
}

#[test]
fn a_test_counts_for_its_own_digest() {
    let (mut record, m) = (ready(), model("m"));
    let at = |r: &Record, m: &ModelName, digest| (r.standing_for(m, digest, T0), r.trial_due(m, digest, T0));
    assert_eq!(at(&record, &m, DIGEST), (Standing::Ready, TrialDue::No));
    assert_eq!(at(&record, &m, OTHER_DIGEST), (Standing::Untested, TrialDue::Now));
    assert_eq!(at(&record, &model("n"), DIGEST), (Standing::Untested, TrialDue::Now));
    record.on_test_passed(&m, OTHER_DIGEST, T0, &rules());
    assert_eq!(at(&record, &m, OTHER_DIGEST).0, Standing::Ready);
    assert_eq!(at(&record, &m, DIGEST).0, Standing::Untested);
    record.pause(Party::Owner, T0);
    assert_eq!(at(&record, &m, DIGEST).0, Standing::Paused);
}

#[test]
fn a_model_whose_test_fails_waits_while_the_others_go_on() {
    let (mut record, bad) = (ready(), model("bad"));
    for (times, wait) in [(1, 60), (2, 120), (3, 240)] {
        assert_eq!(record.on_test_failed(&bad, DIGEST, T0, &rules()), Verdict::Noted);
        record.on_settled(&rules());
        assert_eq!(record.trial_due(&bad, DIGEST, T0), TrialDue::At(secs(wait)), "{times}");
        assert_eq!(record.trial_due(&bad, DIGEST, secs(wait)), TrialDue::Now);
        assert_eq!(record.trial_due(&bad, OTHER_DIGEST, T0), TrialDue::Now);
    }
    assert_eq!(record.standing_for(&model("m"), DIGEST, T0), Standing::Ready);
}

#[test]
fn a_new_node_that_fails_its_test_is_excluded_longer_each_time() {
    let mut record = ready();
    record.row.trials.clear();
    let mut now = T0;
    for cooldown in [60, 120, 240, 480] {
        let until = excluded_until(record.on_test_failed(&model("m"), DIGEST, now, &rules()));
        assert_eq!(until, now + Span::from_secs(cooldown));
        assert_eq!(record.trial_due(&model("m"), DIGEST, now), TrialDue::At(until));
        now = until;
        assert_eq!(record.standing(now), Standing::Untested);
    }
    assert!(record.cause().is_some_and(|cause| cause.contains("`m`")), "{:?}", record.cause());
    record.on_test_failed(&model("m"), DIGEST, now, &rules());
    record.reinstate(now);
    assert_eq!(record.trial_due(&model("m"), DIGEST, now), TrialDue::Now, "by hand it may be tried at once");
    assert_eq!(record.standing(now), Standing::Untested, "but nothing was proven");
}

#[test]
fn faults_in_a_row_exclude_and_a_settled_job_breaks_the_row() {
    let mut record = ready();
    for _ in 0..4 {
        assert_eq!(record.fault(Fault::AttemptFailed, T0, &rules()), Verdict::Noted);
    }
    record.on_settled(&rules());
    let mut lenient = rules();
    lenient.exclude_below = 0;
    for _ in 0..4 {
        assert_eq!(record.fault(Fault::AttemptFailed, T0, &lenient), Verdict::Noted);
    }
    assert_eq!(excluded_until(record.fault(Fault::TimedOut, T0, &lenient)), secs(60));
    let cause = record.cause().expect("excluded").to_string();
    assert!(cause.contains("5 faults in a row") && cause.contains("deadline"), "{cause}");
}

#[test]
fn forgery_excludes_sooner_than_failure() {
    for (fault, expected) in [
        (Fault::BadSignature, 2),
        (Fault::ForeignReservation, 2),
        (Fault::UnissuedReservation, 2),
        (Fault::FailedCheck, 4),
        (Fault::AttemptFailed, 5),
    ] {
        let mut record = ready();
        let times = (1..).find(|_| record.fault(fault, T0, &rules()) != Verdict::Noted).expect("some day");
        assert_eq!(times, expected, "{fault:?}");
        assert_eq!(record.row.conduct.faults[&fault], expected);
    }
}

#[test]
fn an_exclusion_survives_reconnects_and_restarts_and_ends_by_a_test() {
    let mut record = ready();
    record.on_test_passed(&model("n"), DIGEST, T0, &rules());
    let (_, until) = fail_until_excluded(&mut record, T0);
    record.on_away(secs(1));
    record.on_connected();
    assert_eq!(record.standing(secs(2)), Standing::Excluded);
    let mut record = Record::from_row(record.row().clone(), secs(3));
    assert_eq!(record.standing(secs(3)), Standing::Excluded, "it shows before its absence");
    record.on_connected();
    assert_eq!((record.standing(secs(4)), record.changes_at(secs(4))), (Standing::Excluded, Some(until)));
    record.on_test_passed(&model("m"), DIGEST, secs(5), &rules());
    assert_eq!(record.standing(secs(5)), Standing::Excluded, "a test that began before answers nothing");
    assert_eq!((record.standing(until), record.changes_at(until)), (Standing::Untested, None));
    record.on_test_passed(&model("m"), DIGEST, until, &rules());
    assert_eq!(record.standing_for(&model("m"), DIGEST, until), Standing::Ready);
    assert_eq!(record.standing_for(&model("n"), DIGEST, until), Standing::Untested);
    assert_eq!(record.row.exclusions.len(), 1);
}

#[test]
fn a_fault_during_the_cooldown_is_noted_and_lengthens_nothing() {
    let mut record = ready();
    let (_, until) = fail_until_excluded(&mut record, T0);
    for _ in 0..20 {
        assert_eq!(record.fault(Fault::Died, secs(1), &rules()), Verdict::Noted);
    }
    assert_eq!(record.row.exclusion.as_ref().map(|e| e.until), Some(until));
}

#[test]
fn cooldowns_double_to_their_limit_and_are_forgiven_after_a_good_time() {
    let (mut record, mut now) = (ready(), T0);
    let mut cooldowns = Vec::new();
    for _ in 0..14 {
        let (_, until) = fail_until_excluded(&mut record, now);
        cooldowns.push(until.since(now).0 / 1_000_000);
        now = until;
        record.on_test_passed(&model("m"), DIGEST, now, &rules());
    }
    assert_eq!(cooldowns[..6], [60, 120, 240, 480, 960, 1_920]);
    assert_eq!(cooldowns[11..], [86_400; 3]);
    assert_eq!(record.row.exclusions.len(), EXCLUSIONS_KEPT_MAX);
    let almost = now + Span(rules().forgive_after.0 - 1);
    assert_eq!(fail_until_excluded(&mut record.clone(), almost).1, almost + rules().cooldown_max);
    let later = now + rules().forgive_after;
    assert_eq!(fail_until_excluded(&mut record, later).1, later + rules().cooldown);
}

#[test]
fn time_spent_excluded_is_no_good_time() {
    let mut record = ready();
    let (_, until) = fail_until_excluded(&mut record, T0);
    let much_later = until + rules().forgive_after + rules().forgive_after;
    let until = excluded_until(record.on_test_failed(&model("m"), DIGEST, much_later, &rules()));
    assert_eq!(until.since(much_later), Span::from_secs(120));
}

#[test]
fn after_a_test_a_node_starts_halfway_and_by_hand_with_a_clean_score() {
    let mut record = ready();
    let (_, until) = fail_until_excluded(&mut record, T0);
    for _ in 0..10 {
        record.fault(Fault::BadSignature, until - Span(1), &rules());
    }
    assert_eq!(record.reliability(until, &rules()), 0);
    let mut by_hand = record.clone();
    record.on_test_passed(&model("m"), DIGEST, until, &rules());
    assert_eq!(record.reliability(until, &rules()), 750);
    by_hand.reinstate(until);
    assert_eq!((by_hand.reliability(until, &rules()), by_hand.standing(until)), (1_000, Standing::Ready));
    let (_, again) = fail_until_excluded(&mut by_hand, until);
    assert_eq!(again.since(until), Span::from_secs(120), "how often it was excluded isn't forgotten");
}

#[test]
fn poor_quality_excludes_with_its_own_cause_once_there_are_enough_checks() {
    let mut record = ready();
    for _ in 0..9 {
        assert_eq!(record.on_check(Check::Failed, T0, &rules()), Verdict::Noted);
    }
    let until = excluded_until(record.on_check(Check::Failed, T0, &rules()));
    assert_eq!(record.cause().map(AsRef::as_ref), Some("10 of its last 10 quality checks failed"));
    assert_eq!(record.reliability(T0, &rules()), 1_000, "quality and reliability are apart");
    record.on_test_passed(&model("m"), DIGEST, until, &rules());
    assert_eq!(record.on_check(Check::Failed, until, &rules()), Verdict::Noted, "the checks start again");
    assert_eq!((record.row.quality.checks_ever, record.row.quality.failed_ever), (11, 11));
}

#[test]
fn the_second_proven_lie_excludes_whatever_the_share() {
    let mut record = ready();
    let mut check = |check| record.on_check(check, T0, &rules());
    assert!((0..100).all(|_| check(Check::Passed) == Verdict::Noted) && check(Check::Lied) == Verdict::Noted);
    excluded_until(check(Check::Lied));
    assert_eq!(check(Check::Lied), Verdict::Noted, "it is excluded already");
    assert_eq!(record.cause().map(AsRef::as_ref), Some("2 of its answers were proven wrong"));
}

#[test]
fn causes_are_cut_at_a_character() {
    let mut record = ready();
    record.freeze(&"é".repeat(CAUSE_BYTES_MAX), T0);
    let order = record.row.frozen.expect("frozen");
    assert_eq!((order.cause.len(), order.since), (CAUSE_BYTES_MAX, T0));
    assert_eq!(bounded(&format!("a{}", "é".repeat(200))).len(), CAUSE_BYTES_MAX - 1);
}

#[test]
fn no_more_models_are_remembered_than_fit_and_the_oldest_pass_goes_first() {
    let mut record = ready();
    record.on_test_failed(&model("bad"), DIGEST, T0, &rules());
    for i in 0..200 {
        record.on_test_passed(&model(&format!("n{i}")), DIGEST, secs(i), &rules());
        assert!(record.row.trials.len() <= MODELS_PER_NODE_MAX);
    }
    assert!(record.has_passed(&model("n199"), DIGEST) && !record.has_passed(&model("n0"), DIGEST));
    assert!(matches!(record.row.trials[&model("bad")], Trial::Failed { .. }));
}

#[test]
fn environments_are_sets() {
    let (main, test) = (Environments::only(Environment::Mainnet), Environments::only(Environment::Testnet));
    assert!(main.contains(Environment::Mainnet) && !main.contains(Environment::Testnet));
    assert_eq!(
        (main.with(Environment::Testnet), main.intersect(test)),
        (Environments::BOTH, Environments::NONE)
    );
    assert!(main.intersect(test).is_empty() && !Environments::BOTH.intersect(test).is_empty());
    assert!(Trust::Own > Trust::Approved && Trust::Approved > Trust::Open);
}

#[test]
fn rules_that_would_do_harm_are_named() {
    assert!(rules().flaws().is_empty());
    let mut wrong = rules();
    (wrong.half_life, wrong.exclude_below, wrong.cooldown) = (Span(0), 1_001, Span(u64::MAX));
    let flaws = wrong.flaws();
    for (flaw, field) in flaws.iter().zip(["half_life", "exclude_below", "cooldown_max"]) {
        assert!(flaw.contains(field), "{flaws:?}");
    }
    assert_eq!(flaws.len(), 3);
}

#[test]
fn between_half_lives_the_score_follows_a_straight_line() {
    let conduct = Conduct { missing: 800_000, as_of: T0, ..Conduct::default() };
    let rules = PenaltyRules { half_life: Span::from_secs(100), ..rules() };
    for (elapsed, expected) in [(0, 200), (25, 300), (50, 400), (99, 596), (100, 600), (150, 700), (200, 800)]
    {
        assert_eq!(conduct.score(secs(elapsed), &rules), expected, "after {elapsed} s");
    }
    assert_eq!(conduct.score(Time(0), &rules), 200, "time before the fault changes nothing");
}

/// One thing that happens to a record.
#[derive(Debug, Clone)]
enum Act {
    Fault(Fault),
    Settled,
    Check(Check),
    TestPassed,
    TestFailed,
    Reinstate,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..Fault::ALL.len()).prop_map(|i| Act::Fault(Fault::ALL[i])),
        4 => Just(Act::Settled),
        4 => prop_oneof![Just(Act::Check(Check::Passed)), Just(Act::Check(Check::Failed))],
        2 => Just(Act::TestPassed),
        1 => Just(Act::TestFailed),
        1 => Just(Act::Reinstate),
        1 => Just(Act::Restart),
    ]
}

fn any_rules() -> impl Strategy<Value = PenaltyRules> {
    (any::<[u32; 5]>(), any::<[u64; 4]>()).prop_map(|(small, spans)| PenaltyRules {
        weights: Weights { forged: small[0], died: small[1] % 2_000, ..PenaltyRules::default().weights },
        success_repair: small[2],
        exclude_below: small[3] % 1_001,
        failures_in_a_row_max: small[4] % 10,
        half_life: Span(spans[0]),
        cooldown: Span(spans[1]),
        cooldown_max: Span(spans[2]),
        forgive_after: Span(spans[3]),
        ..PenaltyRules::default()
    })
}

fn apply(record: &mut Record, act: &Act, now: Time, rules: &PenaltyRules) -> Verdict {
    match act {
        Act::Fault(fault) => return record.fault(*fault, now, rules),
        Act::Check(check) => return record.on_check(*check, now, rules),
        Act::TestFailed => return record.on_test_failed(&model("m"), DIGEST, now, rules),
        Act::TestPassed => record.on_test_passed(&model("m"), DIGEST, now, rules),
        Act::Settled => record.on_settled(rules),
        Act::Reinstate => record.reinstate(now),
        Act::Restart => *record = Record::from_row(record.row().clone(), now),
    }
    Verdict::Noted
}

proptest! {
    #[test]
    fn scores_stay_in_range_and_cooldowns_in_bounds(
        rules in any_rules(), acts in prop::collection::vec((act(), any::<u64>()), 1..60),
    ) {
        let mut record = ready();
        for (act, now) in acts {
            let now = Time(now);
            let was_cooling = record.cools_down(now);
            let verdict = apply(&mut record, &act, now, &rules);
            prop_assert!(record.reliability(now, &rules) <= 1_000 && record.row.quality.score() <= 1_000);
            prop_assert!(record.row.exclusions.len() <= EXCLUSIONS_KEPT_MAX);
            if let Verdict::Excluded { until } = verdict {
                prop_assert!(!was_cooling, "an exclusion in force was replaced");
                prop_assert!(until.since(now) <= rules.cooldown_max);
                prop_assert_eq!(record.row.exclusion.as_ref().map(|e| e.until), Some(until));
            }
        }
    }

    #[test]
    fn without_faults_a_score_only_rises(
        missing in 0..=1_000_000_u32, half_life: u64, as_of: u64, mut times: [u64; 8], repair in 0..2_000_u32,
    ) {
        times.sort_unstable();
        let rules = PenaltyRules { half_life: Span(half_life), success_repair: repair, ..rules() };
        let mut record = ready();
        (record.row.conduct.missing, record.row.conduct.as_of) = (missing, Time(as_of));
        let mut last = 0;
        for now in times.map(Time) {
            let score = record.reliability(now, &rules);
            prop_assert!(last <= score);
            record.on_settled(&rules);
            last = record.reliability(now, &rules);
            prop_assert!(score <= last);
        }
    }

    #[test]
    fn what_is_missing_halves_at_every_half_life(half_life in 1..1_u64 << 40, missing in 0..=1_000_000_u32) {
        let conduct = Conduct { missing, as_of: T0, ..Conduct::default() };
        for n in 0..25 {
            let rules = PenaltyRules { half_life: Span(half_life), ..rules() };
            let score = conduct.score(T0 + Span(half_life * n), &rules);
            prop_assert_eq!(score, 1_000 - (missing >> n).div_ceil(1_000));
        }
    }

    #[test]
    fn a_fault_never_helps(missing in 0..=1_000_000_u32, weight: u32, now: u64) {
        let rules = PenaltyRules { weights: Weights { died: weight, ..rules().weights }, ..rules() };
        let mut record = ready();
        (record.row.conduct.missing, record.row.conduct.as_of) = (missing, T0);
        let before = record.reliability(Time(now), &rules);
        record.fault(Fault::Died, Time(now), &rules);
        prop_assert!(record.reliability(Time(now), &rules) <= before);
    }

    #[test]
    fn cooldowns_grow_and_end_somewhere(cooldown: u64, max: u64, earlier: u32) {
        let rules = PenaltyRules { cooldown: Span(cooldown), cooldown_max: Span(max), ..rules() };
        let (now, next) = (rules.cooldown_after(earlier), rules.cooldown_after(earlier.saturating_add(1)));
        prop_assert!(now <= next && next <= Span(max));
    }

    #[test]
    fn a_passed_check_never_lowers_the_quality(checks in prop::collection::vec(prop::bool::weighted(0.3), 1..1_000)) {
        let mut record = ready();
        for failed in checks {
            let before = record.row.quality.score();
            record.on_check(if failed { Check::Failed } else { Check::Passed }, T0, &rules());
            let after = record.row.quality.score();
            prop_assert!(failed || before <= after, "{} then {}", before, after);
        }
    }
}
