//! Options of every process that talks to others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use marill_runtime::error::{Action, RunError};
use marill_runtime::transport::{
    Channel, Ends, Identity, Listener, Network, PeerCertificate, Protection, Timeouts, TlsIdentity,
};

#[derive(Args)]
pub(super) struct WireOptions {
    /// Directory of this process's identity, made by `marill keygen`
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Go without TLS: whoever is on the network can read and change everything
    #[arg(long)]
    insecure_plaintext: bool,
    #[command(flatten)]
    pub pace: Pace,
    /// Report to a parent process on standard output, and end when it closes standard input
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// How long a process waits for others.
#[derive(Args)]
pub(super) struct Waits {
    /// Seconds during which calls to a peer that does not listen yet are repeated
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds after which a silent peer counts as dead
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub patience: Duration,
}

#[derive(Args)]
pub(super) struct Pace {
    #[command(flatten)]
    pub waits: Waits,
    /// Slow the links down to loopback, lan, wan, or BANDWIDTH,RTT such as 200Mbit,40ms; all processes must agree
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<Network>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected is a number of seconds".to_owned())?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("expected are 0.001 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// An option that names a certificate to trust.
pub(super) struct Trust<'a> {
    pub option: &'static str,
    pub certificate: Option<&'a Path>,
}

impl WireOptions {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            accept: None,
            connect: self.pace.waits.timeout,
            // The peer may itself still be calling somebody.
            greet: self.pace.waits.timeout + Duration::from_secs(5),
            idle: self.pace.waits.patience,
        }
    }

    /// How the links to some peers are protected.
    pub(super) fn protections<const N: usize>(&self, trusts: [Trust<'_>; N]) -> Result<[Protection; N]> {
        if self.insecure_plaintext {
            if self.identity.is_some() {
                bail!("--identity and --insecure-plaintext exclude each other");
            }
            return Ok(trusts.map(|_| Protection::Plain));
        }
        let mut missing: Vec<&str> = self.identity.is_none().then_some("--identity").into_iter().collect();
        missing.extend(trusts.iter().filter(|trust| trust.certificate.is_none()).map(|trust| trust.option));
        let Some(identity) = self.identity.as_ref().filter(|_| missing.is_empty()) else {
            bail!(
                "tls needs {} as well: `marill keygen DIR` makes an identity, whose certificate.pem the others trust; \
                 --insecure-plaintext goes without tls",
                missing.join(", ")
            );
        };
        let protection = |trust: Trust<'_>| -> Result<Protection> {
            let trusted = PeerCertificate::load(trust.certificate.unwrap_or(identity))?;
            Ok(Protection::Tls(Box::new(TlsIdentity { own: Identity::load(identity)?, trusted })))
        };
        let mut all = Vec::with_capacity(N);
        for trust in trusts {
            all.push(protection(trust)?);
        }
        all.try_into().map_err(|_| anyhow::anyhow!("a link is left without protection"))
    }

    /// Calls a peer.
    pub(super) fn connect(&self, address: &str, ends: Ends, protection: &Protection) -> Result<Channel> {
        let channel = marill_runtime::transport::connect(address, ends, protection, &self.timeouts())?;
        Ok(self.shaped(channel))
    }

    /// Waits for a peer that can prove who it is; others are turned away.
    pub(super) fn accept(&self, listener: &Listener, ends: Ends, protection: &Protection) -> Result<Channel> {
        loop {
            match listener.accept(ends, protection, &self.timeouts()) {
                Ok(channel) => return Ok(self.shaped(channel)),
                Err(error @ RunError::Transport { action: Action::Listen { .. }, .. }) => {
                    return Err(error.into());
                }
                Err(error) => eprintln!("turned a caller away: {error}"),
            }
        }
    }

    fn shaped(&self, channel: Channel) -> Channel {
        match self.pace.network {
            Some(network) => channel.shaped(network),
            None => channel,
        }
    }
}
