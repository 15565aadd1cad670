use anyhow::Context;

use super::*;

/// What is said of a crate of these files.
fn said(files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<_, _> =
        files.iter().map(|(name, text)| (Path::new("/c").join(name), *text)).collect();
    let read = |path: &Path| files.get(path).map(|text| (*text).to_owned()).context("is not there");
    let root = Path::new("/c/lib.rs");
    sentences(Path::new("/c"), root, &Source::read(root, read).unwrap().imports())
}

#[test]
fn no_crate_has_a_ring() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert_eq!(violations(root).unwrap(), Vec::<String>::new());
}

#[test]
fn a_ring_is_named_with_its_modules_and_the_imports_that_close_it() {
    let found = said(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "pub struct B(super::c::C);"),
        ("c.rs", "pub struct C; fn f() { println!(\"{:?}\", crate::a::A::new()) }"),
    ]);
    let steps = "a.rs imports crate::b::B, b.rs imports super::c::C, c.rs imports crate::a::A::new";
    assert_eq!(
        found,
        [
            format!("lib.rs: a ring of modules, a, b, c: {steps}"),
            format!("lib.rs: a ring of files, a.rs, b.rs, c.rs: {steps}")
        ]
    );
}

#[test]
fn what_points_one_way_is_no_ring() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::A;"),
        ("a.rs", "mod part; use crate::b; pub struct A(b::B, part::P);"),
        ("a/part.rs", "use std::fmt; use crate::b::*; pub struct P(B);"),
        ("b.rs", "pub struct B; impl B { fn a(&self) { self.a() } }"),
    ];
    assert_eq!(said(&files), Vec::<String>::new());
}

#[test]
fn files_of_one_module_may_be_a_ring_too_and_so_may_modules_without_a_ring_of_files() {
    let files = said(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod part; use part::P; pub struct A(P);"),
        ("a/part.rs", "use super::A; pub struct P(Box<A>);"),
    ]);
    assert_eq!(
        files,
        ["lib.rs: a ring of files, a.rs, a/part.rs: a.rs imports part::P, a/part.rs imports super::A"]
    );
    let modules = said(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "mod low; mod high;"),
        ("a/low.rs", "pub struct Low;"),
        ("a/high.rs", "use crate::b::B; pub struct High(B);"),
        ("b.rs", "use crate::a::low::Low; pub struct B(Low);"),
    ]);
    assert_eq!(modules.len(), 1, "{modules:?}");
    assert!(modules[0].starts_with("lib.rs: a ring of modules, a, b: "), "{modules:?}");
}

#[test]
fn an_import_counts_for_the_file_that_defines_the_name() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::A as Renamed; pub use b::*;"),
        ("a.rs", "mod part; pub use part::A;"),
        ("a/part.rs", "use crate::B; pub struct A(B);"),
        ("b.rs", "use crate::Renamed; pub struct B(Box<Renamed>);"),
    ];
    let found = said(&files);
    assert!(
        found[1].contains("files, a/part.rs, b.rs: a/part.rs imports crate::B, b.rs imports crate::Renamed"),
        "{found:?}"
    );
    // Who merely hands a name on does not depend on it.
    let hands_on = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod part; pub use part::P; pub struct A;"),
        ("a/part.rs", "use super::A; pub struct P(A);"),
    ];
    assert_eq!(said(&hands_on), Vec::<String>::new());
}

#[test]
fn test_code_is_ignored() {
    let files = [
        ("lib.rs", "mod a; mod b; #[cfg(any(test, feature = \"testing\"))] mod testing;"),
        ("a.rs", "use crate::b::B; pub struct A(B); #[cfg(test)] mod tests { use crate::b::B; }"),
        (
            "b.rs",
            "pub struct B; impl B { #[cfg(test)] fn a(&self) -> crate::a::A { todo!() } fn b(&self) {} }\n#[cfg(test)] use crate::a::A;\n#[cfg(test)]\nmod tests;",
        ),
    ];
    assert_eq!(said(&files), Vec::<String>::new());
}
