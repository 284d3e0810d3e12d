//! Compiles the CUDA kernels for the emulator with the C++ compiler (feature `emulator`), and for tests mutants of them and
//! the fake driver (feature `testing`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    if let Err(error) = emulator::compile() {
        println!("cargo::error={error}");
    }
}

#[cfg(feature = "testing")]
#[path = "tests/mutants/list.rs"]
mod mutants;

/// The emulator, and one C++ source that includes all kernels, each file in its own namespace.
#[cfg(feature = "emulator")]
mod emulator {
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};
    use std::{env, fs, io};

    /// Set by `scripts/check_kernels_sanitized.sh`: kernels and emulator with AddressSanitizer.
    const SANITIZED: &str = "ACTBENCH_EMULATOR_SANITIZED";

    /// Headers outside of the namespaces: they are included once in a file.
    const HEADERS: [&str; 4] = ["attention.cuh", "epilogue.cuh", "ptx_sm90.cuh", "ring.cuh"];

    /// Files among which mutants are divided.
    #[cfg(feature = "testing")]
    const MUTANT_FILES: usize = 4;

    /// The sources of the fake driver.
    #[cfg(feature = "testing")]
    const FAKE_DRIVER: [&str; 6] =
        ["device.cpp", "streams.cpp", "memory.cpp", "modules.cpp", "graphs.cpp", "tensor_maps.cpp"];

    pub fn compile() -> Result<(), io::Error> {
        println!("cargo::rerun-if-env-changed={SANITIZED}");
        println!("cargo::rerun-if-changed=cuda");
        let variable = |name: &str| env::var(name).map_err(io::Error::other);
        if variable("CARGO_CFG_TARGET_ARCH")? != "x86_64" || variable("CARGO_CFG_TARGET_OS")? != "linux" {
            return Err(io::Error::other(
                "the feature `emulator` needs x86-64 Linux; build without it on this machine",
            ));
        }
        let cuda = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("cuda");
        let output = PathBuf::from(variable("OUT_DIR")?);
        let combined = output.join("kernels.cpp");
        let mut source = includes() + "#define KERNEL_PREFIX \"\"\n";
        for kernel in kernels(&cuda)? {
            let name = kernel.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // Writing to a string cannot fail.
            let _ = writeln!(source, "namespace {name}_kernels {{\n#include \"{name}.cu\"\n}}");
        }
        source
            .push_str("extern \"C\" const int actbench_emulated_kernels;\nconst int actbench_emulated_kernels = 1;\n");
        let is_sanitized = env::var_os(SANITIZED).is_some();
        #[cfg_attr(not(feature = "testing"), expect(unused_mut, reason = "mutants are in files of their own"))]
        let mut files = vec![combined.clone()];
        #[cfg(feature = "testing")]
        {
            source.push_str("namespace self_test {\n#include \"emulator/self_test.cu\"\n}\n");
            if !is_sanitized {
                files.extend(write_mutants(&cuda, &output, &mut source)?);
            }
        }
        fs::write(&combined, source)?;
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            .debug(false)
            .include(&cuda)
            .include(cuda.join("include"))
            .include(&output)
            // Multiplications and additions are fused only where the source says `fmaf`, as with --fmad=false.
            .flag("-ffp-contract=off")
            // Kernels access elements as vectors, which a device compiler allows.
            .flag("-fno-strict-aliasing")
            .flag("-Wno-unknown-pragmas")
            // A note on tensor maps by value, which concerns compilers from before 2011.
            .flag("-Wno-psabi")
            .files(files)
            .files(
                ["asynchronous.cpp", "scheduler.cpp", "memory.cpp", "launch.cpp"]
                    .map(|name| cuda.join("emulator").join(name)),
            );
        if is_sanitized {
            // Addresses, and the undefined behavior that a device would trap: misaligned accesses and indices beyond an array.
            build.flags([
                "-fsanitize=address,alignment,bounds",
                "-fno-sanitize-recover=all",
                "-fno-omit-frame-pointer",
            ]);
            build.opt_level(1).debug(true);
            println!("cargo::rustc-link-lib=asan");
            println!("cargo::rustc-link-lib=ubsan");
        }
        // The C++ library is linked statically: binaries may be copied to machines without it.
        build.cpp_link_stdlib(None);
        build.try_compile("actbench_emulated_kernels").map_err(io::Error::other)?;
        link_cpp_library(&build)?;
        #[cfg(feature = "testing")]
        link_fake_driver(&build, &output)?;
        Ok(())
    }

    fn include(header: &str) -> String {
        format!("#include \"{header}\"\n")
    }

    /// The lines that include [`HEADERS`].
    fn includes() -> String {
        HEADERS.map(include).concat()
    }

    /// Links the C++ library, the static one if the compiler has it.
    fn link_cpp_library(build: &cc::Build) -> Result<(), io::Error> {
        let mut command = build.try_get_compiler().map_err(io::Error::other)?.to_command();
        let output = command.arg("-print-file-name=libstdc++.a").output()?;
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        // A compiler without the file prints the bare name.
        match path.parent().filter(|_| path.is_absolute()) {
            Some(directory) => {
                println!("cargo::rustc-link-search=native={}", directory.display());
                println!("cargo::rustc-link-lib=static:-bundle=stdc++");
            }
            None => println!("cargo::rustc-link-lib=stdc++"),
        }
        Ok(())
    }

    /// Links the fake driver of the tests: a `libcuda.so` that runs the same kernels in the same emulator.
    #[cfg(feature = "testing")]
    fn link_fake_driver(build: &cc::Build, output: &Path) -> Result<(), io::Error> {
        for file in FAKE_DRIVER.iter().chain(&["internals.h"]) {
            println!("cargo::rerun-if-changed=tests/fake_driver/{file}");
        }
        let directory = output.join("fake_driver");
        fs::create_dir_all(&directory)?;
        let mut command = build.try_get_compiler().map_err(io::Error::other)?.to_command();
        command
            .args(["-shared", "-Wl,-soname,libcuda.so", "-Wl,-Bsymbolic", "-o"])
            .arg(directory.join("libcuda.so"))
            .args(FAKE_DRIVER.map(|file| format!("tests/fake_driver/{file}")))
            .args(["-Wl,--whole-archive"])
            .arg(output.join("libactbench_emulated_kernels.a"))
            .args(["-Wl,--no-whole-archive"]);
        let status = command.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("linking the fake driver: {status}")));
        }
        println!("cargo::rustc-env=ACTBENCH_FAKE_DRIVER_DIRECTORY={}", directory.display());
        Ok(())
    }

    /// Writes a changed copy of a kernel source for each mutant and includes it under the mutant's name, in several files, which
    /// compile at the same time. Returns them; `source` refers to each, so that a linker takes them from the archive.
    #[cfg(feature = "testing")]
    fn write_mutants(cuda: &Path, output: &Path, source: &mut String) -> Result<Vec<PathBuf>, io::Error> {
        println!("cargo::rerun-if-changed=tests/mutants");
        let mut prelude = includes();
        // A mutant may leave a name without a use.
        for warning in ["-Wunused-variable", "-Wunused-parameter", "-Wunused-function"] {
            let _ = writeln!(prelude, "#pragma GCC diagnostic ignored \"{warning}\"");
        }
        let mut parts = vec![prelude; MUTANT_FILES];
        let mut headers = Vec::new();
        for header in HEADERS {
            headers.push((include(header), fs::read_to_string(cuda.join("include").join(header))?));
        }
        for (number, mutant) in super::mutants::mutants().enumerate() {
            let mut text = fs::read_to_string(cuda.join(mutant.file).with_extension("cu"))?;
            if !text.contains(mutant.find) {
                // A mutant of a header is one for this kernel alone.
                for (include, header) in headers.iter().filter(|(_, header)| header.contains(mutant.find)) {
                    text = text.replace(include, header);
                }
            }
            if text.matches(mutant.find).count() != 1 {
                let message =
                    format!("{}.cu must contain the text of mutant {} exactly once", mutant.file, mutant.name);
                return Err(io::Error::other(message));
            }
            let copy = format!("mutant_{}.cu", mutant.name);
            fs::write(output.join(&copy), text.replace(mutant.find, mutant.replace))?;
            let part = &mut parts[number % MUTANT_FILES];
            let _ = writeln!(part, "#undef KERNEL_PREFIX\n#define KERNEL_PREFIX \"{}/\"", mutant.name);
            let _ = writeln!(part, "namespace mutant_{} {{\n#include \"{copy}\"\n}}", mutant.name);
        }
        let mut files = Vec::new();
        for (number, mut part) in parts.into_iter().enumerate() {
            let symbol = format!("actbench_mutants_{number}");
            let _ = writeln!(part, "extern \"C\" const int {symbol};\nconst int {symbol} = 1;");
            let _ = writeln!(
                source,
                "extern \"C\" const int {symbol};\nextern \"C\" const int* const {symbol}_address;\n\
                 const int* const {symbol}_address = &{symbol};"
            );
            let file = output.join(format!("mutants_{number}.cpp"));
            fs::write(&file, part)?;
            files.push(file);
        }
        Ok(files)
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
