//! The kernels compiled with NVRTC, through `cudarc`: source to the machine code of one architecture.
//!
//! No GPU and no toolkit are needed, only the library `libnvrtc.so` on the loader's path.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::{result, sys};

use super::Architecture;
use super::registry::KernelSource;
use super::sources::HEADERS;
use crate::error::KernelError;

/// One compiled source.
pub struct Compiled {
    /// Machine code in the format that a driver loads.
    pub cubin: Vec<u8>,
    /// The compiler's log: errors, warnings, and each kernel's resources.
    pub log: String,
}

/// The compiler options besides the architecture. They are part of a cubin's digest.
pub const OPTIONS: [&str; 4] = [
    "-std=c++17",
    // Multiplications and additions are fused only where the source says `fmaf`.
    "--fmad=false",
    "-lineinfo",
    "--ptxas-options=-v",
];

fn error(message: impl Into<String>) -> KernelError {
    KernelError::Device { op: "compile kernels", device: "nvrtc".to_owned(), message: message.into() }
}

/// Major and minor version of the library.
///
/// # Errors
/// The library was not found.
pub fn version() -> Result<(i32, i32), KernelError> {
    // SAFETY: searches for a library and calls nothing in it.
    if !unsafe { sys::is_culib_present() } {
        return Err(error("libnvrtc.so was not found: install CUDA's NVRTC, or add its directory to LD_LIBRARY_PATH"));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to integers that live through the call.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|code| error(code.to_string()))?;
    Ok((major, minor))
}

/// An NVRTC program, destroyed when it goes out of scope.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `nvrtcCreateProgram` and destroyed here alone.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles `source` for `architecture`.
///
/// # Errors
/// No library, or a source that does not compile: the message is the compiler's.
pub fn compile(source: &KernelSource, architecture: Architecture) -> Result<Compiled, KernelError> {
    version()?;
    let terminated = |text: &str| CString::new(text).map_err(|_| error(format!("{}: a NUL in the text", source.file)));
    let (text, file) = (terminated(source.text)?, terminated(source.file)?);
    let headers = HEADERS.iter().map(|header| terminated(header.text)).collect::<Result<Vec<_>, _>>()?;
    let names = HEADERS.iter().map(|header| terminated(header.file)).collect::<Result<Vec<_>, _>>()?;
    let header_texts: Vec<*const c_char> = headers.iter().map(|text| text.as_ptr()).collect();
    let header_names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut handle = ptr::null_mut();
    // SAFETY: all strings are terminated and live until the program is destroyed at the end of this function; both arrays
    // have one entry for each header.
    unsafe {
        sys::nvrtcCreateProgram(
            &mut handle,
            text.as_ptr(),
            file.as_ptr(),
            HEADERS.len() as c_int,
            header_texts.as_ptr(),
            header_names.as_ptr(),
        )
    }
    .result()
    .map_err(|code| error(format!("{}: {code}", source.file)))?;
    let program = Program(handle);
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.map(str::to_owned));
    // SAFETY: the program was created above and is not destroyed yet.
    let compiled = unsafe { result::compile_program(program.0, &options) };
    // SAFETY: as above; the log is terminated.
    let log = unsafe { result::get_program_log(program.0) }.map_err(|code| error(code.to_string()))?;
    // SAFETY: the vector ends with the terminator that NVRTC counts in.
    let log = unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned();
    compiled.map_err(|code| error(format!("{} for {architecture}: {code}\n{log}", source.file)))?;
    let mut size = 0;
    // SAFETY: as above; the size is that of the code that the second call writes.
    let cubin = unsafe {
        sys::nvrtcGetCUBINSize(program.0, &mut size).result().map_err(|code| error(code.to_string()))?;
        let mut cubin = vec![0u8; size];
        let start: *mut c_char = cubin.as_mut_ptr().cast();
        sys::nvrtcGetCUBIN(program.0, start).result().map_err(|code| error(code.to_string()))?;
        cubin
    };
    Ok(Compiled { cubin, log })
}
