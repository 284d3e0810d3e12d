//! Writes the commit, whether the tree was clean, the compiler and its settings into the program, for the result file.

use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // A build from an archive has no repository, or lies in somebody else's: the fields are then empty, and null in
    // the result file.
    let ours = output("git", &["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let of_ours = |arguments: &[&str]| if ours { output("git", arguments) } else { None };
    let commit = of_ours(&["rev-parse", "HEAD"]).unwrap_or_default();
    let dirty = of_ours(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])
        .map(|changes| (!changes.is_empty()).to_string())
        .unwrap_or_default();
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(&compiler, &["--version"]).unwrap_or_default();
    println!("cargo:rustc-env=ACTBENCH_COMMIT={commit}");
    println!("cargo:rustc-env=ACTBENCH_DIRTY={dirty}");
    println!("cargo:rustc-env=ACTBENCH_RUSTC={rustc}");
    println!("cargo:rustc-env=ACTBENCH_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut features: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-")))
        .collect();
    features.sort();
    println!("cargo:rustc-env=ACTBENCH_FEATURES={}", features.join(","));
    println!("cargo:rustc-env=ACTBENCH_TARGET={}", variable("TARGET"));
    println!("cargo:rustc-env=ACTBENCH_RUSTFLAGS={}", variable("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " "));
    for path in ["HEAD", "index"] {
        if let Some(path) = of_ours(&["rev-parse", "--git-path", path]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    // A change of any source that goes into the program makes it dirty.
    for path in
        ["src", "../activations/src", "../pairgate/src", "../../kernels/src", "../../fixtures/src", "../../Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={path}");
    }
}
