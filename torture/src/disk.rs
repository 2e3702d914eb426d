//! A disk that loses power: what a recorded box wrote, as it is in memory and as it may be on disk.
//!
//! Only a sync makes anything stay. Until then each 512-byte sector of a file may be as it was at the last sync or as
//! any write since left it, a file may have any length that it had since, and each name that was made, changed or
//! removed may or may not have been: more than one real file system could lose, and nothing that it couldn't.
//!
//! A sync that was made to fail leaves *doubtful* sectors: the kernel takes them for written and never writes them
//! again, and nobody knows what is on disk. Only writing them once more, and syncing, ends the doubt.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::choices::Choices;
use crate::recording::Record;
use file::{File, Piece};

/// A file or a directory; the root is 0.
type Node = usize;

/// How names of the journal's segments end.
const SEGMENT: &str = ".segment";

/// Where its log has brought a disk.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: Vec<Kind>,
    /// Which node an inode is now: a number is used again after its file went.
    inodes: BTreeMap<u64, Node>,
    /// Changes of names that no sync has made stay, in order.
    names: Vec<Change>,
    /// Syncs that have begun: of what, and how far it had come.
    syncs: BTreeMap<u64, (Node, u64)>,
    /// Numbers writes and changes of names.
    clock: u64,
    /// Segments of the journal that nothing needed any more, and those that became others.
    retired: BTreeSet<Node>,
    reused: BTreeSet<Node>,
}

/// What a cut did to segments of the journal that had been used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// One of them lost some of what wasn't synced, and kept some.
    pub torn_reused: bool,
    /// One of them lost something that wasn't synced.
    pub lost_in_reused: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    File(File),
    Directory(Directory),
}

/// Names as they are, and as they are on disk.
#[derive(Debug, Clone, Default)]
struct Directory {
    now: BTreeMap<String, Node>,
    kept: BTreeMap<String, Node>,
}

/// A change of names.
#[derive(Debug, Clone)]
struct Change {
    at: u64,
    /// The directory and name that it takes away, if it does.
    from: Option<(Node, String)>,
    /// The directory and name that it gives.
    to: Option<(Node, String)>,
    /// What is named.
    node: Node,
}

/// How much of what isn't synced a cut keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mood {
    /// Sectors and lengths, in a thousand.
    bytes: u32,
    /// Names, in a thousand.
    names: u32,
    order: Order,
}

/// Which changes of names a cut keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// All up to one, as a journaling file system does.
    Prefix,
    /// Any.
    Any,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            nodes: vec![Kind::Directory(Directory::default())],
            inodes: BTreeMap::new(),
            names: Vec::new(),
            syncs: BTreeMap::new(),
            clock: 0,
            retired: BTreeSet::new(),
            reused: BTreeSet::new(),
        }
    }

    /// One on which everything in a directory is kept, as it is: what a recording begins with.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let mut disk = Self::new();
        disk.take(dir, 0)?;
        Ok(disk)
    }

    fn take(&mut self, dir: &Path, into: Node) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let node = self.nodes.len();
            self.inodes.insert(entry.metadata()?.ino(), node);
            if entry.file_type()?.is_dir() {
                self.nodes.push(Kind::Directory(Directory::default()));
                self.take(&entry.path(), node)?;
            } else {
                let bytes = std::fs::read(entry.path())?;
                self.nodes.push(Kind::File(File::kept(bytes)));
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(directory) = self.directory(into) {
                directory.now.insert(name.clone(), node);
                directory.kept.insert(name, node);
            }
        }
        Ok(())
    }

    fn directory(&mut self, node: Node) -> Option<&mut Directory> {
        match self.nodes.get_mut(node) {
            Some(Kind::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn file(&mut self, inode: u64) -> Option<&mut File> {
        match self.inodes.get(&inode).and_then(|node| self.nodes.get_mut(*node)) {
            Some(Kind::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The directory that a name is in, and the name in it.
    fn place(&self, name: &str) -> Option<(Node, String)> {
        let mut node = 0;
        let (parents, last) = name.rsplit_once('/').unwrap_or(("", name));
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            let Kind::Directory(directory) = self.nodes.get(node)? else { return None };
            node = *directory.now.get(part)?;
        }
        Some((node, last.to_owned()))
    }

    /// Does what a record says.
    ///
    /// # Errors
    /// When the record speaks of what isn't there: then something wasn't recorded.
    pub fn apply(&mut self, record: &Record) -> Result<(), String> {
        self.clock += 1;
        self.done(record).ok_or_else(|| {
            let text: String = format!("{record:?}").chars().take(120).collect();
            format!("the log doesn't fit together: {text}")
        })
    }

    fn done(&mut self, record: &Record) -> Option<()> {
        let clock = self.clock;
        match record {
            Record::FileMade { inode, name } => self.made(*inode, name, Kind::File(File::default())),
            Record::DirectoryMade { inode, name } => {
                self.made(*inode, name, Kind::Directory(Directory::default()))
            }
            Record::Length { inode, length } => {
                self.file(*inode)?.set_length(clock, *length as usize);
                Some(())
            }
            Record::Written { inode, offset, bytes } => {
                self.file(*inode)?.write(clock, *offset as usize, bytes);
                Some(())
            }
            Record::Zeros { inode, offset, length } => {
                self.file(*inode)?.write(clock, *offset as usize, &vec![0; *length as usize]);
                Some(())
            }
            Record::SyncBegins { token, inode } => {
                // The root was there before the recording.
                let node = self.inodes.get(inode).copied().unwrap_or(0);
                self.syncs.insert(*token, (node, clock));
                Some(())
            }
            Record::Synced { token } => self.synced(*token),
            Record::SyncFailed { token } => self.sync_failed(*token),
            Record::Renamed { from, to } => {
                let (from, to) = (self.place(from)?, self.place(to)?);
                let node = self.directory(from.0)?.now.remove(&from.1)?;
                self.directory(to.0)?.now.insert(to.1.clone(), node);
                if from.1.ends_with(SEGMENT) {
                    self.retired.insert(node);
                } else if to.1.ends_with(SEGMENT) && self.retired.contains(&node) {
                    self.reused.insert(node);
                }
                self.names.push(Change { at: clock, from: Some(from), to: Some(to), node });
                Some(())
            }
            Record::Removed { name } => {
                let from = self.place(name)?;
                let node = self.directory(from.0)?.now.remove(&from.1)?;
                self.names.push(Change { at: clock, from: Some(from), to: None, node });
                Some(())
            }
        }
    }

    fn made(&mut self, inode: u64, name: &str, kind: Kind) -> Option<()> {
        let node = self.nodes.len();
        let place = self.place(name)?;
        self.nodes.push(kind);
        self.inodes.insert(inode, node);
        self.directory(place.0)?.now.insert(place.1.clone(), node);
        self.names.push(Change { at: self.clock, from: None, to: Some(place), node });
        Some(())
    }

    fn synced(&mut self, token: u64) -> Option<()> {
        let (node, begun) = self.syncs.remove(&token)?;
        match self.nodes.get_mut(node)? {
            Kind::File(file) => file.keep(begun),
            Kind::Directory(_) => {
                let touches =
                    |place: &Option<(Node, String)>| place.as_ref().is_some_and(|(of, _)| *of == node);
                let names = std::mem::take(&mut self.names);
                let (stay, wait): (Vec<_>, Vec<_>) = names
                    .into_iter()
                    .partition(|change| change.at <= begun && (touches(&change.from) || touches(&change.to)));
                self.names = wait;
                for Change { from, to, node, .. } in stay {
                    if let Some((directory, name)) = from {
                        self.directory(directory)?.kept.remove(&name);
                    }
                    if let Some((directory, name)) = to {
                        self.directory(directory)?.kept.insert(name, node);
                    }
                }
            }
        }
        Some(())
    }

    fn sync_failed(&mut self, token: u64) -> Option<()> {
        let (node, begun) = self.syncs.remove(&token)?;
        if let Kind::File(file) = self.nodes.get_mut(node)? {
            file.doubt(begun);
        }
        Some(())
    }

    /// Writes what may be on the disk if the power goes now.
    ///
    /// # Errors
    /// What the system says.
    pub fn cut(&self, choices: &mut Choices, target: &Path) -> io::Result<Cut> {
        let mood = Mood::of(choices);
        let mut cut = Cut::default();
        let mut names: BTreeMap<Node, BTreeMap<String, Node>> = BTreeMap::new();
        for (node, kind) in self.nodes.iter().enumerate() {
            if let Kind::Directory(directory) = kind {
                names.insert(node, directory.kept.clone());
            }
        }
        let prefix = choices.below(self.names.len() + 1);
        for (number, change) in self.names.iter().enumerate() {
            let keeps = match mood.order {
                Order::Prefix => number < prefix,
                Order::Any => choices.in_thousand(mood.names),
            };
            if keeps {
                change.apply(&mut names);
            }
        }
        let written = self.write(0, target, &names, &mut |node, file| {
            let Piece { bytes, kept, lost } = file.cut(mood.bytes, choices);
            if self.reused.contains(&node) {
                cut.torn_reused |= kept > 0 && lost > 0;
                cut.lost_in_reused |= lost > 0;
            }
            bytes
        });
        written.map(|()| cut)
    }

    /// Writes what a kill would leave: everything.
    ///
    /// # Errors
    /// What the system says.
    pub fn whole(&self, target: &Path) -> io::Result<()> {
        let mut names = BTreeMap::new();
        for (node, kind) in self.nodes.iter().enumerate() {
            if let Kind::Directory(directory) = kind {
                names.insert(node, directory.now.clone());
            }
        }
        self.write(0, target, &names, &mut |_, file| file.now().to_vec())
    }

    fn write(
        &self,
        node: Node,
        target: &Path,
        names: &BTreeMap<Node, BTreeMap<String, Node>>,
        content: &mut dyn FnMut(Node, &File) -> Vec<u8>,
    ) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(target)?;
        for (name, node) in names.get(&node).into_iter().flatten() {
            let path = target.join(name);
            match &self.nodes[*node] {
                Kind::Directory(_) => self.write(*node, &path, names, content)?,
                Kind::File(file) => write_private(&path, &content(*node, file))?,
            }
        }
        Ok(())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

impl Mood {
    fn of(choices: &mut Choices) -> Self {
        Self {
            bytes: *choices.one_of(&[0, 50, 300, 500, 700, 950, 1000]),
            names: *choices.one_of(&[0, 200, 500, 800, 1000]),
            order: *choices.one_of(&[Order::Prefix, Order::Any]),
        }
    }
}

impl Change {
    /// Applies it where what it rests on is there.
    fn apply(&self, names: &mut BTreeMap<Node, BTreeMap<String, Node>>) {
        if let Some((directory, name)) = &self.from {
            let entries = names.entry(*directory).or_default();
            if entries.get(name) != Some(&self.node) {
                return;
            }
            entries.remove(name);
        }
        if let Some((directory, name)) = &self.to {
            names.entry(*directory).or_default().insert(name.clone(), self.node);
        }
    }
}
