//! The parties' ends of the dealer suite.

use marill_kernels::Seed;
use marill_program::ValidProgram;
use marill_program::correlation::fields;
use marill_program::cost::correction_bytes;

use crate::correlation::derived::Derived;
use crate::correlation::filling::Filling;
use crate::correlation::prepared::Prepared;
use crate::correlation::shares::Shares;
use crate::correlation::{Correlations, Source, field_stream, mask_stream};
use crate::error::{Misbehaviour, Role, RunError};
use crate::transport::Channel;

/// The client's correlations: all from its seed.
pub struct ClientSource<'a> {
    program: &'a ValidProgram,
    seed: Seed,
}

impl<'a> ClientSource<'a> {
    /// From the seed that the dealer sent.
    pub fn new(program: &'a ValidProgram, seed: Seed) -> ClientSource<'a> {
        ClientSource { program, seed }
    }
}

impl Source for ClientSource<'_> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        Shares::seeded(self.seed.clone(), mask_stream(at), len, width)
    }

    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError> {
        let demand = fields(self.program, at as usize).into_iter().enumerate();
        let share = |(position, field): (usize, marill_program::correlation::Field)| {
            Shares::seeded(self.seed.clone(), field_stream(at, position), field.len, field.width)
        };
        Ok(demand.map(share).collect())
    }

    fn check(&self) -> Result<(), RunError> {
        Ok(())
    }
}

/// The server's correlations: masks from its seed, shares from the dealer's corrections.
pub struct ServerSource<'a> {
    program: &'a ValidProgram,
    seed: Seed,
    corrections: Filling,
}

impl<'a> ServerSource<'a> {
    /// From the seed that the dealer sent, before any correction has come.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new(program: &'a ValidProgram, seed: Seed) -> Result<ServerSource<'a>, RunError> {
        Ok(ServerSource { program, seed, corrections: Filling::new()? })
    }

    /// Receives all corrections, for who may wait for them; `heard` is told how many bytes have come, message by message.
    ///
    /// # Errors
    /// Of the channel and of the temporary file, and what `heard` returns.
    pub fn receive(
        &self,
        dealer: &mut Channel,
        heard: &mut dyn FnMut(u64) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let mut done = 0;
        for at in 0..self.program.len() as u32 {
            let bytes = correction_bytes(self.program, at as usize);
            if bytes > 0 {
                dealer.meter_mut().set_label(at);
                self.corrections.receive(at, dealer, bytes, &mut |count| {
                    done += count as u64;
                    heard(done)
                })?;
            }
            self.corrections.pass(at);
        }
        self.corrections.end();
        Ok(())
    }

    /// The dealer's corrections, packed.
    pub fn corrections(&self) -> &Filling {
        &self.corrections
    }
}

impl Source for ServerSource<'_> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        Shares::seeded(self.seed.clone(), mask_stream(at), len, width)
    }

    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError> {
        let malformed = || RunError::PeerMisbehaved {
            peer: Role::Dealer,
            reason: Misbehaviour::Malformed {
                what: "correction",
                found: format!("set padding bits at instruction {at}"),
            },
        };
        self.corrections.fields(at, &fields(self.program, at as usize), malformed)
    }

    fn check(&self) -> Result<(), RunError> {
        self.corrections.check()
    }
}

/// All that a party's rounds take, which may still be coming.
pub struct Dealt<S> {
    /// Masks and fields.
    pub source: S,
    /// Masks of products of masked values with public matrices.
    pub derived: Derived,
    /// The client's part of products with weights.
    pub prepared: Option<Prepared>,
}

impl Dealt<ClientSource<'_>> {
    /// What still comes to the client.
    pub fn fillings(&self) -> Vec<&Filling> {
        std::iter::once(self.derived.made()).chain(self.prepared.as_ref().map(Prepared::made)).collect()
    }
}

impl Dealt<ServerSource<'_>> {
    /// What still comes to the server.
    pub fn fillings(&self) -> Vec<&Filling> {
        vec![self.derived.made(), self.source.corrections()]
    }
}

impl<S: Source> Correlations for Dealt<S> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        self.source.mask(at, len, width)
    }

    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError> {
        self.source.fields(at)
    }

    fn derived(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        self.derived.made().numbers(at, len)
    }

    fn prepared(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        self.prepared.as_ref().map_or(Ok(None), |prepared| prepared.made().numbers(at, len))
    }

    fn check(&self) -> Result<(), RunError> {
        self.source.check()?;
        self.derived.made().check()?;
        self.prepared.as_ref().map_or(Ok(()), |prepared| prepared.made().check())
    }
}
