//! A tensor in host memory: a dtype, a shape and bytes, which may be those of a mapped file.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::dtype::DType;
use crate::error::KernelError;

/// An open file with tensors. Threads may read it at the same time.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: PathBuf,
}

impl SourceFile {
    /// Wraps `file`; errors name `path`.
    pub fn new(file: File, path: impl Into<PathBuf>) -> Self {
        SourceFile { file, path: path.into() }
    }

    /// Fills `out` with the bytes of the file from `offset` on.
    ///
    /// # Errors
    /// A failed read, or a file that ends before.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), KernelError> {
        use std::os::unix::fs::FileExt as _;
        self.file.read_exact_at(out, offset).map_err(|error| {
            let end = offset.saturating_add(out.len() as u64);
            let what = match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    format!("the file ends before byte {end}: it was changed after it was opened")
                }
                _ => error.to_string(),
            };
            KernelError::Read { path: self.path.clone(), what }
        })
    }
}

/// Where a tensor's bytes are in a file.
#[derive(Clone, Debug)]
struct FileRange {
    file: Arc<SourceFile>,
    offset: u64,
}

/// A dense row-major tensor in host memory. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
    file: Option<FileRange>,
}

impl HostTensor {
    /// Wraps `bytes` (native-endian) as a tensor of `shape`.
    ///
    /// # Errors
    /// When the number of bytes does not match the shape and the dtype, or the shape overflows.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, KernelError> {
        let needed = shape
            .iter()
            .try_fold(dtype.size(), |bytes, &dimension| bytes.checked_mul(dimension))
            .ok_or_else(|| KernelError::shape("host tensor", format!("shape {shape:?} overflows")))?;
        if needed != bytes.len() {
            return Err(KernelError::shape(
                "host tensor",
                format!("shape {shape:?} of {dtype} needs {needed} bytes, got {}", bytes.len()),
            ));
        }
        Ok(HostTensor { dtype, shape, bytes, file: None })
    }

    /// The same tensor, whose bytes are those of `file` from `offset` on: a device reads them from there into memory of its
    /// own. Through a mapping, each page would be entered into and removed from the page table first.
    #[must_use]
    pub fn with_file(self, file: Arc<SourceFile>, offset: u64) -> Self {
        HostTensor { file: Some(FileRange { file, offset }), ..self }
    }

    /// Rounds `values`, in row-major order, to `dtype`.
    ///
    /// # Errors
    /// When the number of values does not match the shape.
    pub fn from_f32(dtype: DType, shape: Vec<usize>, values: &[f32]) -> Result<Self, KernelError> {
        Self::new(dtype, shape, Bytes::from(dtype.from_f32_slice(values)))
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and native-endian.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the bytes are those of a file, which can be read again at any time.
    pub fn is_in_file(&self) -> bool {
        self.file.is_some()
    }

    /// The slices `rows` along the first dimension, sharing the bytes.
    ///
    /// # Errors
    /// A tensor without dimensions, or rows that it does not have.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, KernelError> {
        let beyond = || KernelError::shape("host tensor", format!("rows {rows:?} of shape {:?}", self.shape));
        let [count, inner @ ..] = &self.shape[..] else { return Err(beyond()) };
        if rows.start > rows.end || rows.end > *count {
            return Err(beyond());
        }
        let row_bytes = self.dtype.size() * inner.iter().product::<usize>();
        let start = rows.start * row_bytes;
        let file = self.file.as_ref();
        Ok(HostTensor {
            dtype: self.dtype,
            shape: std::iter::once(rows.len()).chain(inner.iter().copied()).collect(),
            bytes: self.bytes.slice(start..rows.end * row_bytes),
            file: file.map(|range| FileRange { file: range.file.clone(), offset: range.offset + start as u64 }),
        })
    }

    /// Copies the bytes from byte `at` on to `out`: from the file where there is one.
    ///
    /// # Errors
    /// More bytes than the tensor has, or a file that cannot be read.
    pub fn read(&self, at: usize, out: &mut [u8]) -> Result<(), KernelError> {
        let source = at.checked_add(out.len()).and_then(|end| self.bytes.get(at..end)).ok_or_else(|| {
            let what = format!("{} bytes from byte {at} of {}", out.len(), self.bytes.len());
            KernelError::shape("host tensor", what)
        })?;
        match &self.file {
            Some(range) => range.file.read_at(range.offset + at as u64, out),
            None => {
                out.copy_from_slice(source);
                Ok(())
            }
        }
    }

    /// The elements widened to `f32`, in row-major order.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.dtype.to_f32_vec(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn wrong_byte_count_error_has_both_numbers() {
        let error = HostTensor::new(DType::Bf16, vec![2, 3], Bytes::from(vec![0u8; 10])).unwrap_err();
        assert!(error.to_string().contains("needs 12 bytes, got 10"), "{error}");
    }

    #[test]
    fn overflowing_shape_is_an_error() {
        let error = HostTensor::new(DType::F32, vec![usize::MAX, 8], Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }

    /// Rows of 4 bytes, of which the file has 7 at the front: the mapped bytes are zeros, so that reads of the file show.
    fn in_file(rows: u8, written: u8) -> (HostTensor, PathBuf) {
        let (mut file, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        file.write_all(&[99; 7]).unwrap();
        file.write_all(&(0..4 * written).collect::<Vec<u8>>()).unwrap();
        let zeros = Bytes::from(vec![0; 4 * usize::from(rows)]);
        let tensor = HostTensor::new(DType::Bf16, vec![rows.into(), 2], zeros).unwrap();
        (tensor.with_file(Arc::new(SourceFile::new(File::open(&path).unwrap(), &path)), 7), path)
    }

    #[test]
    fn reads_come_from_the_file_with_its_offset() {
        let (tensor, path) = in_file(5, 5);
        let middle = tensor.rows(2..4).unwrap();
        assert!(middle.is_in_file() && middle.shape() == [2, 2] && middle.bytes().len() == 8);
        let mut bytes = [0; 5];
        middle.read(3, &mut bytes).unwrap();
        assert_eq!(bytes, [11, 12, 13, 14, 15]);
        assert!(middle.read(4, &mut bytes).is_err() && middle.read(usize::MAX, &mut bytes).is_err());
        assert!(tensor.rows(4..6).is_err() && !HostTensor { file: None, ..tensor }.is_in_file());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn short_file_error_names_the_file() {
        let (tensor, path) = in_file(5, 3);
        tensor.read(0, &mut [0; 12]).unwrap();
        let error = tensor.read(8, &mut [0; 8]).unwrap_err().to_string();
        let expected =
            format!("read {}: the file ends before byte 23: it was changed after it was opened", path.display());
        assert_eq!(error, expected);
        std::fs::remove_file(path).unwrap();
    }
}
