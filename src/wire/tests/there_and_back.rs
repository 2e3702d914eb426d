//! Every message comes back as it was sent; and no damage to one makes anything panic.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::identity;
use crate::coordinator::event::{Endpoint, Environment, ErrorClass, FinishReason, Wish};
use crate::coordinator::standing;
use crate::ids::{GpuClass, JobId, ModelName, ModelVersion, Region, ReservationId, RuntimeName};
use crate::wire::keys::Hex;
use crate::wire::statement::StatedStatus;
use crate::wire::to_agent::*;
use crate::wire::to_box::*;
use crate::wire::{
    FromAgent, FromBox, Hash, InviteToken, MESSAGE_BYTES_MAX, NUMBER_MAX, Nonce, Parsed, PublicKey,
    ResultStatement, Signature, Signed, StoppedStatement, Version,
};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, Just(NUMBER_MAX), 0..=NUMBER_MAX]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,30}", ".{0,20}", "\\PC{0,20}"]
}

fn model() -> impl Strategy<Value = ModelName> {
    "[ -~À-ÿа-я一-龥😀-🙏]{1,30}".prop_map(|name| name.into())
}

fn reservation() -> impl Strategy<Value = ReservationId> {
    (any::<u32>(), 0..1_u64 << 40).prop_map(|(epoch, counter)| ReservationId { epoch, counter })
}

fn job() -> impl Strategy<Value = JobId> {
    reservation().prop_map(|ReservationId { epoch, counter }| JobId { epoch, counter })
}

fn environment() -> impl Strategy<Value = Environment> {
    select(&Environment::ALL[..])
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hex)
}

fn nonce() -> impl Strategy<Value = Nonce> {
    hash()
}

fn signature() -> impl Strategy<Value = Signature> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(one, other)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&one);
        bytes[32..].copy_from_slice(&other);
        Hex(bytes)
    })
}

fn key() -> impl Strategy<Value = PublicKey> {
    any::<u8>().prop_map(|seed| identity(seed).public())
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z0-9._-]{1,64}".prop_map(|name| name.parse().expect("a name"))
}

fn version() -> impl Strategy<Value = Version> {
    any::<(u16, u16)>().prop_map(|(major, minor)| Version { major, minor })
}

fn capabilities() -> impl Strategy<Value = Vec<Capability>> {
    vec("[ -~]{0,32}".prop_map(Capability), 0..16)
}

fn status() -> impl Strategy<Value = StatedStatus> {
    let classes = vec![ErrorClass::Terminal, ErrorClass::Node, ErrorClass::Transient];
    prop_oneof![
        select(vec![FinishReason::Stop, FinishReason::Length])
            .prop_map(|finish_reason| StatedStatus::Succeeded { finish_reason }),
        (select(classes), text()).prop_map(|(class, message)| StatedStatus::Failed { class, message }),
    ]
}

prop_compose! {
    fn result()(
        (environment, job, reservation) in (environment(), job(), reservation()),
        (model, model_digest, model_index) in (model(), option::of(hash()), any::<u32>()),
        (request_hash, output_hash) in (hash(), hash()),
        (input_tokens, cached_tokens, output_tokens) in any::<(u32, u32, u32)>(),
        status in status(),
        signature in signature(),
    ) -> Signed<ResultStatement> {
        let statement = ResultStatement {
            environment, job, reservation, model, model_digest, model_index, request_hash, output_hash, input_tokens,
            cached_tokens, output_tokens, status,
        };
        Signed { statement, signature }
    }
}

prop_compose! {
    fn stopped()(
        (environment, job, reservation) in (environment(), job(), reservation()),
        (input_tokens, output_tokens) in any::<(u32, u32)>(),
        signature in signature(),
    ) -> Stopped {
        let statement = StoppedStatement { environment, job, reservation, input_tokens, output_tokens };
        Signed { statement, signature }
    }
}

prop_compose! {
    fn offered()(
        (name, version, digest) in (model(), option::of(name::<ModelVersion>()), option::of(hash())),
        runtime in option::of(name::<RuntimeName>()),
        (slots, warm, load_ms) in (any::<u32>(), any::<bool>(), number()),
    ) -> OfferedModel {
        OfferedModel { name, version, digest, runtime, slots, warm, load_ms }
    }
}

prop_compose! {
    fn offer()(
        models in vec(offered(), 0..4),
        (slots, kv_tokens, memory_bytes) in (any::<u32>(), number(), number()),
        gpu in option::of((name::<GpuClass>(), 1..=64_u32)),
        region in option::of(name::<Region>()),
    ) -> Offer {
        let gpu = gpu.map(|(class, count)| Gpus { class, count });
        Offer { models, slots, kv_tokens, memory_bytes, gpu, region }
    }
}

prop_compose! {
    fn hold()(
        (reservation, model, kv_tokens, chunks) in (reservation(), model(), number(), any::<u32>()),
        result in option::of(result()),
    ) -> Hold {
        Hold { reservation, model, kv_tokens, chunks, result }
    }
}

prop_compose! {
    fn ready()(
        offer in offer(),
        configurations in vec((environment(), hash()), 0..=2),
        holds in vec(hold(), 0..3),
    ) -> FromAgent {
        let held = |(environment, digest)| ConfigurationHeld { environment, digest };
        let configurations = configurations.into_iter().map(held).collect();
        FromAgent::Ready(Box::new(Ready { offer, configurations, holds }))
    }
}

prop_compose! {
    fn chunk()(is_json in any::<bool>(), text in text(), tokens in any::<u32>()) -> Chunk {
        let json = |text: &str| format!(r#"{{"delta":{{"x":{}}}}}"#, serde_json::to_string(text).expect("text"));
        match is_json {
            true => Chunk { kind: ChunkKind::Json, text: json(&text).into(), tokens },
            false => Chunk { kind: ChunkKind::Text, text: text.into(), tokens },
        }
    }
}

fn cause() -> impl Strategy<Value = DeclineCause> {
    use DeclineCause::{Busy, Configuration, Model, Other, Stopping};
    select(vec![Busy, Model, Configuration, Stopping, Other])
}

fn handshake_of_agent() -> impl Strategy<Value = FromAgent> {
    let invite = || "[A-Za-z0-9_-]{1,64}".prop_map(|token| token.parse::<InviteToken>().expect("a token"));
    let environments = select(vec![vec![Environment::Testnet], Environment::ALL.to_vec()]);
    prop_oneof![
        (version(), capabilities(), key(), nonce()).prop_map(|(version, capabilities, node_key, nonce)| {
            FromAgent::Hello(Hello { version, capabilities, node_key, nonce })
        }),
        (environments, option::of(invite()), signature()).prop_map(|(environments, invite, signature)| {
            FromAgent::Authenticate(Authenticate { environments, invite, signature })
        }),
        ready(),
    ]
}

fn work_of_agent() -> impl Strategy<Value = FromAgent> {
    prop_oneof![
        reservation().prop_map(|reservation| FromAgent::Accepted(Accepted { reservation })),
        (reservation(), cause(), text()).prop_map(|(reservation, cause, reason)| {
            FromAgent::Declined(Declined { reservation, cause, reason })
        }),
        (reservation(), any::<u32>(), vec(chunk(), 0..4)).prop_map(|(reservation, index, chunks)| {
            FromAgent::Output(Output { reservation, index, chunks })
        }),
        (any::<u32>(), result()).prop_map(|(chunks, Signed { statement, signature })| {
            FromAgent::Completed(Box::new(Completed { chunks, statement, signature }))
        }),
        stopped().prop_map(FromAgent::Stopped),
        (vec(model().prop_map(Named), 0..4), any::<u32>())
            .prop_map(|(warm, running)| FromAgent::Heartbeat(Heartbeat { warm, running })),
        select(vec![Wish::Pause, Wish::Resume, Wish::Drain])
            .prop_map(|wish| FromAgent::Wish(Wished { wish })),
        offer().prop_map(FromAgent::Offer),
        (environment(), hash()).prop_map(|(environment, digest)| {
            FromAgent::SnapshotRequest(SnapshotRequest { environment, digest })
        }),
        (any::<u16>(), text()).prop_map(|(code, reason)| FromAgent::Goodbye(Goodbye { code, reason })),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        any::<u32>().prop_map(|from| Verdict::Resume { from }),
        Just(Verdict::Taken),
        Just(Verdict::Unknown)
    ]
}

prop_compose! {
    fn assign()(
        (reservation, job, environment) in (reservation(), job(), environment()),
        endpoint in select(vec![Endpoint::ChatCompletions, Endpoint::Completions]),
        (model, model_index, body) in (model(), any::<u32>(), text()),
        (input_tokens, output_tokens_max) in any::<(u32, u32)>(),
    ) -> FromBox {
        FromBox::Assign(Box::new(Assign {
            reservation, job, environment, endpoint, model, model_index, body: Body(Arc::from(body.into_bytes())),
            input_tokens, output_tokens_max,
        }))
    }
}

fn handshake_of_box() -> impl Strategy<Value = FromBox> {
    let resume =
        (reservation(), verdict()).prop_map(|(reservation, verdict)| Resume { reservation, verdict });
    prop_oneof![
        (version(), capabilities(), key(), nonce(), signature()).prop_map(
            |(version, capabilities, box_key, challenge, signature)| {
                FromBox::Challenge(Challenge { version, capabilities, box_key, challenge, signature })
            }
        ),
        ("[ -~]{0,64}", number()).prop_map(|(node, session)| FromBox::Admitted(Admitted { node, session })),
        (number(), number(), number(), vec(resume, 0..4)).prop_map(|(interval, ttl, time_ms, holds)| {
            let (heartbeat_interval_ms, heartbeat_ttl_ms) = (interval, ttl);
            FromBox::Welcome(Welcome { heartbeat_interval_ms, heartbeat_ttl_ms, time_ms, holds })
        }),
    ]
}

fn work_of_box() -> impl Strategy<Value = FromBox> {
    prop_oneof![
        assign(),
        reservation().prop_map(|reservation| FromBox::Stop(Stop { reservation })),
        reservation().prop_map(|reservation| FromBox::ResultAccepted(Settled { reservation })),
        reservation().prop_map(|reservation| FromBox::ResultUnknown(Settled { reservation })),
        (reservation(), text())
            .prop_map(|(reservation, reason)| FromBox::ResultRefused(ResultRefused { reservation, reason })),
        (environment(), number(), hash()).prop_map(|(environment, version, digest)| {
            FromBox::Configuration(Configuration { environment, version, digest })
        }),
        (environment(), number(), text(), signature()).prop_map(|(environment, version, text, signature)| {
            FromBox::Snapshot(SnapshotText { environment, version, text, signature })
        }),
        (select(&standing::Standing::ALL[..]), text())
            .prop_map(|(standing, cause)| FromBox::Standing(Standing { standing, cause })),
        (environment(), any::<i64>()).prop_map(|(environment, balance_microcredits)| {
            FromBox::Earnings(Earnings { environment, balance_microcredits })
        }),
        Just(FromBox::Drained(Empty {})),
        Just(FromBox::Banned(Empty {})),
        (any::<u16>(), text()).prop_map(|(code, reason)| FromBox::Goodbye(Goodbye { code, reason })),
    ]
}

proptest! {
    #[test]
    fn what_an_agent_sends_is_what_the_box_reads(
        message in prop_oneof![1 => handshake_of_agent(), 3 => work_of_agent()],
        at in any::<prop::sample::Index>(),
        put in "[\"\\\\{}\\[\\],:0-9a-f\\x00-\\x1fé]{0,2}",
    ) {
        let text = message.render().expect("it is text");
        prop_assert_eq!(FromAgent::parse(&text, MESSAGE_BYTES_MAX), Ok(Parsed::Known(message)));
        let _ = FromAgent::parse(&damaged(&text, at, &put), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn what_a_box_sends_is_what_the_agent_reads(
        message in prop_oneof![1 => handshake_of_box(), 3 => work_of_box()],
        at in any::<prop::sample::Index>(),
        put in "[\"\\\\{}\\[\\],:0-9a-f\\x00-\\x1fé]{0,2}",
    ) {
        let text = message.render().expect("it is text");
        prop_assert_eq!(FromBox::parse(&text, MESSAGE_BYTES_MAX), Ok(Parsed::Known(message)));
        let _ = FromBox::parse(&damaged(&text, at, &put), MESSAGE_BYTES_MAX);
    }
}

/// One character of it is another, or missing.
fn damaged(text: &str, at: prop::sample::Index, put: &str) -> String {
    let at = at.index(text.chars().count());
    text.chars().take(at).chain(put.chars()).chain(text.chars().skip(at + 1)).collect()
}

#[test]
fn a_body_is_carried_byte_for_byte_or_not_at_all() {
    let assign = |body: &[u8]| {
        FromBox::Assign(Box::new(Assign {
            reservation: ReservationId { epoch: 1, counter: 1 },
            job: JobId { epoch: 1, counter: 1 },
            environment: Environment::Mainnet,
            endpoint: Endpoint::ChatCompletions,
            model: "m".into(),
            model_index: 0,
            body: Body(Arc::from(body)),
            input_tokens: 1,
            output_tokens_max: 1,
        }))
    };
    let odd = "{ \"a\" :\t\"\\u00e9 é \\\\ \\\" \u{2028}\" ,\r\n\"n\": 1e400 }\n".as_bytes();
    let text = assign(odd).render().expect("it is text");
    let Ok(Parsed::Known(FromBox::Assign(back))) = FromBox::parse(&text, MESSAGE_BYTES_MAX) else {
        panic!("{text}")
    };
    assert_eq!(&*back.body.0, odd);
    assert!(!format!("{back:?}").contains('é'), "prompts aren't logged by accident");
    assign(b"\xff").render().expect_err("no JSON string is that");
    let error = assign(&vec![b'"'; MESSAGE_BYTES_MAX / 2]).render().expect_err("too long").to_string();
    assert!(error.contains("`assign`"), "{error}");
}
