#![allow(missing_docs)]
mod bench;
use clap::Parser;
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}
#[derive(clap::Subcommand)]
enum What {
    Bench(bench::Options),
}
fn main() -> anyhow::Result<()> {
    let What::Bench(options) = Cli::parse().what;
    bench::run(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), &options)
}
