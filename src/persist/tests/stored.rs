//! Rows through a real store: what is loaded and looked up after a reopening is what was committed.

use switchbox_storage::{Committer, Group, JournalOptions, Store, StoreOptions, Urgency};

use super::*;
use crate::coordinator::job::JobState;
use crate::persist::{Loader, RowCodec, read_answer, read_job};

struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchbox-persist-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> (Store, Vec<Row>) {
        let journal = JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() };
        let options = StoreOptions { journal, audit: |_, _| 0, ..StoreOptions::default() };
        let mut last = None;
        let mut loader = Loader::new(|loaded| last = Some(loaded));
        let (store, _) = Store::open_and_load(&self.0, options, |load| loader.take(load)).expect("it opens");
        let rows = loader.finish(&store).expect("its rows are read");
        let live = rows.iter().filter(|row| matches!(row, Row::Job(job) if job.state.is_live())).count();
        let last = last.expect("a last report");
        assert_eq!((last.live_jobs, last.bodies_lost), (live as u64, 0));
        (store, rows)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn commit(store: &Store, steps: Vec<Vec<(RowKey, Option<RowValue>)>>) {
    let committer =
        Committer::start_durable(store.clone(), RowCodec, Default::default(), |_| {}).expect("a thread");
    let first = store.durable_lsn() + 1;
    for (lsn, changes) in (first..).zip(steps) {
        committer.append(Group { lsn, at: 0, changes }, Urgency::Lazy);
    }
    // Dropping it commits everything.
}

fn step(rows: &[Row]) -> Vec<(RowKey, Option<RowValue>)> {
    let mut changes = Vec::new();
    rows.iter().for_each(|row| changes_of(row.clone(), &mut changes));
    changes
}

/// What recovery is to find: of a job that has ended only its body's length counts.
fn expected(row: &Row) -> String {
    match row {
        Row::Job(job) if !job.state.is_live() => {
            let body = job.body.as_ref().map(|body| vec![0; body.len()].into());
            text(&Row::Job(Box::new(JobRow { body, ..(**job).clone() })))
        }
        row => text(row),
    }
}

#[test]
fn what_was_committed_is_loaded_and_looked_up() {
    let dir = Dir::new("rows");
    let mut source = Source::new(11);
    let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
    let mut steps = Vec::new();
    for n in 0..120 {
        let mut kept = records(&mut source);
        // As the core writes it first, with its body; some change later.
        let mut row =
            JobRow { trace: Default::default(), body: Some(vec![n; 700].into()), ..job(&mut source) };
        if n % 3 == 0 {
            row.state = JobState::Queued;
        }
        if !crate::persist::job::body_is_due(&row) {
            row.body = None;
        }
        kept.push(Row::Job(Box::new(row.clone())));
        steps.push(step(&kept));
        if n % 3 == 0 {
            row.trace = job(&mut source).trace;
            row.state = if n % 2 == 0 { JobState::Succeeded } else { JobState::Running };
            if row.state == JobState::Succeeded && n % 4 == 0
                || !crate::persist::job::body_is_kept_alive(&row)
            {
                row.body = None;
            }
            kept.push(Row::Job(Box::new(row.clone())));
            steps.push(step(&kept[kept.len() - 1..]));
        }
        rows.extend(kept.into_iter().filter_map(|row| Some((key_of(&row)?, row))));
        if n % 10 == 9 {
            steps.push(step(&[Row::JobForgotten(row.id)]));
            rows.remove(&RowKey::Job(row.id));
            rows.remove(&RowKey::Settlement(row.id));
            rows.remove(&RowKey::Feedback(row.id));
            rows.remove(&RowKey::Proof(row.id));
        }
    }
    let answered = crate::ids::JobId { epoch: 9, counter: 9 };
    let chunks = ["an ", "answer"].map(|text| crate::output::Chunk::text(text, 1));
    steps.push(vec![(RowKey::Answer(answered), Some(RowValue::Answer(chunks.into())))]);
    commit(&dir.open().0, steps);

    let (store, loaded) = dir.open();
    let found: BTreeMap<RowKey, String> =
        loaded.iter().map(|row| (key_of(row).expect("kept"), text(row))).collect();
    assert_eq!(found.len(), loaded.len(), "every row once");
    let only_looked_up = |key: &RowKey| matches!(key, RowKey::Feedback(_) | RowKey::Proof(_));
    let wanted: BTreeMap<RowKey, String> = rows
        .iter()
        .filter(|(key, _)| !only_looked_up(key))
        .map(|(key, row)| (key.clone(), expected(row)))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (key, row) in &wanted {
        assert_eq!(&found[key], row);
    }
    for row in rows.values() {
        if let Row::Job(job) = row {
            let read = read_job(&store, job.id).expect("it is read").expect("it is there");
            assert_eq!(format!("{read:?}"), format!("{job:?}"));
        }
    }
    let answer = read_answer(&store, answered).expect("it is read").expect("it is there");
    assert_eq!(answer.pieces().collect::<Vec<_>>(), [(crate::output::ChunkKind::Text, "an answer")]);
    assert_eq!(read_job(&store, answered).expect("no error").map(|row| row.id), None);
}
