//! The table agrees with the sources, the compiler's table and the file headers.

use super::*;

#[test]
fn every_kernel_file_has_an_entry() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".cu"))
        .collect();
    files.sort();
    assert_eq!(files, SOURCES.iter().map(|source| source.file).collect::<Vec<_>>());
}

#[test]
fn registered_names_are_those_of_the_sources() {
    for source in SOURCES {
        // The first argument of the macros that end in KERNEL, one a line.
        let defined = source.text.lines().filter_map(|line| {
            let (name, arguments) = line.split_once('(')?;
            let is_macro = name.ends_with("_KERNEL") && !name.contains(' ');
            is_macro.then(|| arguments.split([',', ')']).next()).flatten()
        });
        let (mut defined, mut registered): (Vec<&str>, Vec<&str>) =
            (defined.collect(), source.kernels().map(|kernel| kernel.name).collect());
        defined.sort_unstable();
        registered.sort_unstable();
        assert_eq!(registered, defined, "{}", source.file);
    }
}

#[test]
fn registered_names_are_those_of_the_compiler() {
    let table = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/resources.txt"));
    let table = table.unwrap();
    let lines = table.lines().filter(|line| !line.starts_with(['#', ' ']) && !line.starts_with("kernel "));
    let compiled: Vec<&str> = lines.map(|line| line.split_whitespace().next().unwrap()).collect();
    let mut registered: Vec<&str> = kernels().map(|kernel| kernel.name).collect();
    registered.sort_unstable();
    assert_eq!(registered, compiled);
    assert_eq!(source_of("linear_residual_mma_f16").unwrap().file, "linear_mma.cu");
    assert!(source_of("linear_residual_mma").is_none());
}

#[test]
fn signatures_have_the_registered_parameters() {
    for source in SOURCES {
        assert_eq!(source.text.matches(" name(").count(), 1, "{}", source.file);
        let parameters_of = |name| {
            let signature = source.text.split_once(name)?.1.split_once(')')?.0;
            Some(signature.split(',').count())
        };
        assert_eq!(Some(source.parameters), parameters_of(" name("), "{}", source.file);
        for kernel in source.kernels() {
            let is_qkv = kernel.operation == Operation::LinearQkv;
            let expected = if is_qkv { parameters_of(" qkv_name(") } else { None };
            assert_eq!(kernel.own_parameters, expected, "{}", kernel.name);
            assert_eq!(source.parameters_of(kernel.name), expected.or(Some(source.parameters)));
        }
    }
}

#[test]
fn source_for_one_architecture_excludes_others() {
    let only: Vec<_> = SOURCES.iter().filter(|source| !source.is_for(Architecture::new(100))).collect();
    assert_eq!(only.iter().map(|source| source.file).collect::<Vec<_>>(), ["attention_wgmma.cu", "linear_wgmma.cu"]);
    assert!(SOURCES.iter().all(|source| source.is_for(Architecture::new(90))));
    assert!(!only.iter().any(|source| source.is_for(Architecture::new(89))));
}

#[test]
fn launches_are_those_of_the_file_headers() {
    let launched = |name: &str| named(name).map(|kernel| (kernel.threads, kernel.shared_bytes));
    assert_eq!(launched("linear_residual_wgmma_bf16"), Some((384, 214_016)));
    assert_eq!(launched("linear_mma_f16"), Some((256, 49_152)));
    assert_eq!(launched("attention_mma_bf16_64"), Some((128, 40_960)));
    assert_eq!(launched("attention_mma_f16_128"), Some((128, 81_920)));
    assert_eq!(launched("attention_mma_bf16_256"), Some((128, 98_304)));
    assert_eq!(launched("attention_wgmma_f16_64"), Some((384, 99_328)));
    assert_eq!(launched("attention_wgmma_bf16_128"), Some((384, 197_632)));
    assert_eq!(launched("attention_bf16"), Some((128, 0)));
    assert_eq!(launched("rms_norm_wide_f32"), Some((256, 0)));
}

#[test]
fn attention_kernels_are_chosen_by_head_width() {
    let name = |variant, head_dim| find_attention(variant, DType::Bf16, head_dim).map(|kernel| kernel.name);
    assert_eq!(name(Variant::Mma, 64), Some("attention_mma_bf16_64"));
    assert_eq!(name(Variant::Mma, 72), Some("attention_mma_bf16_128"));
    assert_eq!(name(Variant::Mma, 256), Some("attention_mma_bf16_256"));
    assert_eq!(name(Variant::Plain, 256), Some("attention_bf16"));
    assert_eq!(name(Variant::Mma, 257), None);
    assert_eq!(
        [64, 128].map(|head_dim| name(Variant::Wgmma, head_dim)),
        [Some("attention_wgmma_bf16_64"), Some("attention_wgmma_bf16_128")]
    );
    assert_eq!([56, 72, 256].map(|head_dim| name(Variant::Wgmma, head_dim)), [None; 3]);
}

#[test]
fn blocks_are_whole_clusters_for_each_tile_of_n() {
    let sizes = [(1, 1), (128, 256), (129, 256), (257, 257), (1867, 2048)];
    assert_eq!(sizes.map(|(m, n)| LINEAR_WGMMA_TILE.blocks(m, n)), [2, 2, 2, 8, 128]);
    assert_eq!(sizes.map(|(m, n)| LINEAR_MMA_TILE.blocks(m, n)), [1, 2, 4, 9, 240]);
    assert_eq!((LINEAR_WGMMA_TILE.multicast_n(), LINEAR_MMA_TILE.multicast_n()), (128, 128));
}

/// The model of tiles and waves: a persistent block has every `blocks`-th tile.
#[test]
fn persistent_blocks_share_all_tiles_evenly() {
    let tile = LINEAR_WGMMA_TILE;
    // Rows, columns, multiprocessors; blocks and the most tiles of one. 2048 rows of the 1B's kv, q and gate and up
    // projections on 132 multiprocessors, ragged rows, seven tiles of two clusters, and a device of one multiprocessor.
    let cases = [
        ((2048, 1024, 132), (64, 1)),
        ((2048, 2048, 132), (128, 1)),
        ((2048, 16384, 132), (132, 8)),
        ((1900, 2048, 132), (128, 1)),
        ((8192, 16384, 114), (114, 36)),
        ((200, 1752, 4), (4, 4)),
        ((130, 264, 1), (2, 2)),
        ((0, 264, 132), (0, 0)),
    ];
    for ((m, n, multiprocessors), expected) in cases {
        let blocks = tile.persistent_blocks(m, n, multiprocessors);
        assert_eq!((blocks, tile.waves(m, n, multiprocessors)), expected, "{m} x {n} on {multiprocessors}");
        let tiles_of = |block: usize| (block..tile.blocks(m, n)).step_by(blocks).count();
        let counts: Vec<usize> = (0..blocks).map(tiles_of).collect();
        assert_eq!(counts.iter().sum::<usize>(), tile.blocks(m, n));
        assert_eq!(counts.iter().max().copied().unwrap_or(0), expected.1);
        // Both blocks of a cluster have as many, which its barriers rely on.
        assert!(counts.chunks(2).all(|cluster| cluster[0] == cluster[1]), "{counts:?}");
    }
}
