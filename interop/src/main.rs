//! The interop harness: Peerage against foreign libp2p implementations over loopback.
//!
//! ```text
//! cargo run --release -p peerage-interop -- matrix            # every implementation whose toolchain is there
//! cargo run --release -p peerage-interop -- matrix --only rust
//! cargo run --release -p peerage-interop -- matrix --only go,js --rows FIND_NODE,ping   # rows by a part of their names
//! cargo run --release -p peerage-interop --features post-quantum -- matrix --post-quantum
//! ```
//!
//! Each foreign implementation has a driver program in `interop/drivers/`; `driver` is the same for our own node. The runner starts one of each,
//! lets either dial the other, and has the dialler try everything.

mod channel;
mod driver;
mod kad;
mod limits;
mod matrix;
mod process;
mod report;
mod streams;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(name = "peerage-interop", about, version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs every check against every implementation and prints the table. Exits 1 when a check fails.
    Matrix(matrix::Options),
    /// Runs a Peerage node that obeys the drivers' contract (interop/drivers/README.md) on standard input and output.
    Driver(driver::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Matrix(options) => matrix::run(options).await,
        Command::Driver(options) => driver::run(options).await.map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
