//! What a configuration is refused for, and what it comes to.

use super::*;
use crate::url::BaseUrl;

fn of(file: &str, flags: Flags) -> Result<Config, ConfigError> {
    Config::resolve(Some(Document::of_text(file)), flags, Some("/var/lib/box".into()))
}

fn serving(models: &[&str]) -> Flags {
    let models = models.iter().map(|model| (*model).to_owned()).collect();
    Flags { served: ServedFlags { models, ..ServedFlags::default() }, ..Flags::default() }
}

fn with_slots(slots: &str, mut flags: Flags) -> Flags {
    flags.served.slots = Some(slots.to_owned());
    flags
}

fn with_model() -> Flags {
    serving(&["tiny=models/tiny.gguf"])
}

#[test]
fn defaults_are_a_box_on_loopback_with_keys() {
    let config = Config::resolve(None, with_model(), Some("/var/lib/box".into())).expect("defaults");
    assert_eq!(config.http.listen, "127.0.0.1:8080".parse().expect("an address"));
    assert_eq!(config.http.auth, Auth::Key);
    assert_eq!(config.admin_listen, AdminListen::Tcp("127.0.0.1:0".parse().expect("an address")));
    assert_eq!(config.durability, Durability::Strict);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/box"));
    assert_eq!(config.log_format, LogFormat::Human);
    assert_eq!(config.limits, Limits::default());
    assert!(config.executor.threads >= 1);
    let [Model { name, spec: ModelSpec::Gguf(path), slots: 4, output_tokens_default: 1_024 }] =
        &config.served.models[..]
    else {
        panic!("{:?}", config.served.models)
    };
    assert!(name == "tiny" && path.is_absolute() && path.ends_with("models/tiny.gguf"), "{path:?}");
}

#[test]
fn the_core_gets_its_own_defaults_and_what_was_set() {
    let default = of("", with_model()).expect("defaults").core_limits();
    // A body that may come in is one that the core takes.
    assert_eq!(limits::BODY_BYTES_MAX, default.body_bytes_max);
    assert_eq!(format!("{default:?}"), format!("{:?}", coordinator::limits::Limits::default()));
    let set = of("[limits]\nattempts_max = 7\naccept_timeout_ms = 250\nfinished_jobs_max = 9", with_model());
    let set = set.expect("a configuration").core_limits();
    assert_eq!((set.attempts_max, set.accept_timeout, set.finished_jobs_max), (7, Span::from_ms(250), 9));
}

#[test]
fn a_file_says_everything() {
    let file = r#"
        http = { listen = "[::1]:0", cors_origins = ["https://chat.example", "http://localhost:3000"], auth = "none" }
        admin.listen = "unix:/run/box/admin.sock"
        durability.mode = "relaxed"
        data.dir = "state"
        log.format = "json"
        [executor]
        threads = 3
        prefill_chunk = 0x20
        [limits]
        queue_jobs_max = 1_000
        drain_deadline_ms = 5
        [[model]]
        name = "tiny"
        spec = "tiny.gguf"
        slots = 2
        output_tokens_default = 99
        [[model]]
        name = "test"
        spec = "echo:25"
    "#;
    let config = of(file, Flags::default()).expect("a configuration");
    assert_eq!(config.http.listen, "[::1]:0".parse().expect("an address"));
    assert_eq!(config.http.cors_origins, ["https://chat.example", "http://localhost:3000"]);
    assert_eq!(config.http.auth, Auth::None);
    assert_eq!(config.admin_listen, AdminListen::Unix("/run/box/admin.sock".into()));
    assert_eq!(config.durability, Durability::Relaxed);
    assert_eq!(config.data_dir, PathBuf::from("/etc/state"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.executor, Executor { threads: 3, prefill_chunk: 32 });
    assert_eq!((config.limits.queue_jobs_max, config.limits.drain_deadline_ms), (1_000, 5));
    let delay = Span::from_ms(25);
    let expected = [
        Model {
            name: "tiny".into(),
            spec: ModelSpec::Gguf("/etc/tiny.gguf".into()),
            slots: 2,
            output_tokens_default: 99,
        },
        Model {
            name: "test".into(),
            spec: ModelSpec::Echo { delay },
            slots: 64,
            output_tokens_default: 1_024,
        },
    ];
    assert_eq!(config.served.models, expected);
}

#[test]
fn flags_win() {
    let file = r#"
        http = { listen = "0.0.0.0:80", cors_origins = ["https://a.example"] }
        limits.drain_deadline_ms = 5
        model = [{ name = "a", spec = "a.gguf" }, { name = "b", spec = "echo:" }]
    "#;
    let flags = Flags {
        listen: Some("localhost:0".into()),
        auth: Some(Auth::None),
        served: ServedFlags {
            models: vec!["b=echo:1".into(), "c=echo:".into()],
            slots: Some("9".into()),
            ..ServedFlags::default()
        },
        cors_origins: vec!["https://b.example".into()],
        drain_deadline: Some("2m".into()),
        data_dir: Some("/elsewhere".into()),
        ..Flags::default()
    };
    let config = of(file, flags).expect("a configuration");
    assert_eq!(config.http.listen, "127.0.0.1:0".parse().expect("an address"));
    assert_eq!(config.http.cors_origins, ["https://b.example"]);
    assert_eq!(config.limits.drain_deadline_ms, 120_000);
    assert_eq!(config.data_dir, PathBuf::from("/elsewhere"));
    let models: Vec<_> =
        config.served.models.iter().map(|model| (model.name.as_str(), model.slots)).collect();
    assert_eq!(models, [("a", 9), ("b", 9), ("c", 9)]);
    assert_eq!(config.served.models[1].spec, ModelSpec::Echo { delay: Span::from_ms(1) });
}

/// The error of `file` must have all these parts: place, key and value, problem, remedy.
#[track_caller]
fn check_file(file: &str, parts: &[&str]) {
    let error = of(file, with_model()).expect_err(file).to_string();
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

#[test]
fn files_are_refused_with_place_key_value_and_remedy() {
    for (file, parts) in [
        ("[http\n", &["/etc/box.toml:1:6: isn't TOML", "mend the file"][..]),
        ("[http]\nlisten = \"x\"\nlisten = \"y\"", &["/etc/box.toml:3:", "duplicate"]),
        (
            "[http]\n  lisen = \"x\"",
            &["/etc/box.toml:2:11: `http.lisen = \"x\"`", "did you mean `http.listen`?"],
        ),
        ("[htp]\n", &["`htp = ", "did you mean `http`?"]),
        ("queue_jobs_max = 5", &["/etc/box.toml:1:18", "did you mean `limits.queue_jobs_max`?"]),
        ("[log]\nzzz = 1", &["`log.zzz = 1`", "known here: format"]),
        ("http = 1", &["/etc/box.toml:1:8: `http = 1`", "wrong type (integer)", "a section: [http]"]),
        ("[http]\nlisten = 8080", &["`http.listen = 8080`", "a text in quotes"]),
        ("[http]\nlisten = \"localhost\"", &["`http.listen = \"localhost\"`", "`127.0.0.1:8080`"]),
        (
            "[http]\ncors_origins = [\"https://ok.example\", \"*\"]",
            &["2:39: `http.cors_origins = \"*\"`", "no `*`"],
        ),
        ("[http]\ncors_origins = [\"https://a.example/\"]", &["https://a.example/", "no path"]),
        ("[http]\ncors_origins = \"https://a.example\"", &["a list of texts"]),
        ("[http]\nauth = \"off\"", &["`http.auth = \"off\"`", "`key` or `none`"]),
        (
            "[http]\nlisten = \"0.0.0.0:1\"\nauth = \"none\"",
            &["2:10: `http.listen = \"0.0.0.0:1\"`", "without keys", "127.0.0.1"],
        ),
        ("[admin]\nlisten = \"0.0.0.0:9\"", &["`admin.listen = \"0.0.0.0:9\"`", "other machines", "tunnel"]),
        ("[admin]\nlisten = \"here\"", &["`admin.listen = \"here\"`", "unix:PATH"]),
        ("[admin]\nlisten = \"127.0.0.1:8080\"", &["inference listener's address too", "port of its own"]),
        ("[durability]\nmode = \"none\"", &["`durability.mode = \"none\"`", "`strict` or `relaxed`"]),
        ("[log]\nformat = \"xml\"", &["`log.format = \"xml\"`", "`human` or `json`"]),
        ("[executor]\nthreads = 0", &["`executor.threads = 0`", "too small", "from 1 to 1024"]),
        ("[executor]\nprefill_chunk = 99999", &["`executor.prefill_chunk = 99999`", "too large", "to 4096"]),
        ("[limits]\nattempts_max = -1", &["`limits.attempts_max = -1`", "whole number"]),
        ("[limits]\nattempts_max = 1.5", &["`limits.attempts_max = 1.5`", "wrong type (float)"]),
        (
            "[limits]\noutput_bytes_max = 500000000",
            &["`limits.output_bytes_max = 500000000`", "above `limits.output_budget_bytes`", "raise"],
        ),
        (
            "[limits]\nbody_bytes_max = 67108865",
            &["`limits.body_bytes_max = 67108865`", "is too large", "choose from 1024 to 67108864"],
        ),
        (
            "[limits]\noutput_budget_bytes = 8192",
            &["`limits.output_budget_bytes = 8192`", "below `limits.output_bytes_max`", "lower"],
        ),
        (
            "[[model]]\nname = \"x\"",
            &["/etc/box.toml:1:1: `model = [[model]]`", "no `spec`", "spec = \"...\""],
        ),
        ("[[model]]\nname = \"x\"\nspec = \"echo:\"\nslot = 1", &["`model.slot = 1`", "`model.slots`?"]),
        ("[[model]]\nname = \"a b\"\nspec = \"echo:\"", &["`model.name = \"a b\"`", "without spaces"]),
        ("[[model]]\nname = \"\"\nspec = \"echo:\"", &["`model.name = \"\"`", "1 to 200"]),
        (
            "[[model]]\nname = \"x\"\nspec = \"echo:\"\nslots = 70000",
            &["`model.slots = 70000`", "1 to 65536 (default 64)"],
        ),
        (
            "[[model]]\nname = \"x\"\nspec = \"x.gguf\"\nslots = 0",
            &["`model.slots = 0`", "1 to 1024 (default 4)"],
        ),
        ("[model]\nname = \"x\"", &["wrong type (table)", "[[model]]"]),
        (
            "model = [\n{ name = \"x\", spec = \"echo:\" },\n{ name = \"x\", spec = \"echo:\" } ]",
            &["3:10: `model.name = \"x\"`", "another model has this name"],
        ),
    ] {
        check_file(file, parts);
    }
}

#[test]
fn every_limit_refuses_zero_and_the_absurd_by_name() {
    for key in limits::KEYS {
        for (value, problem) in [(0, "too small"), (i64::MAX, "too large")] {
            check_file(
                &format!("[limits]\n{key} = {value}"),
                &[&format!("`limits.{key} = {value}`"), problem, "default"],
            );
        }
    }
}

#[test]
fn flags_are_refused_with_flag_value_and_remedy() {
    let none = Flags::default;
    for (flags, parts) in [
        (none(), &["no model is given", "--model NAME=PATH.gguf"][..]),
        (serving(&["tiny.gguf"]), &["`--model tiny.gguf`", "no name", "NAME=PATH.gguf"]),
        (serving(&["=echo:"]), &["`--model =echo:`", "isn't a name", "1 to 200"]),
        (serving(&["x=weights.bin"]), &["`--model x=weights.bin`", "PATH.gguf", "echo:[MS]"]),
        (serving(&["x=echo:soon"]), &["`--model x=echo:soon`", "`echo:MS`"]),
        (serving(&["x=echo:99999999"]), &["`--model x=echo:99999999`", "3600000"]),
        (serving(&["x=echo:", "x=echo:1"]), &["`--model x=echo:1`", "another model"]),
        (Flags { listen: Some("8080".into()), ..with_model() }, &["`--listen 8080`", "IP:PORT"]),
        (
            Flags { listen: Some("0.0.0.0:1".into()), auth: Some(Auth::None), ..with_model() },
            &["`--listen 0.0.0.0:1`", "without keys", "--no-auth"],
        ),
        (
            Flags { threads: Some("many".into()), ..with_model() },
            &["`--threads many`", "whole number", "--threads 4"],
        ),
        (Flags { threads: Some("0".into()), ..with_model() }, &["`--threads 0`", "too small"]),
        (with_slots("0", with_model()), &["`--slots 0`", "from 1 to 1024"]),
        (Flags { drain_deadline: Some("30".into()), ..with_model() }, &["`--drain-deadline 30`", "30s"]),
        (
            Flags { drain_deadline: Some("0s".into()), ..with_model() },
            &["`--drain-deadline 0s`", "too small"],
        ),
        (
            Flags { durability: Some("lax".into()), ..with_model() },
            &["`--durability lax`", "`strict` or `relaxed`"],
        ),
        (
            Flags { admin_listen: Some(format!("unix:/{}", "x".repeat(200))), ..with_model() },
            &["--admin-listen unix:/xxx", "107 bytes"],
        ),
        (
            Flags { cors_origins: vec!["chat.example".into()], ..with_model() },
            &["`--cors-origin chat.example`", "scheme"],
        ),
    ] {
        let error = Config::resolve(None, flags, Some("/d".into())).expect_err("a refusal").to_string();
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {error:?}");
        }
    }
}

fn upstream(urls: &[&str], key_env: Option<&str>) -> ServedFlags {
    let upstreams = urls.iter().map(|url| (*url).to_owned()).collect();
    ServedFlags { upstreams, upstream_key_env: key_env.map(str::to_owned), ..ServedFlags::default() }
}

fn server(url: &str, key_env: Option<&str>) -> UpstreamServer {
    UpstreamServer { url: BaseUrl::parse(url).expect(url), key_env: key_env.map(str::to_owned) }
}

#[test]
fn other_servers_are_named_whole_or_model_by_model() {
    let file = r#"
        [[model]]
        name = "big"
        spec = "openai:http://10.0.0.5:8000#org/Big-8B"
        key_env = "BIG_KEY"
        slots = 32
        [[upstream]]
        url = "http://127.0.0.1:11434/v1"
        key_env = "OLLAMA_KEY"
        [[upstream]]
        url = "https://llm.example/api"
        slots = 2
        output_tokens_default = 9
    "#;
    let flags = ServedFlags {
        models: vec!["tiny=openai:http://127.0.0.1:8080".into()],
        ..upstream(&["http://127.0.0.1:11434/v1"], None)
    };
    let served = of(file, Flags { served: flags, ..Flags::default() }).expect("a configuration").served;
    let spec = |url, key_env, name_there: Option<&str>| ModelSpec::Upstream {
        server: server(url, key_env),
        name_there: name_there.map(str::to_owned),
    };
    let specs: Vec<_> =
        served.models.iter().map(|model| (model.name.as_str(), model.spec.clone(), model.slots)).collect();
    let big = spec("http://10.0.0.5:8000", Some("BIG_KEY"), Some("org/Big-8B"));
    let tiny = spec("http://127.0.0.1:8080", None, None);
    assert_eq!(specs, [("big", big, 32), ("tiny", tiny, 16)]);
    let whole: Vec<_> = served
        .upstreams
        .iter()
        .map(|upstream| (upstream.server.clone(), upstream.slots, upstream.output_tokens_default))
        .collect();
    // The flag's replaces the file's, its key included.
    let expected = [
        (server("https://llm.example/api", None), 2, 9),
        (server("http://127.0.0.1:11434", None), 16, 4_096),
    ];
    assert_eq!(whole, expected);
}

#[test]
fn a_key_goes_to_the_one_server_that_the_flags_name() {
    let with = |mut flags: ServedFlags, models: &[&str]| {
        flags.models = models.iter().map(|model| (*model).to_owned()).collect();
        served(flags)
    };
    let one =
        with(upstream(&["http://h"], Some("KEY")), &["x=echo:", "y=openai:http://h/v1"]).expect("one server");
    assert_eq!(one.upstreams[0].server, server("http://h", Some("KEY")));
    let ModelSpec::Upstream { server: of_model, .. } = &one.models[1].spec else { panic!("{one:?}") };
    assert_eq!(*of_model, server("http://h", Some("KEY")));
    for (flags, models, part) in [
        (upstream(&["http://h", "http://i"], Some("KEY")), &[][..], "any of several servers"),
        (upstream(&["http://h"], Some("KEY")), &["y=openai:http://i"], "any of several servers"),
        (upstream(&[], Some("KEY")), &["x=echo:"], "key of no server"),
        (upstream(&["http://h"], Some("sk-secret!")), &[], "never the key itself"),
    ] {
        let error = with(flags, models).expect_err("a refusal").to_string();
        assert!(error.contains("--upstream-key-env") && error.contains(part), "{error}");
        assert!(!error.contains("sk-secret"), "{error}");
    }
}

#[test]
fn servers_are_refused_without_repeating_a_secret() {
    let flagged = |served| Flags { served, ..Flags::default() };
    for (flags, parts) in [
        (
            flagged(upstream(&["localhost:8000"], None)),
            &["`--upstream ...`", "http://", "write http://HOST:PORT"][..],
        ),
        (flagged(upstream(&["http://me:secret@h"], None)), &["a user or a password", "--upstream-key-env"]),
        (flagged(upstream(&["http://h", "http://h/v1/"], None)), &["named twice"]),
        (serving(&["x=openai:h"]), &["`--model ...`", "doesn't begin with http"]),
        (serving(&["x=openai:http://h#"]), &["names no model"]),
        (serving(&["x=http://h"]), &["`openai:` before the URL"]),
        (with_slots("5000", flagged(upstream(&["http://h"], None))), &["`--slots 5000`", "from 1 to 4096"]),
    ] {
        let error = Config::resolve(None, flags, Some("/d".into())).expect_err("a refusal").to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && !error.contains("secret"), "{error}");
    }
    check_file("[[upstream]]\nslots = 1", &["no `url`", "url = \"http://HOST:PORT\""]);
    check_file(
        "[[model]]\nname = \"x\"\nspec = \"echo:\"\nkey_env = \"K\"",
        &["`model.key_env = \"K\"`", "models of other servers only"],
    );
}

#[test]
fn without_a_home_the_data_directory_must_be_named() {
    let error = Config::resolve(None, with_model(), None).expect_err("nowhere").to_string();
    assert!(error.contains("--data-dir"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let sources = Sources { file: Some("/nowhere/box.toml".into()), ..Sources::default() };
    let error = Config::load(sources).expect_err("no file").to_string();
    assert!(error.contains("/nowhere/box.toml") && error.contains("--config"), "{error}");
}
