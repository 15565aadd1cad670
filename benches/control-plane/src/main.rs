//! `make bench-control-plane`: what the index and the publication cost at four sizes of cluster, and how that grows.
//!
//!     ambit-control-plane-bench [DIVISOR]
//!
//! Invariant: CPU time of the one thread that works is measured, so a busy machine does not show; every row is printed
//! with the exponent of its growth from the smallest size to the largest: 1.00 is linear, 0.00 does not grow.

#![expect(clippy::print_stdout, reason = "a benchmark speaks to a person")]

mod clock;
mod cluster;
mod rows;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All rows; sizes are divided by the first argument, for a quick look.
fn run() -> Result<()> {
    let divisor = match std::env::args().nth(1) {
        Some(word) => word.parse().with_context(|| format!("{word:?} is not a number"))?,
        None => 1,
    };
    table::print_head();
    for row in rows::ROWS {
        let mut points = Vec::with_capacity(row.sizes.len());
        for size in row.sizes {
            let size = size / divisor;
            points.push((size, (row.measure)(size)?));
        }
        table::print(row.name, row.target, &points);
    }
    Ok(())
}
