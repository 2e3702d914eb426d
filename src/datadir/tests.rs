//! Permissions, the lock, links, and what files hold.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("switchbox-datadir-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// The error must say all of this.
#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, DataDirError>, parts: &[&str]) {
    let error = result.expect_err("a refusal").to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

#[test]
fn a_new_directory_is_private_and_so_are_its_files() {
    let scratch = Scratch::new();
    let path = scratch.path("new/deep/box");
    let data = DataDir::open(&path).expect("a new directory");
    data.first_key().expect("a key");
    data.pepper().expect("a pepper");
    data.new_admin_token().expect("a token");
    data.publish_listen_addr("http://127.0.0.1:1").expect("written");
    data.publish_admin_addr("unix:/run/x").expect("written");
    assert_eq!(mode(&path), 0o700);
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&path).expect("readable") {
        let entry = entry.expect("an entry");
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().expect("a name"));
    }
    names.sort();
    let expected =
        ["admin.addr", "admin.token", "api.key", "key.pepper", "listen.addr", "lock", "secrets.sums"];
    assert_eq!(names, expected);
    drop(data);
    assert!(!path.join("listen.addr").exists() && !path.join("admin.addr").exists());
}

#[test]
fn one_process_at_a_time() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let first = DataDir::open(&path).expect("free");
    let pid = format!("pid {}", std::process::id());
    check(DataDir::open(&path), &["in use by another switchbox process", &pid, "--data-dir"]);
    // The refused one took nothing away.
    first.publish_listen_addr("http://127.0.0.1:1").expect("written");
    check(DataDir::open(&path), &["in use"]);
    assert!(path.join("listen.addr").exists());
    drop(first);
    DataDir::open(&path).expect("free again");
}

#[test]
fn secrets_stay_over_starts_and_the_admin_token_does_not() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let start = || {
        let data = DataDir::open(&path).expect("free");
        let key = data.first_key().expect("a key");
        let pepper = *data.pepper().expect("a pepper").bytes();
        (key, pepper, data.new_admin_token().expect("a token").text().to_owned())
    };
    let (FirstKey::Created(key), pepper, token) = start() else { panic!("the first start makes a key") };
    let (FirstKey::Kept(kept), pepper_again, token_again) = start() else { panic!("the second keeps it") };
    assert_eq!((key.text(), pepper), (kept.text(), pepper_again));
    assert_ne!(token, token_again);
    let published = Published::at(&path).expect("it is there");
    assert_eq!(published.api_key().expect("readable").expect("a key").text(), key.text());
    assert_eq!(published.admin_token().expect("readable").text(), token_again);
    check(published.listen_addr(), &["listen.addr", "no box is running", "switchbox serve"]);
}

#[test]
fn a_secret_that_is_not_what_was_written_is_refused_by_name() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let start = || {
        let data = DataDir::open(&path).expect("free");
        let rest = data.first_key().and_then(|_| data.pepper()).and_then(|_| data.boot_secret());
        rest.and_then(|secret| Ok((secret, *data.box_seed()?)))
    };
    let secret = start().expect("a new directory");
    for name in ["api.key", "key.pepper", "boot.secret", "box.key"] {
        let file = path.join(name);
        let whole = fs::read(&file).expect("there");
        for at in 0..whole.len() {
            let mut harmed = whole.clone();
            harmed[at] ^= 1;
            fs::write(&file, harmed).expect("written");
            check(start(), &[name]);
            assert!(!Quiet::hold(&path).expect("no box has it").refusals().is_empty(), "{name} {at}");
            fs::write(&file, &whole[..at]).expect("written");
            check(start(), &[name]);
        }
        fs::write(&file, &whole).expect("written");
        assert_eq!(start().expect("as it was"), secret);
    }
}

#[test]
fn the_secrets_checksums_are_made_where_they_lack_and_with_a_new_secret() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let secret = || DataDir::open(&path).and_then(|data| data.boot_secret());
    let (sums, file) = (path.join("secrets.sums"), path.join("boot.secret"));
    let first = secret().expect("a new directory");
    let written = fs::read(&sums).expect("there");
    fs::remove_file(&sums).expect("removed");
    assert_eq!(secret().expect("an older directory"), first);
    assert_eq!(fs::read(&sums).expect("there"), written);
    fs::write(&sums, &written[..20]).expect("written");
    assert_eq!(secret().expect("they say nothing"), first);
    assert_eq!(fs::read(&sums).expect("there"), written);
    fs::remove_file(&file).expect("removed");
    let second = secret().expect("another one");
    assert_eq!((first == second, secret().expect("kept")), (false, second));
    fs::write(&file, [7; 32]).expect("written");
    check(secret(), &["boot.secret", "isn't what was written", "backup", "secrets.sums"]);
    fs::remove_file(&sums).expect("removed");
    assert_eq!(secret().expect("it is meant"), [7; 32]);
}

#[test]
fn keys_have_one_form_and_no_debug() {
    let key = ApiKey::random().expect("random bytes");
    let text = key.text();
    assert_eq!((text.len(), key.id().len(), key.secret().len()), (55, 8, 43));
    assert_eq!(text, format!("sk-{}.{}", key.id(), key.secret()));
    assert_ne!(text, ApiKey::random().expect("random bytes").text());
    assert!(!format!("{key:?}").contains(key.secret()));
    assert_eq!(format!("{:?}", AdminToken::random().expect("random bytes")), "AdminToken(redacted)");
    assert_eq!(format!("{:?}", Pepper::random().expect("random bytes")), "Pepper(redacted)");
    assert!(ApiKey::parse(format!(" {text}\n").as_bytes()).is_some());
    for bad in [
        "",
        "sk-",
        &text[1..],
        &text[..54],
        &format!("{text}x"),
        &text.replace('.', "-"),
        &text.replace("sk-", "pk-"),
    ] {
        assert!(ApiKey::parse(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn permissions_are_tightened_where_it_is_ours_and_refused_where_it_may_not_be() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    fs::create_dir(&path).expect("made");
    chmod(&path, 0o755);
    drop(DataDir::open(&path).expect("an empty directory becomes ours"));
    assert_eq!(mode(&path), 0o700);
    chmod(&path, 0o750);
    drop(DataDir::open(&path).expect("ours, by its lock"));
    assert_eq!(mode(&path), 0o700);

    let home = scratch.path("home");
    fs::create_dir(&home).expect("made");
    fs::write(home.join("letter"), "dear").expect("written");
    chmod(&home, 0o755);
    check(DataDir::open(&home), &["home", "0755", "other files", "chmod 700", "--data-dir"]);
    assert_eq!(mode(&home), 0o755);
}

#[test]
fn a_key_that_others_may_read_is_tightened_by_the_box_and_refused_by_clients() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let data = DataDir::open(&path).expect("free");
    data.first_key().expect("a key");
    let key = path.join("api.key");
    chmod(&key, 0o644);
    check(Published::at(&path).expect("there").api_key(), &["api.key", "0644", "chmod 600"]);
    data.first_key().expect("the same key");
    assert_eq!(mode(&key), 0o600);
}

#[test]
fn links_pipes_and_nonsense_are_refused_by_name() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    let data = DataDir::open(&path).expect("free");
    let target = scratch.path("target");
    fs::write(&target, "secret").expect("written");
    symlink(&target, path.join("api.key")).expect("linked");
    check(data.first_key(), &["api.key", "is a link"]);
    fs::remove_file(path.join("api.key")).expect("removed");
    fs::create_dir(path.join("api.key")).expect("made");
    check(data.first_key(), &["api.key", "isn't a regular file"]);
    fs::remove_dir(path.join("api.key")).expect("removed");
    data.first_key().expect("a key");
    for (text, part) in
        [("", "no API key"), ("sk-x", "no API key"), (&*"x".repeat(5_000), "longer than 4096")]
    {
        fs::write(path.join("api.key"), text).expect("written");
        check(data.first_key(), &["api.key", part]);
    }
    data.pepper().expect("a pepper");
    fs::write(path.join("key.pepper"), "short").expect("written");
    check(data.pepper(), &["key.pepper", "5 bytes instead of 32", "delete it"]);
    // A file that is written replaces a link instead of following it.
    symlink(&target, path.join("listen.addr")).expect("linked");
    data.publish_listen_addr("http://127.0.0.1:1").expect("written");
    assert_eq!(fs::read_to_string(&target).expect("readable"), "secret");
    drop(data);
    fs::remove_file(path.join("lock")).expect("removed");
    symlink(&target, path.join("lock")).expect("linked");
    check(DataDir::open(&path), &["lock", "is a link"]);
}

#[test]
fn what_a_killed_process_left_is_no_obstacle() {
    let scratch = Scratch::new();
    let path = scratch.path("box");
    drop(DataDir::open(&path).expect("free"));
    for name in [".api.key.new", ".admin.token.new", "listen.addr"] {
        fs::write(path.join(name), "half").expect("written");
    }
    let data = DataDir::open(&path).expect("free");
    assert!(!path.join("listen.addr").exists());
    data.first_key().expect("a key");
    data.new_admin_token().expect("a token");
    assert!(!path.join(".api.key.new").exists());
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    fs::write(&file, "").expect("written");
    check(DataDir::open(&file), &["file", "--data-dir"]);
    check(DataDir::open(&file.join("box")), &["file/box", "--data-dir"]);
    check(Published::at(&scratch.path("nowhere")), &["nowhere", "--data-dir"]);
}
