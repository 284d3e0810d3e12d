//! The fake driver for tests, loaded instead of a GPU's driver, one test at a time.
#![allow(dead_code)]

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::cubins::{CubinDirectories, write_prebuilt};
use actbench_kernels::cuda::driver::DriverOptions;
use actbench_kernels::cuda::emulator::{FAKE_DRIVER_CUBIN, fake_driver_directory};
use actbench_kernels::cuda::registry::SOURCES;

/// The driver has one state for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// The fake driver's own functions.
struct Library {
    settings: extern "C" fn(*const c_char),
    change: extern "C" fn(*const c_char),
    count: extern "C" fn(*const c_char) -> usize,
}

/// Loads the library, which the loader then finds under the driver's name.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = CString::new(fake_driver_directory().join("libcuda.so").to_str().unwrap()).unwrap();
        // SAFETY: the path is terminated; its initializers belong to the fake driver.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the fake driver cannot be loaded");
        let find = |name: &str| -> *mut c_void {
            let name = CString::new(name).unwrap();
            // SAFETY: the handle is open and the name terminated.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?}");
            found
        };
        // SAFETY: the functions have these types in device.cpp.
        unsafe {
            Library {
                settings: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(find(
                    "fake_driver_settings",
                )),
                change: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(find("fake_driver_change")),
                count: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> usize>(find(
                    "fake_driver_count",
                )),
            }
        }
    })
}

/// A counter of the driver; `fake_driver_count` in device.cpp lists them.
fn count(what: &str) -> usize {
    let what = CString::new(what).unwrap();
    (library().count)(what.as_ptr())
}

/// The counters for [`FakeDriver::counted`].
const COUNTERS: [&str; 10] =
    ["contexts", "leaks", "launches", "executed", "graphs", "graphs made", "changed", "refused", "pinned", "downloads"];

/// The driver with the settings of one test. Devices must be dropped before it.
pub struct FakeDriver {
    before: [usize; COUNTERS.len()],
    is_whole: bool,
    _alone: MutexGuard<'static, ()>,
}

impl FakeDriver {
    pub fn new(settings: &str) -> FakeDriver {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let text = CString::new(settings).unwrap();
        (library().settings)(text.as_ptr());
        FakeDriver {
            before: COUNTERS.map(count),
            is_whole: !settings.contains("break=") && !settings.contains("fail_download="),
            _alone: alone,
        }
    }

    /// Changes settings and keeps all other state.
    pub fn change(&self, settings: &str) {
        let text = CString::new(settings).unwrap();
        (library().change)(text.as_ptr());
    }

    /// The increase of a counter since the driver was created.
    #[track_caller]
    pub fn counted(&self, what: &str) -> usize {
        let index = COUNTERS.iter().position(|known| *known == what).expect("a known counter");
        count(what) - self.before[index]
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        // A broken context frees nothing.
        if self.is_whole && !std::thread::panicking() {
            assert_eq!(self.counted("leaks"), 0, "memory or graphs of the device leaked");
        }
    }
}

/// Writes a directory of machine code that the fake driver accepts, for an H100.
pub fn write_cubins(directory: &Path) {
    let cubins: Vec<_> =
        SOURCES.iter().map(|source| (source, Architecture::new(90), FAKE_DRIVER_CUBIN.to_vec())).collect();
    write_prebuilt(directory, "the tests", &cubins).unwrap();
}

/// Options with such a directory, which exists as long as the process.
pub fn options(checked: bool) -> DriverOptions {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        write_cubins(directory.path());
        directory
    });
    DriverOptions { cubins: CubinDirectories { prebuilt: Some(directory.path().to_path_buf()), cache: None }, checked }
}
