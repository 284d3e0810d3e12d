//! The stand-in driver for tests: loaded in the place of a GPU's, one test at a time.
#![allow(dead_code)]

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use actbench_kernels::cuda::Architecture;
use actbench_kernels::cuda::cubins::{CubinFolders, write_prebuilt};
use actbench_kernels::cuda::driver::DriverOptions;
use actbench_kernels::cuda::emulator::{STAND_IN_CUBIN, stand_in_folder};
use actbench_kernels::cuda::sources::SOURCES;

/// The driver has one state for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// The stand-in's own functions.
struct Library {
    settings: extern "C" fn(*const c_char),
    change: extern "C" fn(*const c_char),
    count: extern "C" fn(*const c_char) -> usize,
}

/// Loads the library under the name that is looked for later: a loader that has a library of that name uses it.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = CString::new(stand_in_folder().join("libcuda.so").to_str().unwrap()).unwrap();
        // SAFETY: the path is terminated; what runs on loading is the stand-in's own.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the stand-in driver cannot be loaded");
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
                settings: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(find("stand_in_settings")),
                change: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(find("stand_in_change")),
                count: std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> usize>(find(
                    "stand_in_count",
                )),
            }
        }
    })
}

/// How often something happened so far; `stand_in_count` in device.cpp has what there is.
fn count(what: &str) -> usize {
    let what = CString::new(what).unwrap();
    (library().count)(what.as_ptr())
}

/// What the driver counts, for [`StandIn::counted`].
const COUNTED: [&str; 6] = ["leaks", "launches", "graphs", "graphs made", "changed", "refused"];

/// The driver with settings of a test's own. Whoever drops it must have dropped the devices.
pub struct StandIn {
    before: [usize; COUNTED.len()],
    is_whole: bool,
    _alone: MutexGuard<'static, ()>,
}

impl StandIn {
    pub fn new(settings: &str) -> StandIn {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let text = CString::new(settings).unwrap();
        (library().settings)(text.as_ptr());
        StandIn { before: COUNTED.map(count), is_whole: !settings.contains("break="), _alone: alone }
    }

    /// Other settings from now on, with everything that there is as it is.
    pub fn change(&self, settings: &str) {
        let text = CString::new(settings).unwrap();
        (library().change)(text.as_ptr());
    }

    /// How often something happened since the settings were made.
    #[track_caller]
    pub fn counted(&self, what: &str) -> usize {
        let index = COUNTED.iter().position(|known| *known == what).expect("something that is counted");
        count(what) - self.before[index]
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // A broken context gives nothing back.
        if self.is_whole && !std::thread::panicking() {
            assert_eq!(self.counted("leaks"), 0, "memory or graphs of the device were not given back");
        }
    }
}

/// A folder of machine code that the stand-in takes, for an H100.
pub fn write_cubins(folder: &Path) {
    let cubins: Vec<_> =
        SOURCES.iter().map(|source| (source, Architecture::new(90), STAND_IN_CUBIN.to_vec())).collect();
    write_prebuilt(folder, "the tests", &cubins).unwrap();
}

/// Options with such a folder, which lasts as long as the process.
pub fn options(checked: bool) -> DriverOptions {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        write_cubins(folder.path());
        folder
    });
    DriverOptions { cubins: CubinFolders { prebuilt: Some(folder.path().to_path_buf()), cache: None }, checked }
}
