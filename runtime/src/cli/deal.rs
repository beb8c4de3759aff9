//! The dealer.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use marill_runtime::bundle::Bundle;
use marill_runtime::error::Role;
use marill_runtime::report::Report;
use marill_runtime::session::run_dealer;
use marill_runtime::sharing::Party;
use marill_runtime::transport::{Ends, Listener};

use super::progress::Progress;
use super::wire::{Trust, WireOptions};
use super::{check_places, print, put, supervisor, write_stats};

#[derive(Args)]
pub(super) struct Arguments {
    /// Own address for both parties, HOST:PORT; port 0 takes a free one, and "listening on ADDRESS" tells which
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// A directory with the model's public.safetensors and program, such as the client's: for models of which published
    /// weights multiply masks
    #[arg(long, value_name = "DIRECTORY")]
    public: Option<PathBuf>,
    /// The client's certificate.pem
    #[arg(long, value_name = "FILE")]
    trust_client: Option<PathBuf>,
    /// The server's certificate.pem
    #[arg(long, value_name = "FILE")]
    trust_server: Option<PathBuf>,
    /// Where to write bytes, seconds and peak memory as JSON
    #[arg(long, value_name = "JSON")]
    stats: Option<PathBuf>,
    #[command(flatten)]
    wire: WireOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    supervisor::obey(arguments.wire.supervised, || {
        let wire = &arguments.wire;
        check_places(&[&arguments.stats])?;
        let [of_client, of_server] = wire.protections([
            Trust { option: "--trust-client", certificate: arguments.trust_client.as_deref() },
            Trust { option: "--trust-server", certificate: arguments.trust_server.as_deref() },
        ])?;
        let ends = |peer| Ends { me: Role::Dealer, peer };
        let listener = Listener::bind(&arguments.listen, ends(Role::Server))?;
        put(&format!("listening on {}\n", listener.address()))?;
        // A client calls the dealer only after it has reached its server, and a server only listens to clients after
        // it has reached the dealer.
        let server = wire.accept(&listener, ends(Role::Server), &of_server)?;
        let client = wire.accept(&listener, ends(Role::Client), &of_client)?;
        drop(listener);
        let public = arguments.public.as_deref().map(|path| Bundle::open(path, Party::Client)).transpose()?;
        let mut progress = Progress::new(Role::Dealer, wire.supervised);
        let result = run_dealer(public.as_ref(), client, server, &mut |p| progress.hear(p));
        progress.finish();
        let report = Report::new(None, &result?);
        write_stats(arguments.stats.as_deref(), &report)?;
        if wire.supervised {
            return Ok(());
        }
        put(&print::report(&report))
    })
}
