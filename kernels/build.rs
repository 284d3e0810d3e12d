//! Compiles the CUDA kernels for the emulator with the C++ compiler, where the feature `emulator` asks for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    if let Err(error) = emulator::compile() {
        println!("cargo::error={error}");
    }
}

#[cfg(feature = "emulator")]
#[path = "tests/planted/list.rs"]
mod planted;

/// The emulator, and one C++ source that includes all kernels, each file in a namespace of its own.
#[cfg(feature = "emulator")]
mod emulator {
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};
    use std::{env, fs, io};

    /// Set by `scripts/check_kernels_sanitized.sh`: kernels and emulator with checks of every access.
    const SANITIZED: &str = "ACTBENCH_EMULATOR_SANITIZED";

    /// The stand-in driver of the tests, by what its files do.
    const STAND_IN: [&str; 6] =
        ["device.cpp", "streams.cpp", "memory.cpp", "modules.cpp", "graphs.cpp", "tensor_maps.cpp"];

    pub fn compile() -> Result<(), io::Error> {
        println!("cargo::rerun-if-env-changed={SANITIZED}");
        println!("cargo::rerun-if-changed=cuda");
        println!("cargo::rerun-if-changed=tests/planted");
        for file in STAND_IN.iter().chain(&["internals.h"]) {
            println!("cargo::rerun-if-changed=tests/stand_in/{file}");
        }
        let variable = |name: &str| env::var(name).map_err(io::Error::other);
        if variable("CARGO_CFG_TARGET_ARCH")? != "x86_64" || variable("CARGO_CFG_TARGET_OS")? != "linux" {
            return Err(io::Error::other("the feature `emulator` works on x86-64 Linux alone: build without it"));
        }
        let cuda = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("cuda");
        let output = PathBuf::from(variable("OUT_DIR")?);
        let combined = output.join("kernels.cpp");
        let mut source = String::from("#include \"prelude.cuh\"\n#define KERNEL_PREFIX \"\"\n");
        for kernel in kernels(&cuda)? {
            let name = kernel.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // Writing to a string cannot fail.
            let _ = writeln!(source, "namespace {name}_kernels {{\n#include \"{name}.cu\"\n}}");
        }
        source
            .push_str("extern \"C\" const int actbench_emulated_kernels;\nconst int actbench_emulated_kernels = 1;\n");
        source.push_str("namespace self_test {\n#include \"emulator/self_test.cu\"\n}\n");
        let is_sanitized = env::var_os(SANITIZED).is_some();
        if !is_sanitized {
            plant_faults(&cuda, &output, &mut source)?;
        }
        fs::write(&combined, source)?;
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            .debug(false)
            .include(&cuda)
            .include(&output)
            // Products and sums are fused where the source says so and nowhere else, as with --fmad=false.
            .flag("-ffp-contract=off")
            // Kernels read elements as wider words, which a device compiler allows.
            .flag("-fno-strict-aliasing")
            .flag("-Wno-unknown-pragmas")
            // A note on tensor maps by value, of interest to whoever mixes compilers from before 2011.
            .flag("-Wno-psabi")
            .file(&combined)
            .files(
                ["asynchronous.cpp", "scheduler.cpp", "memory.cpp", "launch.cpp"]
                    .map(|name| cuda.join("emulator").join(name)),
            );
        if is_sanitized {
            // Addresses, and among what is undefined what a device would stop at: addresses that are not a multiple of what is
            // read there, and indices beyond an array.
            build.flags([
                "-fsanitize=address,alignment,bounds",
                "-fno-sanitize-recover=all",
                "-fno-omit-frame-pointer",
            ]);
            build.opt_level(1).debug(true);
            println!("cargo::rustc-link-lib=asan");
            println!("cargo::rustc-link-lib=ubsan");
        }
        // The C++ library goes into the programs: they may be carried to machines that have none.
        build.cpp_link_stdlib(None);
        build.try_compile("actbench_emulated_kernels").map_err(io::Error::other)?;
        link_cpp_library(&build)?;
        link_stand_in(&build, &output)
    }

    /// Links the C++ library, the static one if the compiler has it.
    fn link_cpp_library(build: &cc::Build) -> Result<(), io::Error> {
        let mut command = build.try_get_compiler().map_err(io::Error::other)?.to_command();
        let output = command.arg("-print-file-name=libstdc++.a").output()?;
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        // A compiler without the file answers with its bare name.
        match path.parent().filter(|_| path.is_absolute()) {
            Some(folder) => {
                println!("cargo::rustc-link-search=native={}", folder.display());
                println!("cargo::rustc-link-lib=static:-bundle=stdc++");
            }
            None => println!("cargo::rustc-link-lib=stdc++"),
        }
        Ok(())
    }

    /// Links the stand-in driver of the tests: a `libcuda.so` that runs the same kernels in the same emulator.
    fn link_stand_in(build: &cc::Build, output: &Path) -> Result<(), io::Error> {
        let folder = output.join("stand_in");
        fs::create_dir_all(&folder)?;
        let mut command = build.try_get_compiler().map_err(io::Error::other)?.to_command();
        command
            .args(["-shared", "-Wl,-soname,libcuda.so", "-Wl,-Bsymbolic", "-o"])
            .arg(folder.join("libcuda.so"))
            .args(STAND_IN.map(|file| format!("tests/stand_in/{file}")))
            .args(["-Wl,--whole-archive"])
            .arg(output.join("libactbench_emulated_kernels.a"))
            .args(["-Wl,--no-whole-archive"]);
        let status = command.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("linking the stand-in driver: {status}")));
        }
        println!("cargo::rustc-env=ACTBENCH_STAND_IN_FOLDER={}", folder.display());
        Ok(())
    }

    /// Writes a copy of a kernel source for each planted fault and includes it under the fault's name.
    fn plant_faults(cuda: &Path, output: &Path, source: &mut String) -> Result<(), io::Error> {
        // A fault may leave a name without a use.
        for warning in ["-Wunused-variable", "-Wunused-parameter", "-Wunused-function"] {
            let _ = writeln!(source, "#pragma GCC diagnostic ignored \"{warning}\"");
        }
        for fault in super::planted::PLANTED {
            let text = fs::read_to_string(cuda.join(fault.file).with_extension("cu"))?;
            if text.matches(fault.find).count() != 1 {
                let message = format!("{}.cu must hold the text of the fault {} exactly once", fault.file, fault.name);
                return Err(io::Error::other(message));
            }
            let copy = format!("planted_{}.cu", fault.name);
            fs::write(output.join(&copy), text.replace(fault.find, fault.replace))?;
            let _ = writeln!(source, "#undef KERNEL_PREFIX\n#define KERNEL_PREFIX \"{}/\"", fault.name);
            let _ = writeln!(source, "namespace planted_{} {{\n#include \"{copy}\"\n}}", fault.name);
        }
        Ok(())
    }

    /// The kernel sources, in a fixed order.
    fn kernels(cuda: &Path) -> Result<Vec<PathBuf>, io::Error> {
        let mut kernels = Vec::new();
        for entry in fs::read_dir(cuda)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "cu") {
                kernels.push(path);
            }
        }
        kernels.sort();
        Ok(kernels)
    }
}
