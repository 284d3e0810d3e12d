//! The kernels of a device by name: their machine code is found and loaded, and their parameters are queried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;
use rayon::prelude::*;

use super::context::DriverContext;
use super::driver_error::error_message;
use super::kernel::LoadedKernel;
use crate::cuda::cubins::{CubinCompiler, CubinDirectories, CubinOrigin, find};
use crate::cuda::registry::{SOURCES, source_of};
use crate::error::KernelError;

/// Dynamic shared memory that a launch may use without an opt-in, in bytes.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// The loaded kernels of a device.
pub(super) struct KernelModules {
    /// By source file.
    modules: HashMap<&'static str, Arc<CudaModule>>,
    /// Kernels that were launched before, by name.
    functions: Mutex<HashMap<String, Arc<LoadedKernel>>>,
    origins: Vec<(&'static str, CubinOrigin)>,
}

impl KernelModules {
    /// Finds and loads the machine code of every source for the device. Sources are handled in parallel, as some may
    /// have to be compiled.
    pub(super) fn load(
        context: &DriverContext,
        directories: &CubinDirectories,
        compiler: &impl CubinCompiler,
    ) -> Result<Self, KernelError> {
        let architecture = context.facts.architecture;
        let sources: Vec<_> = SOURCES.iter().filter(|source| source.is_for(architecture)).collect();
        let cubins: Vec<_> = sources
            .par_iter()
            .map(|source| find(directories, compiler, source, architecture))
            .collect::<Result<_, _>>()?;
        let mut kernels =
            KernelModules { modules: HashMap::new(), functions: Mutex::new(HashMap::new()), origins: Vec::new() };
        context.enter("load kernels")?;
        for (source, cubin) in sources.into_iter().zip(cubins) {
            // `cuModuleLoadData` takes no length: on other data it could read beyond the end.
            if !cubin.bytes.starts_with(b"\x7fELF") {
                let message = format!("{} for {architecture}: not a cubin", source.file);
                return Err(context.error("load kernels", message));
            }
            let loaded = context.cuda.load_module(Ptx::from_binary(cubin.bytes));
            let description = || format!("{} for {architecture}", source.file);
            kernels.modules.insert(source.file, context.check("load kernels", description, loaded)?);
            kernels.origins.push((source.file, cubin.origin));
        }
        Ok(kernels)
    }

    /// The origin of the machine code of each source file.
    pub(super) fn origins(&self) -> &[(&'static str, CubinOrigin)] {
        &self.origins
    }

    /// The kernel `name`, opted in to `shared_bytes` bytes of dynamic shared memory.
    pub(super) fn kernel(
        &self,
        context: &DriverContext,
        name: &str,
        shared_bytes: u32,
    ) -> Result<Arc<LoadedKernel>, KernelError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = match functions.get(name) {
            Some(kernel) => kernel.clone(),
            None => {
                let kernel = Arc::new(self.look_up(context, name)?);
                functions.insert(name.to_owned(), kernel.clone());
                kernel
            }
        };
        drop(functions);
        allow_shared(context, &kernel, shared_bytes)?;
        Ok(kernel)
    }

    fn look_up(&self, context: &DriverContext, name: &str) -> Result<LoadedKernel, KernelError> {
        let found =
            source_of(name).and_then(|source| Some((self.modules.get(source.file)?, source.parameters_of(name)?)));
        let (module, count) = found.ok_or_else(|| context.error("launch", format!("unknown kernel {name}")))?;
        let function = module.load_function(name);
        let function = context.check("launch", || format!("looking up the kernel {name}"), function)?;
        let queried = query_parameter_bytes(&function, count);
        let parameter_bytes = context.check("launch", || format!("querying the parameters of {name}"), queried)?;
        let mut parameter_words = 0;
        let parameter_offsets = parameter_bytes
            .iter()
            .map(|bytes| {
                let offset = parameter_words;
                parameter_words += bytes.div_ceil(size_of::<u64>());
                offset
            })
            .collect();
        let allowed_shared_bytes = Mutex::new(DEFAULT_SHARED_BYTES);
        let name = name.to_owned();
        Ok(LoadedKernel { function, name, parameter_bytes, parameter_offsets, parameter_words, allowed_shared_bytes })
    }
}

/// Opts `kernel` in to `bytes` bytes of dynamic shared memory, if an earlier launch has not.
fn allow_shared(context: &DriverContext, kernel: &LoadedKernel, bytes: u32) -> Result<(), KernelError> {
    let mut allowed = kernel.allowed_shared_bytes.lock().unwrap_or_else(PoisonError::into_inner);
    if bytes <= *allowed {
        return Ok(());
    }
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // No device has as much as `i32::MAX` bytes, so the driver rejects that.
    let opted_in = kernel.function.set_attribute(attribute, i32::try_from(bytes).unwrap_or(i32::MAX));
    opted_in.map_err(|error| {
        let message = format!(
            "{} needs {bytes} bytes of shared memory per block, the device has {}: {}",
            kernel.name,
            context.facts.shared_bytes,
            error_message(error)
        );
        context.error("launch", message)
    })?;
    *allowed = bytes;
    Ok(())
}

/// The size in bytes of each of the `count` parameters of a kernel. `count` is known from the source: a query for one
/// more parameter would be an error, which tools such as compute-sanitizer report.
fn query_parameter_bytes(function: &CudaFunction, count: usize) -> Result<Vec<usize>, DriverError> {
    let size = |index| -> Result<usize, DriverError> {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function's module is loaded for as long as `function` lives, and both pointers are to local
        // variables.
        unsafe { sys::cuFuncGetParamInfo(function.cu_function(), index, &mut offset, &mut size) }.result()?;
        Ok(size)
    };
    (0..count).map(size).collect()
}
