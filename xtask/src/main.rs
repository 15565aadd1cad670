//! `cargo xtask gen | check`: generated files, and the rules no compiler checks.

#![expect(clippy::print_stderr, reason = "a command line tool speaks to a person")]

mod generate;
mod layers;
mod pure;
mod rings;
mod source;
mod tidy;

use std::path::Path;

use anyhow::{Result, bail};

const HELP: &str = "usage: cargo xtask gen     write crds/ and config/ from the Rust types
       cargo xtask check   layers, fences, rings, clocks, file rules, and that generated files are current";

fn main() -> Result<()> {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else {
        bail!("xtask has no parent folder")
    };
    match std::env::args().nth(1).as_deref() {
        Some("gen") => generate::write(root),
        Some("check") => {
            let mut wrong = layers::violations(root)?;
            wrong.extend(rings::violations(root)?);
            wrong.extend(pure::violations(root)?);
            wrong.extend(tidy::violations(root)?);
            wrong.extend(generate::stale(root)?);
            wrong.iter().for_each(|sentence| eprintln!("{sentence}"));
            if wrong.is_empty() { Ok(()) } else { bail!("{} rule(s) broken", wrong.len()) }
        }
        Some(_) | None => bail!(HELP),
    }
}
