//! Modules use only modules below them, and files form no cycle.
#![allow(clippy::unwrap_used)]

#[path = "support/imports.rs"]
mod imports;

use std::fs;
use std::path::Path;

use imports::ImportGraph;

/// From the lowest to the highest: a module may use those before it.
const ORDER: [&str; 11] =
    ["error", "panics", "units", "tokens", "data", "text", "import", "model", "plan", "eager", "probe"];

fn none() -> Vec<String> {
    Vec::new()
}

fn this_crate() -> ImportGraph {
    ImportGraph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn modules_use_only_modules_below_them() {
    assert_eq!(this_crate().against_order(&ORDER), none());
    assert_eq!(this_crate().module_cycles(), none());
}

#[test]
fn files_form_no_cycle() {
    assert_eq!(this_crate().file_cycles_in(&["error", "panics", "tokens", "units", "model", "plan", "eager"]), none());
}

/// The graph of a crate with these files under `src`.
fn graph_of(files: &[(&str, &str)]) -> ImportGraph {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    ImportGraph::read(directory.path())
}

#[test]
fn every_form_of_path_is_an_edge() {
    let user = "use crate::{b::{C, d::{self, E}}, f as g};\nfn h() { g::i(); crate::j::k(); super::l::m!() }";
    let empty = ["b/mod.rs", "b/d.rs", "f.rs", "j.rs", "l.rs"].map(|name| (name, ""));
    let mut files = vec![("lib.rs", "mod a; mod b; mod f; mod j; mod l;"), ("a.rs", user)];
    files.extend(empty);
    files[2].1 = "pub mod d;";
    let graph = graph_of(&files);
    for (used, line) in [("b/mod.rs", 1), ("b/d.rs", 1), ("f.rs", 2), ("j.rs", 2), ("l.rs", 2)] {
        assert!(graph.uses("a.rs", used)[0].starts_with(&format!("a.rs:{line} ")), "{used}");
    }
}

#[test]
fn comments_literals_and_tests_are_skipped() {
    let user = r##"
        // crate::b::X
        /* crate::b::X /* nested */ crate::b::X */
        fn f<'a>(x: &'a str) { g("crate::b::X \" crate::b::X", r#"crate::b::X" "#, '"'); }
        #[cfg(test)] use crate::b::X;
        #[cfg(test)]
        #[allow(clippy::panic)]
        fn of_tests(a: u8, b: u8) { crate::b::X; }
        #[cfg(all(test, unix))] mod tests { use crate::b::X; }
        #[cfg(test)] mod more_tests;
        struct S { #[cfg(test)] x: crate::b::X, y: u8 }
    "##;
    let graph = graph_of(&[("lib.rs", "mod a; mod b;"), ("a.rs", user), ("b.rs", "")]);
    assert_eq!(graph.uses("a.rs", "b.rs"), none());
    let product =
        graph_of(&[("lib.rs", "mod a; mod b;"), ("a.rs", "#[cfg(not(test))] use crate::b::X;"), ("b.rs", "")]);
    assert_eq!(product.uses("a.rs", "b.rs").len(), 1);
}

#[test]
fn re_exported_names_belong_to_their_file() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::Public; use crate::b::Deep;"),
        ("b/mod.rs", "mod c; mod d; pub use c::Public; pub use d::*;"),
        ("b/c.rs", "pub struct Public; use super::Deep;"),
        ("b/d.rs", "pub struct Deep;"),
    ];
    let graph = graph_of(&files);
    assert_eq!(graph.uses("a.rs", "b/mod.rs"), none());
    assert_eq!((graph.uses("a.rs", "b/c.rs").len(), graph.uses("a.rs", "b/d.rs").len()), (1, 1));
    assert_eq!(graph.uses("b/c.rs", "b/d.rs").len(), 1);
    assert_eq!(graph.file_cycles(), none());
}

#[test]
fn cycles_and_wrong_order_are_reported() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::X;"),
        ("b.rs", "pub struct X; use crate::c::Y;"),
        ("c/mod.rs", "mod d; pub use d::Y;"),
        ("c/d.rs", "pub struct Y; fn f() { crate::a::g() }"),
    ];
    let graph = graph_of(&files);
    assert_eq!(graph.module_cycles().len(), 1);
    assert_eq!(graph.file_cycles().len(), 1);
    assert!(graph.file_cycles()[0].contains("c/d.rs -> a.rs (c/d.rs:1 crate::a::g)"), "{:?}", graph.file_cycles());
    assert_eq!(graph.against_order(&["c", "b", "a"]), ["c uses a, which is above it: c/d.rs:1 crate::a::g"]);
    assert_eq!(graph.against_order(&["c", "b", "a", "e"])[0], "there is no module e");
    assert_eq!(graph.against_order(&["c", "b"])[0], "a is not in the order");
}
