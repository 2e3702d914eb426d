//! Where a box's inference listener is, and the API key that opens it. A key of the data directory is sent to this machine
//! only.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::client::{Address, Client};
use super::{CliError, DataDirArg};
use crate::datadir::Published;

const KEY_VARIABLE: &str = "SWITCHBOX_API_KEY";
/// Bytes of a key's file.
const KEY_FILE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Args)]
pub(super) struct DoorArgs {
    /// The box [default: the one that runs on the data directory]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl DoorArgs {
    /// Whether it is said at all which box, or which key.
    pub(super) fn is_stated(&self) -> bool {
        self.url.is_some() || self.key_file.is_some()
    }

    /// A client of that box.
    pub(super) fn open(&self, data_dir: &DataDirArg) -> Result<Client, CliError> {
        let address = match &self.url {
            Some(url) => Address::parse(url)?,
            None => Address::parse(&Published::at(&data_dir.path()?)?.listen_addr()?)?,
        };
        let key = self.key(data_dir, &address)?;
        Ok(Client::new(address, key.as_deref().map(String::as_str))?)
    }

    fn key(&self, data_dir: &DataDirArg, address: &Address) -> Result<Option<Zeroizing<String>>, CliError> {
        if let Some(file) = &self.key_file {
            return key_of_file(file).map(Some);
        }
        if let Some(key) = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.trim().is_empty()) {
            let key = Zeroizing::new(key);
            return Ok(Some(Zeroizing::new(key.trim().to_owned())));
        }
        let key = match data_dir.path().and_then(|path| Ok(Published::at(&path)?)) {
            Ok(published) if address.is_local() => published.api_key()?,
            _ => None,
        };
        Ok(key.map(|key| Zeroizing::new(key.text().to_owned())))
    }
}

fn key_of_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let failed = |problem: String| {
        CliError::Usage(format!(
            "can't read a key from `{}`: {problem}; name a file that holds one",
            path.display()
        ))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    match text.trim() {
        "" => Err(failed("it is empty".into())),
        _ if text.len() as u64 > KEY_FILE_BYTES_MAX => {
            Err(failed(format!("it is longer than {KEY_FILE_BYTES_MAX} bytes")))
        }
        key => Ok(Zeroizing::new(key.to_owned())),
    }
}
