//! Which file of a crate uses which: a parser of `use` declarations and paths, for tests of the order of modules.
//!
//! A test includes this file by `#[path]` and asks for the graph of a `src` directory:
//!
//! ```ignore
//! #[path = "support/imports.rs"]
//! mod imports;
//!
//! let graph = imports::ImportGraph::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
//! assert_eq!(graph.against_order(&["error", "tokens", "data"]), Vec::<String>::new()); // lowest module first
//! assert_eq!(graph.module_cycles(), Vec::<String>::new());
//! assert_eq!(graph.file_cycles(), Vec::<String>::new());
//! ```
//!
//! Every answer is a list of sentences with the files and lines at fault; an empty list is a pass.
//!
//! Counted are `use` declarations and inline paths that start with `crate`, `super`, `self`, a child module or an
//! imported name. A name that a module re-exports counts as a use of the file that declares it, so that a `mod.rs` that
//! only declares and re-exports depends on nothing and nothing depends on it. Comments, string literals and everything
//! under `#[cfg(test)]` are skipped, files of test modules included. Names that macros build are not seen.

// Each test uses what it needs of this.
#![allow(dead_code, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Re-exports of re-exports that are followed before the search gives up.
const MAX_REEXPORTS: usize = 16;

/// The files of a crate and the uses between them.
pub struct ImportGraph {
    /// For `(user, used)`, paths relative to `src`: the places where the user names the used file.
    edges: BTreeMap<(String, String), Vec<String>>,
    /// All files that were read, relative to `src`.
    files: BTreeSet<String>,
}

/// One module of the crate: a file of its own, or `mod name { ... }` in the file of its parent.
struct Module {
    file: String,
    children: BTreeSet<String>,
    imports: Vec<UseLeaf>,
    /// Names of items that the module's own text declares.
    declared: BTreeSet<String>,
    /// Inline paths, with their lines.
    paths: Vec<(Vec<String>, usize)>,
    /// How often each identifier occurs outside of `use` declarations.
    mentioned: BTreeSet<String>,
}

/// One name that a `use` declaration brings in.
#[derive(Clone)]
struct UseLeaf {
    path: Vec<String>,
    /// The name in this module; none for a glob.
    alias: Option<String>,
    exported: bool,
    line: usize,
}

#[derive(Clone, PartialEq)]
enum Token {
    Word(String),
    PathSeparator,
    Mark(char),
}

type ModulePath = Vec<String>;

impl ImportGraph {
    /// Reads the library under `src`, from `lib.rs` on, and follows its `mod` declarations.
    ///
    /// # Panics
    /// A file that cannot be read, or a `mod` without a file.
    pub fn read(src: &Path) -> ImportGraph {
        let mut modules = BTreeMap::new();
        read_module(src, &src.join("lib.rs"), Vec::new(), &mut modules);
        let mut graph = ImportGraph { edges: BTreeMap::new(), files: BTreeSet::new() };
        graph.files.extend(modules.values().map(|module| module.file.clone()));
        for (path, module) in &modules {
            graph.add_imports(&modules, path, module);
            graph.add_inline_paths(&modules, path, module);
        }
        graph
    }

    fn add_imports(&mut self, modules: &BTreeMap<ModulePath, Module>, path: &ModulePath, module: &Module) {
        for leaf in &module.imports {
            let Some(absolute) = absolute(modules, path, &leaf.path) else { continue };
            let own_child = absolute.len() > path.len() && absolute.starts_with(path);
            let used = leaf.alias.as_ref().is_some_and(|alias| module.mentioned.contains(alias));
            // A re-export of what is below the module is a name and no dependency.
            if leaf.exported && own_child && !used {
                continue;
            }
            let as_prefix = |alias: &String| module.paths.iter().any(|(path, _)| path[0] == *alias);
            // `use super::layout;` depends on what `layout::Name` names; that is an inline path.
            if modules.contains_key(&absolute) && leaf.alias.as_ref().is_some_and(as_prefix) {
                continue;
            }
            if let Some(file) = declaring_file(modules, &absolute, 0) {
                self.add_edge(&module.file, &file, leaf.line, &absolute);
            }
        }
    }

    fn add_inline_paths(&mut self, modules: &BTreeMap<ModulePath, Module>, path: &ModulePath, module: &Module) {
        for (names, line) in &module.paths {
            let imported = module.imports.iter().find(|leaf| leaf.alias.as_deref() == Some(&names[0]));
            let absolute = match imported {
                Some(leaf) => absolute(modules, path, &leaf.path)
                    .map(|before| before.into_iter().chain(names[1..].iter().cloned()).collect()),
                None => absolute(modules, path, names),
            };
            let Some(absolute): Option<ModulePath> = absolute else { continue };
            if let Some(file) = declaring_file(modules, &absolute, 0) {
                self.add_edge(&module.file, &file, *line, &absolute);
            }
        }
    }

    fn add_edge(&mut self, user: &str, used: &str, line: usize, path: &[String]) {
        if user != used {
            let evidence = format!("{user}:{line} crate::{}", path.join("::"));
            self.edges.entry((user.to_owned(), used.to_owned())).or_default().push(evidence);
        }
    }

    /// The files read, relative to `src`.
    pub fn files(&self) -> &BTreeSet<String> {
        &self.files
    }

    /// The places at which the file `user` uses the file `used`: `plan/cost.rs:9 crate::model::TokenBatch`.
    pub fn uses(&self, user: &str, used: &str) -> &[String] {
        self.edges.get(&(user.to_owned(), used.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Every use of a module that does not come before the user's in `order` (lowest first), modules that `order` leaves
    /// out, and names in `order` without a module.
    pub fn against_order(&self, order: &[&str]) -> Vec<String> {
        let rank = |file: &str| order.iter().position(|module| *module == top_module(file));
        let modules: BTreeSet<&str> =
            self.files.iter().map(|file| top_module(file)).filter(|name| *name != ROOT).collect();
        let mut wrong = Vec::new();
        wrong.extend(
            modules.iter().filter(|name| !order.contains(name)).map(|name| format!("{name} is not in the order")),
        );
        wrong.extend(
            order.iter().filter(|name| !modules.contains(*name)).map(|name| format!("there is no module {name}")),
        );
        for ((user, used), evidence) in &self.edges {
            let (above, below) = (top_module(user), top_module(used));
            if above != below && above != ROOT && rank(user) <= rank(used) {
                wrong.push(format!("{above} uses {below}, which is above it: {}", evidence.join(", ")));
            }
        }
        wrong
    }

    /// Each group of top-level modules that use each other in a circle.
    pub fn module_cycles(&self) -> Vec<String> {
        let mut edges: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for ((user, used), evidence) in &self.edges {
            let (above, below) = (top_module(user).to_owned(), top_module(used).to_owned());
            if above != below {
                edges.entry((above, below)).or_default().extend(evidence.iter().cloned());
            }
        }
        cycles(&edges)
    }

    /// Each group of files that use each other in a circle, within a module or across modules.
    pub fn file_cycles(&self) -> Vec<String> {
        cycles(&self.edges)
    }

    /// [`ImportGraph::file_cycles`] among the files of some top-level modules alone.
    pub fn file_cycles_in(&self, modules: &[&str]) -> Vec<String> {
        let inside = |file: &str| modules.contains(&top_module(file));
        let edges = self.edges.iter().filter(|((user, used), _)| inside(user) && inside(used));
        cycles(&edges.map(|(edge, evidence)| (edge.clone(), evidence.clone())).collect())
    }
}

/// The name that stands for `lib.rs` among the top-level modules.
const ROOT: &str = "lib";

/// The top-level module of a file: `plan` of `plan/sources/model.rs` and of `plan.rs`.
fn top_module(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The strongly connected groups of more than one node, each as one sentence that lists the uses inside it.
fn cycles(edges: &BTreeMap<(String, String), Vec<String>>) -> Vec<String> {
    let mut successors: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (user, used) in edges.keys() {
        successors.entry(user).or_default().push(used);
    }
    let nodes: BTreeSet<&String> = successors.keys().copied().collect();
    let reachable: BTreeMap<&String, BTreeSet<&String>> = nodes
        .iter()
        .map(|start| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![*start]);
            while let Some(node) = open.pop() {
                let next = successors.get(node).into_iter().flatten().copied();
                open.extend(next.filter(|used| seen.insert(*used)));
            }
            (*start, seen)
        })
        .collect();
    let mut groups: BTreeSet<Vec<&String>> = BTreeSet::new();
    for node in &nodes {
        let group: Vec<&String> = reachable[node]
            .iter()
            .copied()
            .filter(|other| reachable.get(other).is_some_and(|seen| seen.contains(node)))
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    let sentence = |group: &Vec<&String>| {
        let inside = edges.iter().filter(|((user, used), _)| group.contains(&user) && group.contains(&used));
        let uses: Vec<String> = inside
            .map(|((user, used), evidence)| {
                format!("{user} -> {used} ({})", evidence.first().map_or("", String::as_str))
            })
            .collect();
        format!("cycle of {} files or modules: {}", group.len(), uses.join("; "))
    };
    groups.iter().map(sentence).collect()
}

/// `names` as a path from the crate's root, or none for another crate's.
fn absolute(modules: &BTreeMap<ModulePath, Module>, module: &ModulePath, names: &[String]) -> Option<ModulePath> {
    let first = names.first()?;
    let mut base = module.clone();
    let mut rest = names;
    match first.as_str() {
        "crate" => {
            base.clear();
            rest = &names[1..];
        }
        "self" => rest = &names[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        name if modules.get(module).is_some_and(|own| own.children.contains(name)) => {}
        _ => return None,
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The file that declares what the absolute path names: re-exports are followed.
fn declaring_file(modules: &BTreeMap<ModulePath, Module>, path: &[String], depth: usize) -> Option<String> {
    let known = (0..=path.len()).rev().find(|len| modules.contains_key(&path[..*len]))?;
    let owner = &modules[&path[..known]];
    let Some(name) = path.get(known) else { return Some(owner.file.clone()) };
    if owner.declared.contains(name) || depth == MAX_REEXPORTS {
        return Some(owner.file.clone());
    }
    let owner_path = path[..known].to_vec();
    if let Some(leaf) = owner.imports.iter().find(|leaf| leaf.alias.as_ref() == Some(name)) {
        let mut target = absolute(modules, &owner_path, &leaf.path)?;
        target.extend(path[known + 1..].iter().cloned());
        return declaring_file(modules, &target, depth + 1);
    }
    for leaf in owner.imports.iter().filter(|leaf| leaf.alias.is_none()) {
        let Some(target) = absolute(modules, &owner_path, &leaf.path) else { continue };
        if modules.get(&target).is_some_and(|globbed| globbed.declared.contains(name)) {
            return Some(modules[&target].file.clone());
        }
    }
    Some(owner.file.clone())
}

/// Reads the file of the module `path` and those of its children.
fn read_module(src: &Path, file: &Path, path: ModulePath, modules: &mut BTreeMap<ModulePath, Module>) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let relative = file.strip_prefix(src).unwrap_or(file).to_string_lossy().replace('\\', "/");
    let tokens = without_tests(tokenize(&text));
    let mut children = Vec::new();
    parse_items(&tokens, &relative, path, modules, &mut children);
    for child in children {
        let directory: PathBuf = child.iter().fold(src.to_path_buf(), |path, part| path.join(part));
        let flat = directory.with_extension("rs");
        let child_file = if flat.exists() { flat } else { directory.join("mod.rs") };
        read_module(src, &child_file, child, modules);
    }
}

/// Tokens with their lines. Comments, literals and lifetimes are left out; a string literal becomes `"`.
fn tokenize(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(offset, c)| chars.get(at + offset) == Some(&c));
    while at < chars.len() {
        let c = chars[at];
        let begin = at;
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += 1;
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string_end(&chars, at) {
            at = end;
            tokens.push((Token::Mark('"'), line));
        } else if c == '"' || starts(at, "b\"") || starts(at, "c\"") {
            at += if c == '"' { 1 } else { 2 };
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            tokens.push((Token::Mark('"'), line));
        } else if c == '\'' {
            let is_char = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
            if is_char {
                at += if chars[at + 1] == '\\' { 3 } else { 2 };
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
            }
            at += 1;
        } else if c.is_alphabetic() || c == '_' {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            tokens.push((Token::Word(chars[begin..at].iter().collect()), line));
        } else if c.is_ascii_digit() {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
        } else if starts(at, "::") {
            at += 2;
            tokens.push((Token::PathSeparator, line));
        } else {
            at += 1;
            if !c.is_whitespace() {
                tokens.push((Token::Mark(c), line));
            }
        }
        line += chars[begin..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The end of a raw string literal that starts at `at`, if one does.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let mut quote = at;
    while matches!(chars.get(quote), Some('b' | 'c')) && quote == at {
        quote += 1;
    }
    if chars.get(quote) != Some(&'r') {
        return None;
    }
    quote += 1;
    let hashes = chars[quote..].iter().take_while(|c| **c == '#').count();
    if chars.get(quote + hashes) != Some(&'"') {
        return None;
    }
    let mut end = quote + hashes + 1;
    while end < chars.len() {
        if chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    Some(end)
}

fn is_mark(tokens: &[(Token, usize)], at: usize, mark: char) -> bool {
    tokens.get(at).is_some_and(|(token, _)| *token == Token::Mark(mark))
}

fn word(tokens: &[(Token, usize)], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((Token::Word(word), _)) => Some(word),
        _ => None,
    }
}

/// The index after the bracket that closes the one at `at`.
fn after_bracket(tokens: &[(Token, usize)], at: usize) -> usize {
    let (mut depth, mut end) = (0usize, at);
    while end < tokens.len() {
        match &tokens[end].0 {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        end += 1;
        if depth == 0 {
            break;
        }
    }
    end
}

/// The tokens without items under `#[cfg(test)]`, or under any condition that names `test` outside of `not(..)`.
fn without_tests(tokens: Vec<(Token, usize)>) -> Vec<(Token, usize)> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let inner = usize::from(is_mark(&tokens, at + 1, '!'));
        let is_attribute = is_mark(&tokens, at, '#') && is_mark(&tokens, at + 1 + inner, '[');
        if !is_attribute {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = after_bracket(&tokens, at + 1 + inner);
        let condition = &tokens[at..end];
        let names = |name: &str| condition.iter().any(|(token, _)| *token == Token::Word(name.to_owned()));
        if !(word(&tokens, at + 2 + inner) == Some("cfg") && names("test") && !names("not")) {
            // Attributes name no module: derives and lints only.
            at = end;
            continue;
        }
        if inner == 1 {
            return Vec::new();
        }
        at = end;
        while is_mark(&tokens, at, '#') {
            at = after_bracket(&tokens, at + 1);
        }
        at = after_item(&tokens, at);
    }
    kept
}

/// The index after the item, statement or field that starts at `at`.
fn after_item(tokens: &[(Token, usize)], at: usize) -> usize {
    let mut end = at;
    if word(tokens, end) == Some("pub") {
        end += 1;
        if is_mark(tokens, end, '(') {
            end = after_bracket(tokens, end);
        }
    }
    let first = word(tokens, end).unwrap_or_default();
    let to_semicolon =
        ["use", "let", "const", "static", "type"].contains(&first) && word(tokens, end + 1) != Some("fn");
    let is_item = ["fn", "mod", "struct", "enum", "trait", "impl", "unsafe", "async", "const", "extern", "macro_rules"]
        .contains(&first);
    while end < tokens.len() {
        match &tokens[end].0 {
            Token::Mark(';') => return end + 1,
            Token::Mark(',') if !to_semicolon && !is_item => return end + 1,
            Token::Mark('}') => return end,
            Token::Mark('{') if !to_semicolon => return after_bracket(tokens, end),
            Token::Mark('(' | '[' | '{') => end = after_bracket(tokens, end),
            _ => end += 1,
        }
    }
    end
}

/// Takes the items of one module; modules in files of their own are added to `external`.
fn parse_items(
    tokens: &[(Token, usize)],
    file: &str,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
    external: &mut Vec<ModulePath>,
) {
    let mut module = Module {
        file: file.to_owned(),
        children: BTreeSet::new(),
        imports: Vec::new(),
        declared: BTreeSet::new(),
        paths: Vec::new(),
        mentioned: BTreeSet::new(),
    };
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].1;
        let Some(name) = word(tokens, at) else {
            at += 1;
            continue;
        };
        let next = word(tokens, at + 1);
        match (name, next) {
            ("mod", Some(child)) => {
                let mut child_path = path.clone();
                child_path.push(child.to_owned());
                module.children.insert(child.to_owned());
                if is_mark(tokens, at + 2, '{') {
                    let end = after_bracket(tokens, at + 2);
                    parse_items(&tokens[at + 3..end - 1], file, child_path, modules, external);
                    at = end;
                } else {
                    external.push(child_path);
                    at += 3;
                }
                continue;
            }
            ("use", _) if !is_mark(tokens, at + 1, '<') => {
                let exported = at > 0 && (word(tokens, at - 1) == Some("pub") || is_mark(tokens, at - 1, ')'));
                at = parse_use(tokens, at + 1, &[], exported, line, &mut module.imports) + 1;
                continue;
            }
            ("fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union", Some(declared)) => {
                module.declared.insert(declared.to_owned());
                at += 2;
                continue;
            }
            ("macro_rules", _) => {
                module.declared.extend(word(tokens, at + 2).map(str::to_owned));
                at += 3;
                continue;
            }
            _ => {}
        }
        module.mentioned.insert(name.to_owned());
        let mut names = vec![name.to_owned()];
        while tokens.get(at + 1).is_some_and(|(token, _)| *token == Token::PathSeparator) {
            let Some(name) = word(tokens, at + 2) else { break };
            names.push(name.to_owned());
            at += 2;
        }
        if names.len() > 1 {
            module.paths.push((names, line));
        }
        at += 1;
    }
    modules.insert(path, module);
}

/// Takes one tree of a `use` declaration; gives the index of the mark that ends it.
fn parse_use(
    tokens: &[(Token, usize)],
    mut at: usize,
    before: &[String],
    exported: bool,
    line: usize,
    leaves: &mut Vec<UseLeaf>,
) -> usize {
    let mut path = before.to_vec();
    if tokens.get(at).is_some_and(|(token, _)| *token == Token::PathSeparator) {
        at += 1;
    }
    loop {
        if is_mark(tokens, at, '{') {
            at += 1;
            while at < tokens.len() && !is_mark(tokens, at, '}') {
                at = parse_use(tokens, at, &path, exported, line, leaves);
                at += usize::from(is_mark(tokens, at, ','));
            }
            return at + 1;
        }
        if is_mark(tokens, at, '*') {
            leaves.push(UseLeaf { path, alias: None, exported, line });
            return at + 1;
        }
        let Some(name) = word(tokens, at) else { return at + 1 };
        // `use path::{self}` names the path itself.
        if name != "self" || path.is_empty() {
            path.push(name.to_owned());
        }
        at += 1;
        if tokens.get(at).is_some_and(|(token, _)| *token == Token::PathSeparator) {
            at += 1;
            continue;
        }
        let mut alias = path.last().cloned();
        if word(tokens, at) == Some("as") {
            alias = word(tokens, at + 1).map(str::to_owned);
            at += 2;
        }
        leaves.push(UseLeaf { path, alias, exported, line });
        return at;
    }
}
