//! Which file of a crate uses which: `use` trees and paths that begin with `crate`, `super` or `self`, re-exports followed.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, TokenKind, tokens, without_tests};

/// A module path from the root of its crate: `["report", "chart", "axis"]`; empty is `lib.rs`.
pub type ModulePath = Vec<String>;

/// The files of a crate by module, and what each of them names.
#[derive(Default)]
pub struct SourceGraph {
    files: BTreeMap<ModulePath, ModuleFile>,
}

#[derive(Default)]
struct ModuleFile {
    /// Full paths that the file names, with the line.
    uses: Vec<(ModulePath, usize)>,
    /// Names that the file imports, with where they come from: the file may re-export them.
    imports: BTreeMap<String, ModulePath>,
    /// Uses and imports that begin with a plain name: of this crate only where a child module has that name.
    relative: Vec<Relative>,
}

struct Relative {
    path: ModulePath,
    line: usize,
    imported_as: Option<String>,
}

/// A file that uses another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The user.
    pub from: ModulePath,
    /// The used.
    pub to: ModulePath,
    /// Where the user names it.
    pub line: usize,
}

impl SourceGraph {
    /// The graph of the crate whose files are `sources`, each with its path from the crate's `src`.
    pub fn new<'a>(sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut graph = SourceGraph::default();
        let mut test_modules: BTreeSet<ModulePath> = BTreeSet::new();
        for (name, text) in sources {
            // The binary's root uses the library from outside.
            if name == "main.rs" || name.starts_with("bin/") {
                continue;
            }
            let module = module_of(name);
            let (kept, test_files) = without_tests(&tokens(text));
            test_modules.extend(test_files.into_iter().map(|test| [module.clone(), vec![test]].concat()));
            graph.files.insert(module.clone(), parse(&module, &kept));
        }
        graph.files.retain(|module, _| !test_modules.iter().any(|test| module.starts_with(test)));
        graph.settle_relative_paths();
        graph
    }

    /// Paths that begin with the name of a child module become full paths; others are of other crates.
    fn settle_relative_paths(&mut self) {
        let known: BTreeSet<ModulePath> = self.files.keys().cloned().collect();
        for (module, file) in &mut self.files {
            for relative in std::mem::take(&mut file.relative) {
                if known.contains(&relative.path[..=module.len()]) {
                    file.uses.push((relative.path.clone(), relative.line));
                    file.imports.extend(relative.imported_as.map(|name| (name, relative.path)));
                }
            }
        }
    }

    /// The top-level modules.
    pub fn modules(&self) -> BTreeSet<String> {
        self.files.keys().filter_map(|module| module.first().cloned()).collect()
    }

    /// Every use of one file by another, once, at its first line. The root of the crate only declares modules.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges: BTreeMap<(ModulePath, ModulePath), usize> = BTreeMap::new();
        for (from, file) in self.files.iter().filter(|(from, _)| !from.is_empty()) {
            for (path, line) in &file.uses {
                let to = self.resolve(path, 0);
                if to != *from && !to.is_empty() {
                    let first = edges.entry((from.clone(), to)).or_insert(*line);
                    *first = (*first).min(*line);
                }
            }
        }
        edges.into_iter().map(|((from, to), line)| Edge { from, to, line }).collect()
    }

    /// The file that defines `path`: the deepest module on it, or where that module imports the next name from.
    fn resolve(&self, path: &[String], depth: usize) -> ModulePath {
        let known = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length])).unwrap_or(0);
        let module = &path[..known];
        let import = path.get(known).and_then(|name| self.files.get(module)?.imports.get(name));
        match import {
            // A chain of re-exports is short; a longer one would be a cycle of them.
            Some(target) if depth < 8 && !target.starts_with(path) => {
                self.resolve(&[target.as_slice(), &path[known + 1..]].concat(), depth + 1)
            }
            _ => module.to_vec(),
        }
    }
}

/// `report/chart/mod.rs` and `report/chart.rs` are `report::chart`.
fn module_of(name: &str) -> ModulePath {
    let name = name.trim_end_matches(".rs");
    let name = name.strip_suffix("/mod").unwrap_or(name);
    name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

fn parse(module: &[String], tokens: &[Token]) -> ModuleFile {
    let mut file = ModuleFile::default();
    // Modules written inline, with the depth of braces at which each ends: their `super` is this file.
    let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.is("{") {
            if at >= 2 && tokens[at - 2].is("mod") {
                inline.push((tokens[at - 1].text.clone(), depth));
            }
            depth += 1;
        } else if token.is("}") {
            depth = depth.saturating_sub(1);
            if inline.last().is_some_and(|(_, outer)| *outer == depth) {
                inline.pop();
            }
        }
        let here = || [module, &inline.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()].concat();
        if token.is("use") {
            let mut found = Vec::new();
            at = use_tree(tokens, at + 1, &[], &mut found);
            for (path, alias) in found {
                let imported_as = alias.filter(|_| inline.is_empty());
                if let Some(full) = absolute(&here(), &path) {
                    file.uses.push((full.clone(), token.line));
                    file.imports.extend(imported_as.map(|name| (name, full)));
                } else if !path.is_empty() && inline.is_empty() {
                    file.relative.push(Relative { path: [module, &path].concat(), line: token.line, imported_as });
                }
            }
            continue;
        }
        let continues_path = at >= 2 && is_separator(tokens, at - 2);
        if token.kind == TokenKind::Word && !continues_path && is_separator(tokens, at + 1) {
            let path = inline_path(tokens, &mut at);
            if let Some(full) = absolute(&here(), &path) {
                file.uses.push((full, token.line));
            } else if inline.is_empty() {
                file.relative.push(Relative { path: [module, &path].concat(), line: token.line, imported_as: None });
            }
        }
        at += 1;
    }
    file
}

fn is_separator(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|it| it.is(":")) && tokens.get(at + 1).is_some_and(|it| it.is(":"))
}

/// Reads a `use` tree from `at` on: each leaf with the name under which it is imported; gives the position behind it.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(ModulePath, Option<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at) {
            Some(token) if token.is("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|it| !it.is("}")) {
                    at = use_tree(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|it| it.is(",")));
                }
                return at + 1;
            }
            Some(token) if token.is("*") => {
                found.push((path, None));
                return at + 1;
            }
            Some(token) if token.kind == TokenKind::Word => {
                // `a::{self}` is `a`.
                if !token.is("self") || path.is_empty() {
                    path.push(token.text.clone());
                }
                at += 1;
                if is_separator(tokens, at) {
                    at += 2;
                    continue;
                }
                let mut name = path.last().cloned();
                if tokens.get(at).is_some_and(|it| it.is("as")) {
                    name = tokens.get(at + 1).map(|it| it.text.clone());
                    at += 2;
                }
                found.push((path, name));
                return at;
            }
            // A leading `::`, or an end that the lexer did not expect: nothing of this crate.
            _ => return at + 1,
        }
    }
}

/// Every path that `tokens` import or write out, of any crate, as it stands in the source: `use a::{b, c::d}` is two.
pub fn written_paths(tokens: &[Token]) -> Vec<ModulePath> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is("use") {
            let mut found = Vec::new();
            at = use_tree(tokens, at + 1, &[], &mut found);
            paths.extend(found.into_iter().map(|(path, _)| path));
            continue;
        }
        let continues_path = at >= 2 && is_separator(tokens, at - 2);
        if tokens[at].kind == TokenKind::Word && !continues_path && is_separator(tokens, at + 1) {
            paths.push(inline_path(tokens, &mut at));
        }
        at += 1;
    }
    paths
}

/// The path that begins at `at`, which is moved to its last word.
fn inline_path(tokens: &[Token], at: &mut usize) -> ModulePath {
    let mut path = vec![tokens[*at].text.clone()];
    while is_separator(tokens, *at + 1) && tokens.get(*at + 3).is_some_and(|it| it.kind == TokenKind::Word) {
        path.push(tokens[*at + 3].text.clone());
        *at += 3;
    }
    path
}

/// `path` from the root of the crate; none where it leaves the crate.
fn absolute(module: &[String], path: &[String]) -> Option<ModulePath> {
    let mut base: ModulePath = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        _ => return None,
    }
    Some([base, rest.to_vec()].concat())
}

/// The strongly connected components of `edges` with more than one member: each is a cycle or several that share members.
pub fn cycles<T: Clone + Ord>(edges: &BTreeSet<(T, T)>) -> Vec<Vec<T>> {
    let nodes: BTreeSet<&T> = edges.iter().flat_map(|(from, to)| [from, to]).collect();
    let reachable = |start: &T| -> BTreeSet<T> {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![start.clone()];
        while let Some(node) = waiting.pop() {
            for (_, to) in edges.iter().filter(|(from, _)| *from == node) {
                if seen.insert(to.clone()) {
                    waiting.push(to.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&T, BTreeSet<T>> = nodes.iter().map(|node| (*node, reachable(node))).collect();
    let mut found: Vec<Vec<T>> = Vec::new();
    for node in &nodes {
        if found.iter().flatten().any(|member| member == *node) {
            continue;
        }
        let members: Vec<T> = nodes
            .iter()
            .filter(|other| reach[*node].contains(**other) && reach[**other].contains(*node))
            .map(|it| (*it).clone())
            .collect();
        if members.len() > 1 {
            found.push(members);
        }
    }
    found
}
