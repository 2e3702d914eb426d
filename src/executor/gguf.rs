//! Reads the directory of a GGUF file (versions 2 and 3, little endian): its metadata and where its tensors
//! lie. The bytes come from anyone: nothing here trusts a number in them, panics on them, or allocates more
//! than in proportion to them. Knows no architecture.

mod reader;

use std::collections::BTreeMap;
use std::ops::Range;

use switchbox_kernels::WeightType;

use self::reader::Reader;
use super::error::Fault;

/// Most metadata fields that are read; real files have below 100.
pub const FIELDS_MAX: u64 = 16_384;
/// Most tensors that are read; real files have below 2,000.
pub const TENSORS_MAX: u64 = 65_536;
/// Longest name of a field or tensor, in bytes (the format's own limit is 65,535).
pub const NAME_BYTES_MAX: u64 = 1_024;

const ALIGNMENT_DEFAULT: u64 = 32;
/// Smallest header of a field or tensor: what bounds their counts by the file's length.
const ENTRY_BYTES_MIN: u64 = 12;

/// What a metadata value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// Unsigned, 8 bit.
    U8,
    /// Signed, 8 bit.
    I8,
    /// Unsigned, 16 bit.
    U16,
    /// Signed, 16 bit.
    I16,
    /// Unsigned, 32 bit.
    U32,
    /// Signed, 32 bit.
    I32,
    /// Float, 32 bit.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// UTF-8 with a 64-bit length.
    String,
    /// Several of one type.
    Array,
    /// Unsigned, 64 bit.
    U64,
    /// Signed, 64 bit.
    I64,
    /// Float, 64 bit.
    F64,
}

/// A metadata value. Strings and arrays stay in the file; a range says where.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(TruthValue),
    /// UTF-8, checked.
    String(Range<usize>),
    /// `count` values of `kind` in the bytes of `payload` (strings with their lengths before them).
    Array {
        /// Of what.
        kind: ValueType,
        /// How many.
        count: usize,
        /// Where.
        payload: Range<usize>,
    },
}

/// A boolean of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TruthValue {
    /// 0.
    False,
    /// 1.
    True,
}

/// A metadata field: its value, and its whole entry (name, type, value) as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The value.
    pub value: Value,
    /// The bytes of the entry.
    pub entry: Range<usize>,
}

/// Where a tensor lies. `dims` in the file's order: the row length first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// How its weights are stored.
    pub kind: WeightType,
    /// Row length, then rows, then more.
    pub dims: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

/// The directory of a file. Ranges refer to the bytes it was parsed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Directory {
    /// 2 or 3.
    pub version: u32,
    /// By name.
    pub fields: BTreeMap<String, Field>,
    /// By name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Directory {
    /// Reads the directory of `file`, the whole file's bytes.
    ///
    /// # Errors
    /// A [`Fault`] that names the first field or tensor that is wrong, or is of a type not built in.
    pub fn parse(file: &[u8]) -> Result<Directory, Fault> {
        let mut reader = Reader::new(file);
        let version = reader.magic_and_version()?;
        let tensor_count = count(&mut reader, "tensor count", TENSORS_MAX)?;
        let field_count = count(&mut reader, "field count", FIELDS_MAX)?;
        let mut fields = BTreeMap::new();
        for n in 0..field_count {
            let (name, field) = reader.field(n)?;
            if fields.insert(name.clone(), field).is_some() {
                return Err(Fault::malformed(format!("field {name}"), "appears twice"));
            }
        }
        let mut directory = Directory { version, fields, tensors: BTreeMap::new() };
        let alignment = directory.alignment()?;
        let mut entries = Vec::new();
        for n in 0..tensor_count {
            entries.push(reader.tensor_entry(n)?);
        }
        let data_at = (reader.position() as u64).next_multiple_of(alignment);
        for entry in entries {
            let tensor = entry.locate(file.len() as u64, data_at, alignment)?;
            if directory.tensors.insert(entry.name.clone(), tensor).is_some() {
                return Err(Fault::malformed(format!("tensor {}", entry.name), "appears twice"));
            }
        }
        Ok(directory)
    }

    fn alignment(&self) -> Result<u64, Fault> {
        let name = "general.alignment";
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(ALIGNMENT_DEFAULT),
            Some(Value::Unsigned(n)) if n.is_power_of_two() && (8..=65_536).contains(n) => Ok(*n),
            Some(Value::Unsigned(n)) => Err(Fault::malformed(
                format!("field {name}"),
                format!("{n} is no power of two from 8 to 65536"),
            )),
            Some(other) => Err(wrong_type(name, "an unsigned integer", other)),
        }
    }

    /// An unsigned integer field; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type.
    pub fn unsigned(&self, name: &str) -> Result<Option<u64>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(other) => Err(wrong_type(name, "an unsigned integer", other)),
        }
    }

    /// A float field; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type.
    pub fn float(&self, name: &str) -> Result<Option<f64>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(other) => Err(wrong_type(name, "a float", other)),
        }
    }

    /// A boolean field; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type.
    pub fn truth(&self, name: &str) -> Result<Option<TruthValue>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(wrong_type(name, "a boolean", other)),
        }
    }

    /// A string field of `file`, the bytes this was parsed from; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type.
    pub fn string<'a>(&self, file: &'a [u8], name: &str) -> Result<Option<&'a str>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::String(range)) => reader::text(file, range.clone(), name).map(Some),
            Some(other) => Err(wrong_type(name, "a string", other)),
        }
    }

    /// The strings of an array field of `file`; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type, or one of its strings is not UTF-8.
    pub fn strings<'a>(&self, file: &'a [u8], name: &str) -> Result<Option<Vec<&'a str>>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::Array { kind: ValueType::String, count, payload }) => {
                let mut reader = Reader::new(file.get(payload.clone()).unwrap_or_default());
                (0..*count).map(|_| reader.string(name)).collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(wrong_type(name, "an array of strings", other)),
        }
    }

    /// The 32-bit signed integers of an array field of `file`; `None` if absent.
    ///
    /// # Errors
    /// A fault if it is of another type.
    pub fn signed_32<'a>(
        &self,
        file: &'a [u8],
        name: &str,
    ) -> Result<Option<impl Iterator<Item = i32> + 'a>, Fault> {
        match self.fields.get(name).map(|f| &f.value) {
            None => Ok(None),
            Some(Value::Array { kind: ValueType::I32, payload, .. }) => {
                let bytes = file.get(payload.clone()).unwrap_or_default();
                Ok(Some(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b))))
            }
            Some(other) => Err(wrong_type(name, "an array of 32-bit integers", other)),
        }
    }
}

fn count(reader: &mut Reader<'_>, place: &str, max: u64) -> Result<u64, Fault> {
    let count = reader.u64(place)?;
    if count > max {
        return Err(Fault::malformed(place, format!("{count} is more than the {max} that are read")));
    }
    if count.saturating_mul(ENTRY_BYTES_MIN) > reader.remaining() as u64 {
        return Err(Fault::malformed(place, format!("{count} do not fit in the rest of the file")));
    }
    Ok(count)
}

fn wrong_type(name: &str, wanted: &str, found: &Value) -> Fault {
    let found = match found {
        Value::Unsigned(_) => "an unsigned integer".to_owned(),
        Value::Signed(_) => "a signed integer".to_owned(),
        Value::Float(_) => "a float".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array { kind, .. } => format!("an array of {kind:?}"),
    };
    Fault::malformed(format!("field {name}"), format!("is {found} where {wanted} is expected"))
}
