//! GGUF block layouts of weights. Only layouts and sizes; the arithmetic is in `reference` and `simd`.
//!
//! A matrix is `[rows, cols]`, rows contiguous, each row a whole number of blocks:
//!
//! | type | weights | bytes | layout (little endian) | value |
//! |---|---|---|---|---|
//! | F32 | 1 | 4 | f32 | v |
//! | F16, BF16 | 1 | 2 | half, bfloat16 | v |
//! | Q8_0 | 32 | 34 | f16 d, 32 x i8 q | d q |
//! | Q4_0 | 32 | 18 | f16 d, 16 x u8 | d (q - 8) |
//! | Q4_1 | 32 | 20 | f16 d, f16 m, 16 x u8 | d q + m |
//!
//! In the 4-bit types byte j holds weight j in its low and weight j + 16 in its high half.

/// Weights in one block of the quantised types, and the width of a block of 8-bit activations.
pub const BLOCK: usize = 32;

/// How the weights of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// 8 bit, one scale per 32.
    Q8_0,
    /// 4 bit around zero, one scale per 32.
    Q4_0,
    /// 4 bit, one scale and one minimum per 32.
    Q4_1,
}

impl WeightType {
    /// All types, for tables in tests and messages.
    pub const ALL: [WeightType; 6] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
        WeightType::Q8_0,
        WeightType::Q4_0,
        WeightType::Q4_1,
    ];

    /// Weights per block.
    pub const fn block_weights(self) -> usize {
        match self {
            WeightType::F32 | WeightType::F16 | WeightType::Bf16 => 1,
            WeightType::Q8_0 | WeightType::Q4_0 | WeightType::Q4_1 => BLOCK,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::F16 | WeightType::Bf16 => 2,
            WeightType::Q8_0 => 34,
            WeightType::Q4_0 => 18,
            WeightType::Q4_1 => 20,
        }
    }

    /// The name that GGUF tools use.
    pub const fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "F32",
            WeightType::F16 => "F16",
            WeightType::Bf16 => "BF16",
            WeightType::Q8_0 => "Q8_0",
            WeightType::Q4_0 => "Q4_0",
            WeightType::Q4_1 => "Q4_1",
        }
    }

    /// Bytes of a row of `cols` weights; `None` where the row is no whole number of blocks or overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_weights()) {
            return None;
        }
        (cols / self.block_weights()).checked_mul(self.block_bytes())
    }
}

/// A matrix's bytes do not fit its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// What was asked for.
    pub kind: WeightType,
    /// Rows (outputs).
    pub rows: usize,
    /// Columns (inputs).
    pub cols: usize,
    /// Bytes given.
    pub bytes: usize,
}

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ShapeError { kind, rows, cols, bytes } = self;
        write!(f, "{bytes} bytes are not a {} matrix of {rows} rows by {cols} columns", kind.name())
    }
}

impl std::error::Error for ShapeError {}

/// Borrowed weights `[rows, cols]` in the layout of `kind`; no alignment is required.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    kind: WeightType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// Checks that `bytes` are exactly `rows` rows of `cols` weights.
    ///
    /// # Errors
    /// [`ShapeError`] if a row is no whole number of blocks, or the length differs, or a product overflows.
    pub fn new(kind: WeightType, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, ShapeError> {
        let refuse = ShapeError { kind, rows, cols, bytes: bytes.len() };
        let row_bytes = kind.row_bytes(cols).ok_or_else(|| refuse.clone())?;
        match row_bytes.checked_mul(rows) {
            Some(n) if n == bytes.len() => Ok(Matrix { kind, rows, cols, row_bytes, bytes }),
            _ => Err(refuse),
        }
    }

    /// How it is stored.
    pub fn kind(&self) -> WeightType {
        self.kind
    }

    /// Number of rows: the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the inputs of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of one row. Panics if `row` is out of range.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}
