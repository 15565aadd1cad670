//! Production code of one crate, as the names that each file uses and the files that define them.
//!
//! Invariant: an import counts for the file that defines the name, however many re-exports lie between; test code counts for
//! nothing, and neither does a re-export that its own file does not use.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Ident, Item, ItemUse, UseTree, Visibility};

/// Re-exports that may lie between a name and its definition; more are a re-export of itself.
const REEXPORTS_MAX: usize = 16;

/// A path as it is written: `["crate", "mesh", "World"]`.
pub(crate) type Name = Vec<String>;

/// One import: `from` names something that `to` defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    /// The path by which `from` names it.
    pub(crate) name: String,
}

/// A module as production code sees it.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    parent: usize,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Name>,
    globs: Vec<Name>,
    used: BTreeSet<Name>,
}

/// A crate, read from its root file.
pub(crate) struct Source<F> {
    tree: Tree<F>,
}

impl<F: Fn(&Path) -> Result<String>> Source<F> {
    /// Reads the crate whose root file is `root`; `text` reads a file.
    pub(crate) fn read(root: &Path, text: F) -> Result<Self> {
        let mut tree = Tree { text, modules: Vec::new() };
        let folder = root.parent().context("a crate's root file lies in a folder")?;
        tree.read(root, folder, 0)?;
        Ok(Self { tree })
    }

    /// Every name that is used, as its `use` spells it, with the file that uses it.
    pub(crate) fn names(&self) -> BTreeSet<(&Path, Name)> {
        let mut names = BTreeSet::new();
        for module in &self.tree.modules {
            names.extend(module.used.iter().map(|name| (module.file.as_path(), module.spelled(name))));
        }
        names
    }

    /// The imports between files.
    pub(crate) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (at, module) in self.tree.modules.iter().enumerate() {
            for name in &module.used {
                let Some(to) = self.tree.resolve(at, name, REEXPORTS_MAX) else { continue };
                if *to != module.file {
                    let name = module.spelled(name).join("::");
                    imports.insert(Import { from: module.file.clone(), to: to.clone(), name });
                }
            }
        }
        imports
    }
}

/// The modules of one crate; the first is the root and its own parent.
struct Tree<F> {
    text: F,
    modules: Vec<Module>,
}

impl<F: Fn(&Path) -> Result<String>> Tree<F> {
    /// Reads a file and the files of its modules, which lie in `folder`.
    fn read(&mut self, file: &Path, folder: &Path, parent: usize) -> Result<usize> {
        let text = (self.text)(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.add(file, folder, parent, &parsed.items)
    }

    fn add(&mut self, file: &Path, folder: &Path, parent: usize, items: &[Item]) -> Result<usize> {
        let at = self.modules.len();
        self.modules.push(Module::default());
        let mut module = Module { file: file.to_owned(), parent, ..Module::default() };
        for item in items {
            let (name, attributes) = named(item);
            if attributes.iter().any(|attribute| names_tests(attribute.meta.to_token_stream())) {
                continue;
            }
            let name = name.map(ToString::to_string);
            if let Item::Use(item) = item {
                module.import(item);
            } else if let (Item::Mod(item), Some(name)) = (item, &name) {
                let inside = folder.join(name);
                let child = match &item.content {
                    Some((_, items)) => self.add(file, &inside, at, items)?,
                    None => self.read(&inside.with_extension("rs"), &inside, at)?,
                };
                module.children.insert(name.clone(), child);
            } else {
                module.items.extend(name);
                paths(item.to_token_stream(), &[], &mut module.used);
            }
        }
        if let Some(place) = self.modules.get_mut(at) {
            *place = module;
        }
        Ok(at)
    }

    /// The file that defines what `name` means in module `at`; `None` for another crate's names and for modules themselves.
    fn resolve(&self, at: usize, name: &[String], reexports: usize) -> Option<&PathBuf> {
        let module = self.modules.get(at)?;
        let (first, rest) = name.split_first()?;
        match first.as_str() {
            "crate" => self.find(0, rest, reexports),
            "self" => self.find(at, rest, reexports),
            "super" if rest.first().is_some_and(|next| next == "super") => {
                self.resolve(module.parent, rest, reexports)
            }
            "super" => self.find(module.parent, rest, reexports),
            first if module.knows(first) => self.find(at, name, reexports),
            _ => module.globs.iter().find_map(|glob| self.through(at, glob, name, reexports)),
        }
    }

    /// Like [`Tree::resolve`], for a name that must stand in module `at`.
    fn find(&self, at: usize, name: &[String], reexports: usize) -> Option<&PathBuf> {
        let module = self.modules.get(at)?;
        let (first, rest) = name.split_first()?;
        let child = module.children.get(first);
        let import = module.imports.get(first).filter(|_| child.is_none() || rest.is_empty());
        if let Some(import) = import {
            return self.resolve(at, &[import, rest].concat(), reexports.checked_sub(1)?);
        }
        if let Some(child) = child {
            return self.find(*child, rest, reexports);
        }
        if module.items.contains(first) {
            return Some(&module.file);
        }
        let found = module.globs.iter().find_map(|glob| self.through(at, glob, name, reexports));
        // What is neither defined nor imported is written by a macro of this file.
        found.or(Some(&module.file))
    }

    /// The file of `name` where a glob import of module `at` brings it.
    fn through(&self, at: usize, glob: &[String], name: &[String], reexports: usize) -> Option<&PathBuf> {
        let source = self.module(at, glob)?;
        let first = name.first()?;
        let known = source != at && self.modules.get(source)?.knows(first);
        known.then(|| self.find(source, name, reexports.checked_sub(1)?))?
    }

    /// The module that a path of modules means in module `at`.
    fn module(&self, at: usize, path: &[String]) -> Option<usize> {
        path.iter().try_fold(at, |at, part| match part.as_str() {
            "crate" => Some(0),
            "self" => Some(at),
            "super" => Some(self.modules.get(at)?.parent),
            part => self.modules.get(at)?.children.get(part).copied(),
        })
    }
}

impl Module {
    fn knows(&self, name: &str) -> bool {
        self.items.contains(name) || self.imports.contains_key(name) || self.children.contains_key(name)
    }

    /// A name as its `use` spells it.
    fn spelled(&self, name: &[String]) -> Name {
        let import =
            name.split_first().and_then(|(first, rest)| Some([self.imports.get(first)?, rest].concat()));
        import.unwrap_or_else(|| name.to_vec())
    }

    /// A private `use` is an import of its file, whether or not the name is written again (a trait is not).
    fn import(&mut self, item: &ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &mut Vec::new(), &mut found);
        for (alias, path) in found {
            if matches!(item.vis, Visibility::Inherited) {
                self.used.insert(path.clone());
            }
            match alias {
                Some(alias) => drop(self.imports.insert(alias, path)),
                None => self.globs.push(path),
            }
        }
    }
}

/// The names that a `use` brings, with their paths; a glob brings no name.
fn leaves(tree: &UseTree, prefix: &mut Name, found: &mut Vec<(Option<String>, Name)>) {
    let mut leaf = |alias: String, last: String| {
        let own = (last != "self").then_some(last);
        let alias = if alias == "self" { prefix.last().cloned().unwrap_or(alias) } else { alias };
        found.push((Some(alias), prefix.iter().cloned().chain(own).collect()));
    };
    match tree {
        UseTree::Name(name) => leaf(name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(name) => leaf(name.rename.to_string(), name.ident.to_string()),
        UseTree::Glob(_) => found.push((None, prefix.clone())),
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            leaves(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, prefix, found)),
    }
}

/// Every path in a piece of code, macro calls included; what stands under a `#[cfg(test)]` is left out.
fn paths(code: TokenStream, prefix: &[String], found: &mut BTreeSet<Name>) {
    let tokens: Vec<_> = code.into_iter().collect();
    let mut tokens = tokens.as_slice();
    while let Some((first, after)) = tokens.split_first() {
        tokens = after;
        match (first, after) {
            (TokenTree::Punct(mark), [TokenTree::Group(attribute), rest @ ..])
                if mark.as_char() == '#' && names_tests(attribute.stream()) =>
            {
                let ends = |token: &TokenTree| match token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(mark) => mark.as_char() == ';',
                    TokenTree::Ident(_) | TokenTree::Literal(_) => false,
                };
                tokens = rest
                    .split_inclusive(ends)
                    .next()
                    .and_then(|own| rest.get(own.len()..))
                    .unwrap_or_default();
            }
            // A range; after a single point stands a field or a method.
            (TokenTree::Punct(mark), [TokenTree::Punct(next), rest @ ..])
                if mark.as_char() == '.' && next.as_char() == '.' =>
            {
                tokens = rest;
            }
            (TokenTree::Punct(mark), [TokenTree::Ident(_), rest @ ..]) if mark.as_char() == '.' => {
                tokens = rest
            }
            (TokenTree::Ident(ident), after) => tokens = path(ident.to_string(), after, prefix, found),
            (TokenTree::Group(group), _) => paths(group.stream(), prefix, found),
            (TokenTree::Punct(_) | TokenTree::Literal(_), _) => {}
        }
    }
}

/// Takes the path that begins with `first`; returns the tokens behind it.
fn path<'a>(
    first: String,
    mut rest: &'a [TokenTree],
    prefix: &[String],
    found: &mut BTreeSet<Name>,
) -> &'a [TokenTree] {
    let mut name = [prefix, &[first]].concat();
    while let [TokenTree::Punct(one), TokenTree::Punct(two), next, after @ ..] = rest {
        if one.as_char() != ':' || one.spacing() != Spacing::Joint || two.as_char() != ':' {
            break;
        }
        match next {
            TokenTree::Ident(ident) => name.push(ident.to_string()),
            // `use` inside of a function.
            TokenTree::Group(group) => {
                paths(group.stream(), &name, found);
                return after;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => break,
        }
        rest = after;
    }
    found.insert(name);
    rest
}

/// The name that an item defines, if it has one, and its attributes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an open enum; the rest neither defines a name nor is a test"
)]
fn named(item: &Item) -> (Option<&Ident>, &[Attribute]) {
    match item {
        Item::Const(item) => (Some(&item.ident), &item.attrs),
        Item::Enum(item) => (Some(&item.ident), &item.attrs),
        Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
        Item::Impl(item) => (None, &item.attrs),
        Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
        Item::Mod(item) => (Some(&item.ident), &item.attrs),
        Item::Static(item) => (Some(&item.ident), &item.attrs),
        Item::Struct(item) => (Some(&item.ident), &item.attrs),
        Item::Trait(item) => (Some(&item.ident), &item.attrs),
        Item::Type(item) => (Some(&item.ident), &item.attrs),
        Item::Union(item) => (Some(&item.ident), &item.attrs),
        Item::Use(item) => (None, &item.attrs),
        _ => (None, &[]),
    }
}

/// Whether an attribute is `cfg(test)`, `cfg(any(test, …))` or `cfg(feature = "testing")`.
fn names_tests(attribute: TokenStream) -> bool {
    fn any(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == "test",
            TokenTree::Literal(literal) => literal.to_string() == "\"testing\"",
            TokenTree::Group(group) => any(group.stream()),
            TokenTree::Punct(_) => false,
        })
    }
    let mut tokens = attribute.into_iter();
    tokens.next().is_some_and(|first| first.to_string() == "cfg") && any(tokens.collect())
}
