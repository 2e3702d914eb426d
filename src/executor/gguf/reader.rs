//! A cursor over the bytes of a file that never reads beyond them and names what it was reading.

use std::ops::Range;

use switchbox_kernels::WeightType;

use super::{ENTRY_BYTES_MIN, Field, NAME_BYTES_MAX, Tensor, TruthValue, Value, ValueType};
use crate::executor::error::Fault;

const DIMS_MAX: u32 = 4;
/// Names that the public tools give to the numbers of tensor types, for refusals.
const TENSOR_TYPES: [(u32, &str); 37] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

/// The UTF-8 in a range of the file.
pub(super) fn text<'a>(file: &'a [u8], range: Range<usize>, place: &str) -> Result<&'a str, Fault> {
    let bytes = file.get(range).ok_or_else(|| Fault::malformed(place, "lies outside the file"))?;
    std::str::from_utf8(bytes).map_err(|e| Fault::malformed(place, format!("is not UTF-8: {e}")))
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Reader<'a> {
        Reader { file, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, n: u64, place: &str) -> Result<&'a [u8], Fault> {
        let left = self.remaining();
        match usize::try_from(n) {
            Ok(n) if n <= left => {
                let bytes = &self.file[self.at..self.at + n];
                self.at += n;
                Ok(bytes)
            }
            _ => Err(Fault::malformed(
                place,
                format!("needs {n} bytes at offset {}, the file has {left} left", self.at),
            )),
        }
    }

    fn bytes<const N: usize>(&mut self, place: &str) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, place)?);
        Ok(out)
    }

    fn u32(&mut self, place: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes(place)?))
    }

    pub(super) fn u64(&mut self, place: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes(place)?))
    }

    pub(super) fn string(&mut self, place: &str) -> Result<&'a str, Fault> {
        let length = self.u64(place)?;
        let start = self.at;
        self.take(length, place)?;
        text(self.file, start..self.at, place)
    }

    pub(super) fn magic_and_version(&mut self) -> Result<u32, Fault> {
        if self.bytes("magic")? != *b"GGUF" {
            return Err(Fault::malformed("magic", "the file does not begin with GGUF: it is another format"));
        }
        let version = self.u32("version")?;
        match version {
            2 | 3 => Ok(version),
            n if n.swap_bytes() == 2 || n.swap_bytes() == 3 => Err(Fault::unsupported(
                "version",
                "the file is big endian",
                "convert it to little endian (gguf_convert_endian.py)",
            )),
            n => Err(Fault::unsupported(
                "version",
                format!("GGUF version {n}"),
                "convert it to GGUF version 3, which this reads along with version 2",
            )),
        }
    }

    fn name(&mut self, place: &str) -> Result<&'a str, Fault> {
        let length = self.u64(place)?;
        if length == 0 || length > NAME_BYTES_MAX {
            return Err(Fault::malformed(
                place,
                format!("a name of {length} bytes (allowed: 1 to {NAME_BYTES_MAX})"),
            ));
        }
        let start = self.at;
        self.take(length, place)?;
        text(self.file, start..self.at, place)
    }

    /// Reads metadata field number `n`.
    pub(super) fn field(&mut self, n: u64) -> Result<(String, Field), Fault> {
        let start = self.at;
        let name = self.name(&format!("name of field {n}"))?.to_owned();
        let place = format!("field {name}");
        let kind = self.value_type(&place)?;
        let value = self.value(kind, &place)?;
        Ok((name, Field { value, entry: start..self.at }))
    }

    fn value_type(&mut self, place: &str) -> Result<ValueType, Fault> {
        use ValueType::*;
        let types = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        let number = self.u32(place)?;
        types
            .get(number as usize)
            .copied()
            .ok_or_else(|| Fault::malformed(place, format!("value type {number} does not exist")))
    }

    fn value(&mut self, kind: ValueType, place: &str) -> Result<Value, Fault> {
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.bytes(place)?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.bytes(place)?).into()),
            ValueType::U32 => Value::Unsigned(self.u32(place)?.into()),
            ValueType::U64 => Value::Unsigned(self.u64(place)?),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(self.bytes(place)?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(self.bytes(place)?).into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(self.bytes(place)?).into()),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(self.bytes(place)?)),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.bytes(place)?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.bytes(place)?)),
            ValueType::Bool => Value::Bool(match self.bytes::<1>(place)?[0] {
                0 => TruthValue::False,
                1 => TruthValue::True,
                n => return Err(Fault::malformed(place, format!("boolean of value {n}"))),
            }),
            ValueType::String => {
                let end = self.string(place).map(str::len)?;
                Value::String(self.at - end..self.at)
            }
            ValueType::Array => self.array(place)?,
        })
    }

    fn array(&mut self, place: &str) -> Result<Value, Fault> {
        let kind = self.value_type(place)?;
        let count = self.u64(place)?;
        let start = self.at;
        let width = match kind {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String => 0,
            ValueType::Array => {
                let problem = "an array of arrays";
                return Err(Fault::unsupported(
                    place,
                    problem,
                    "no supported model has one: use another file",
                ));
            }
        };
        if kind == ValueType::String {
            if count > self.remaining() as u64 / 8 {
                return Err(Fault::malformed(place, format!("{count} strings do not fit in the file")));
            }
            for _ in 0..count {
                let length = self.u64(place)?;
                self.take(length, place)?;
            }
        } else {
            self.take(count.saturating_mul(width), place)?;
        }
        // Fits: at least one byte of the file stands for each.
        let count = count as usize;
        Ok(Value::Array { kind, count, payload: start..self.at })
    }

    /// Reads tensor number `n` of the tensor list.
    pub(super) fn tensor_entry(&mut self, n: u64) -> Result<TensorEntry, Fault> {
        let name = self.name(&format!("name of tensor {n}"))?.to_owned();
        let place = format!("tensor {name}");
        let dim_count = self.u32(&place)?;
        if dim_count == 0 || dim_count > DIMS_MAX {
            return Err(Fault::malformed(
                place,
                format!("{dim_count} dimensions (allowed: 1 to {DIMS_MAX})"),
            ));
        }
        let mut dims = Vec::new();
        for _ in 0..dim_count {
            dims.push(self.u64(&place)?);
        }
        let kind = weight_type(self.u32(&place)?, &place)?;
        let offset = self.u64(&place)?;
        Ok(TensorEntry { name, kind, dims, offset })
    }
}

fn weight_type(number: u32, place: &str) -> Result<WeightType, Fault> {
    let Some((_, name)) = TENSOR_TYPES.iter().find(|(n, _)| *n == number) else {
        return Err(Fault::malformed(place, format!("tensor type {number} does not exist")));
    };
    WeightType::ALL.into_iter().find(|kind| kind.name() == *name).ok_or_else(|| {
        let remedy = "use a file of F32, F16, BF16, Q8_0, Q4_0 or Q4_1";
        Fault::unsupported(place, format!("weights of type {name}"), remedy)
    })
}

/// A tensor as listed, before its place in the file is known.
pub(super) struct TensorEntry {
    pub(super) name: String,
    kind: WeightType,
    dims: Vec<u64>,
    offset: u64,
}

impl TensorEntry {
    /// Finds the tensor's bytes. All offsets count from `data_at`, a multiple of `alignment`.
    pub(super) fn locate(&self, file_len: u64, data_at: u64, alignment: u64) -> Result<Tensor, Fault> {
        let fault = |problem: String| Fault::malformed(format!("tensor {}", self.name), problem);
        let dims = self.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
        let dims = dims.ok().filter(|dims| !dims.contains(&0));
        let dims = dims.ok_or_else(|| fault(format!("dimensions {:?}", self.dims)))?;
        let row_bytes = self.kind.row_bytes(dims[0]).ok_or_else(|| {
            fault(format!("rows of {} are no whole blocks of {}", dims[0], self.kind.name()))
        })?;
        let bytes = dims[1..].iter().try_fold(row_bytes as u64, |n, d| n.checked_mul(*d as u64));
        let bytes = bytes.ok_or_else(|| fault(format!("dimensions {dims:?} overflow")))?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(fault(format!("offset {} is not aligned to {alignment}", self.offset)));
        }
        let start = data_at.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|end| *end <= file_len);
        match (start, end) {
            // Both lie within the file, which lies in memory.
            (Some(start), Some(end)) => {
                Ok(Tensor { kind: self.kind, dims, bytes: start as usize..end as usize })
            }
            _ => Err(fault(format!(
                "needs {bytes} bytes at offset {} of the data, beyond the end of the file",
                self.offset
            ))),
        }
    }
}

const _: () = assert!(ENTRY_BYTES_MIN >= 12, "a name's length and a type take twelve bytes");
