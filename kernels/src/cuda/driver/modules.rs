//! The kernels of a device by name: machine code found, loaded, and asked what parameters each kernel has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;
use rayon::prelude::*;

use super::session::Session;
use super::words::words;
use crate::cuda::cubins::{CubinCompiler, CubinDirectories, CubinOrigin, find};
use crate::cuda::registry::{SOURCES, source_of};
use crate::error::KernelError;

/// Bytes of dynamic shared memory that a kernel has without asking.
const UNASKED_SHARED_BYTES: u32 = 48 << 10;

/// The loaded kernels of a device.
pub(super) struct Kernels {
    /// By source file.
    modules: HashMap<&'static str, Arc<CudaModule>>,
    /// Kernels that were launched before, by name.
    functions: Mutex<HashMap<String, Arc<Kernel>>>,
    origins: Vec<(&'static str, CubinOrigin)>,
}

/// A kernel that can be launched.
pub(super) struct Kernel {
    pub(super) function: CudaFunction,
    pub(super) name: String,
    /// Bytes of each parameter.
    pub(super) parameters: Vec<usize>,
    /// Where each begins, in words of 8 bytes, when they are laid one behind the other.
    pub(super) places: Vec<usize>,
    /// Words of all.
    pub(super) words: usize,
    /// The most dynamic shared memory that was asked for so far.
    shared_bytes: Mutex<u32>,
}

impl Kernels {
    /// Finds machine code for every source that is for the device, in parallel as it may have to be compiled, and loads it.
    pub(super) fn load(
        session: &Session,
        folders: &CubinDirectories,
        compiler: &impl CubinCompiler,
    ) -> Result<Self, KernelError> {
        let architecture = session.facts.architecture;
        let sources: Vec<_> = SOURCES.iter().filter(|source| source.is_for(architecture)).collect();
        let cubins: Vec<_> =
            sources.par_iter().map(|source| find(folders, compiler, source, architecture)).collect::<Result<_, _>>()?;
        let mut kernels =
            Kernels { modules: HashMap::new(), functions: Mutex::new(HashMap::new()), origins: Vec::new() };
        session.enter("load kernels")?;
        for (source, cubin) in sources.into_iter().zip(cubins) {
            // The driver takes no length and trusts what it reads.
            if !cubin.bytes.starts_with(b"\x7fELF") {
                let message = format!("{} for {architecture}: this is no machine code", source.file);
                return Err(session.error("load kernels", message));
            }
            let loaded = session.context.load_module(Ptx::from_binary(cubin.bytes));
            let what = || format!("{} for {architecture}", source.file);
            kernels.modules.insert(source.file, session.check("load kernels", what, loaded)?);
            kernels.origins.push((source.file, cubin.origin));
        }
        Ok(kernels)
    }

    /// Where the machine code of each source came from.
    pub(super) fn origins(&self) -> &[(&'static str, CubinOrigin)] {
        &self.origins
    }

    /// The kernel `name`, allowed to use `shared_bytes` of dynamic shared memory.
    pub(super) fn kernel(&self, session: &Session, name: &str, shared_bytes: u32) -> Result<Arc<Kernel>, KernelError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = match functions.get(name) {
            Some(kernel) => kernel.clone(),
            None => {
                let kernel = Arc::new(self.look_up(session, name)?);
                functions.insert(name.to_owned(), kernel.clone());
                kernel
            }
        };
        drop(functions);
        kernel.allow_shared(session, name, shared_bytes)?;
        Ok(kernel)
    }

    fn look_up(&self, session: &Session, name: &str) -> Result<Kernel, KernelError> {
        let found = source_of(name).and_then(|source| Some((self.modules.get(source.file)?, source.parameters)));
        let (module, count) = found.ok_or_else(|| session.error("launch", format!("there is no kernel {name}")))?;
        let function = module.load_function(name);
        let function = session.check("launch", || format!("looking up the kernel {name}"), function)?;
        let parameters = parameters(&function, count);
        let parameters = session.check("launch", || format!("asking for the parameters of {name}"), parameters)?;
        let mut words = 0;
        let places = parameters
            .iter()
            .map(|bytes| {
                let place = words;
                words += bytes.div_ceil(size_of::<u64>());
                place
            })
            .collect();
        let shared_bytes = Mutex::new(UNASKED_SHARED_BYTES);
        Ok(Kernel { function, name: name.to_owned(), parameters, places, words, shared_bytes })
    }
}

impl Kernel {
    /// Asks for dynamic shared memory beyond what every kernel has.
    fn allow_shared(&self, session: &Session, name: &str, bytes: u32) -> Result<(), KernelError> {
        let mut allowed = self.shared_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= *allowed {
            return Ok(());
        }
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // More than an i32 holds is more than any device has; the driver says so.
        let asked = self.function.set_attribute(attribute, i32::try_from(bytes).unwrap_or(i32::MAX));
        asked.map_err(|error| {
            let has = session.facts.shared_bytes;
            let message = format!("{name} needs {bytes} bytes of shared memory a block of {has}: {}", words(error));
            session.error("launch", message)
        })?;
        *allowed = bytes;
        Ok(())
    }
}

/// Bytes of each of the `count` parameters of a kernel. To ask for one more would be an error, which tools that watch the
/// driver report.
fn parameters(function: &CudaFunction, count: usize) -> Result<Vec<usize>, DriverError> {
    let size = |index| -> Result<usize, DriverError> {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function's module is loaded for as long as `function` lives, and both places are of this scope.
        unsafe { sys::cuFuncGetParamInfo(function.cu_function(), index, &mut offset, &mut size) }.result()?;
        Ok(size)
    };
    (0..count).map(size).collect()
}
