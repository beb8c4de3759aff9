//! The parties' ends of the dealer suite.

use marill_kernels::Seed;
use marill_program::ValidProgram;
use marill_program::correlation::fields;
use marill_program::cost::correction_bytes;

use crate::correlation::derived::Derived;
use crate::correlation::prepared::Prepared;
use crate::correlation::shares::Shares;
use crate::correlation::shelf::Shelf;
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

    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError> {
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
    shelf: Shelf,
}

impl<'a> ServerSource<'a> {
    /// Receives all corrections; `heard` is told how many bytes have come, message by message.
    ///
    /// # Errors
    /// Of the channel and of the temporary file, and what `heard` returns.
    pub fn receive(
        program: &'a ValidProgram,
        seed: Seed,
        dealer: &mut Channel,
        heard: &mut dyn FnMut(u64) -> Result<(), RunError>,
    ) -> Result<ServerSource<'a>, RunError> {
        let mut shelf = Shelf::new()?;
        for at in 0..program.len() {
            shelf.begin(at as u32);
            let bytes = correction_bytes(program, at);
            if bytes > 0 {
                dealer.meter_mut().set_label(at as u32);
                shelf.receive(dealer, bytes, heard)?;
            }
        }
        Ok(ServerSource { program, seed, shelf })
    }
}

impl Source for ServerSource<'_> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        Shares::seeded(self.seed.clone(), mask_stream(at), len, width)
    }

    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError> {
        let malformed = || RunError::PeerMisbehaved {
            peer: Role::Dealer,
            reason: Misbehaviour::Malformed {
                what: "correction",
                found: format!("set padding bits at instruction {at}"),
            },
        };
        self.shelf.fields(at, &fields(self.program, at as usize), malformed)
    }

    fn check(&self) -> Result<(), RunError> {
        self.shelf.check()
    }
}

/// All that a party's rounds take.
pub struct Dealt<S> {
    /// Masks and fields.
    pub source: S,
    /// Masks of products of masked values with public matrices.
    pub derived: Derived,
    /// The client's part of products with weights.
    pub prepared: Option<Prepared>,
}

impl<S: Source> Correlations for Dealt<S> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        self.source.mask(at, len, width)
    }

    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError> {
        self.source.fields(at)
    }

    fn derived(&mut self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        self.derived.get(at, len)
    }

    fn prepared(&mut self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        self.prepared.as_ref().map(|prepared| prepared.get(at, len)).transpose()
    }

    fn check(&self) -> Result<(), RunError> {
        self.source.check()?;
        self.derived.check()?;
        self.prepared.as_ref().map_or(Ok(()), Prepared::check)
    }
}
