//! Directories and addresses from the environment: the user's cache, and the hub.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::hub::HubSettings;
use crate::hub::settings::{process_variable, user_caches};

/// Where models are cached and downloaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocateSettings {
    /// The user's cache directory of actbench, if one is known.
    pub cache: Option<PathBuf>,
    /// The hub and its cache.
    pub hub: HubSettings,
}

impl LocateSettings {
    /// Reads the settings of this process.
    pub fn of_process() -> LocateSettings {
        LocateSettings::from_environment(&process_variable)
    }

    /// Reads `ACTBENCH_CACHE`, the XDG base directories, and the variables of [`HubSettings::from_environment`].
    /// A variable that is set and empty counts as absent.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> LocateSettings {
        let own = variable("ACTBENCH_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from);
        LocateSettings {
            cache: own.or_else(|| user_caches(variable).map(|caches| caches.join("actbench"))),
            hub: HubSettings::from_environment(variable),
        }
    }
}
