//! What a run draws from setup: transfers in both directions, and keys for encrypted products where the program has
//! such.

use std::sync::Arc;

use marill_program::ValidProgram;
use marill_program::two_party::count::Demand;
use marill_program::two_party::effort::Link;
use marill_program::two_party::gates::Side;
use marill_program::two_party::matrix::operand;
use marill_program::two_party::products::{Encrypted, Method, method};
use marill_program::two_party::recipe::square_sums;
use marill_program::two_party::rlwe::Cross;
use marill_program::{Form, Instruction, Ring};

use super::he::{pairs, wide};
use super::ot::{Receiver, Sender, Session};
use super::setup::Setup;
use crate::correlation::fresh_seed;
use crate::correlation::shares::Shares;
use crate::error::RunError;
use crate::transport::Channel;

/// One party's ends of both directions of transfers.
pub struct Transfers {
    /// In which the peer chooses.
    pub sender: Sender,
    /// In which this party chooses.
    pub receiver: Receiver,
}

impl Transfers {
    /// Begins the session of one run, in which as many as `demand` takes can be drawn.
    ///
    /// # Errors
    /// `File` if the system has no randomness.
    pub fn new(
        setup: &Setup,
        session: &Session,
        side: Side,
        demand: &Demand,
        link: Link,
    ) -> Result<Transfers, RunError> {
        let [server_chooses, client_chooses] =
            [demand.server_chooses, demand.client_chooses].map(|count| count as usize);
        let (they_choose, i_choose) = match side {
            Side::Client => (server_chooses, client_chooses),
            Side::Server => (client_chooses, server_chooses),
        };
        Ok(Transfers {
            sender: Sender::new(&setup.sending, session, they_choose, link)?,
            receiver: Receiver::new(&setup.receiving, session, i_choose, link),
        })
    }
}

enum End {
    Client { wide: Option<wide::ClientKey>, pairs: Option<pairs::ClientKey> },
    Server { wide: Option<wide::ServerKey>, pairs: Option<pairs::ServerKey> },
}

/// One party's keys for products.
pub struct ProductKeys {
    end: End,
    plan: Encrypted,
}

impl ProductKeys {
    /// Of a party, from what setup leaves it; waits for the peer's key.
    ///
    /// # Errors
    /// Of the file; the peer's key is none.
    pub fn new(setup: &Setup, side: Side, program: &ValidProgram) -> Result<ProductKeys, RunError> {
        let plan = Encrypted::new(program);
        let (wide_shapes, pair_shapes) = (plan.wide_shapes(), plan.pair_shapes());
        let (has_wide, has_pairs) = (!wide_shapes.is_empty(), !pair_shapes.is_empty());
        let Setup { key, theirs, .. } = setup;
        let end = match side {
            Side::Client => End::Client {
                wide: has_wide.then(|| wide::ClientKey::new(&wide_shapes, Arc::clone(theirs))).transpose()?,
                pairs: has_pairs.then(|| pairs::ClientKey::new(key)),
            },
            Side::Server => End::Server {
                wide: has_wide.then(|| wide::ServerKey::new(&wide_shapes, key)),
                pairs: has_pairs.then(|| pairs::ServerKey::new(&pair_shapes, theirs)).transpose()?,
            },
        };
        Ok(ProductKeys { end, plan })
    }

    /// This party's shares of the field of instruction `at`, where it is made by encryption; `part` gives this party's
    /// part of a mask, or the server's weight; `None` stands for zeros.
    ///
    /// # Errors
    /// Of the channel and the temporary files, and what `part` returns.
    pub fn product(
        &self,
        channel: &mut Channel,
        program: &ValidProgram,
        at: u32,
        part: &dyn Fn(u32) -> Result<Option<Shares>, RunError>,
    ) -> Result<Option<Vec<u64>>, RunError> {
        let (first, second) = match program.instruction(at as usize) {
            Instruction::MatMul(p) => (p.a, p.b),
            Instruction::SquareSum(s) => (s.arg, s.arg),
            _ => return Ok(None),
        };
        let share = match (method(program, at), &self.end) {
            (Some(Method::Wide { shape, rows }), End::Client { wide: Some(key), .. }) => {
                let zeros = || Shares::values(vec![0; program.ty(first).len()]);
                let (r, seed) = (part(first)?.unwrap_or_else(zeros), fresh_seed()?);
                channel.flow(shape.message_bytes(rows), 0, |flow| {
                    key.product(self.wide_job(at), &r, rows, &seed, &mut |bytes| flow.send(bytes))
                })?
            }
            (Some(Method::Wide { shape, rows }), End::Server { wide: Some(key), .. }) => {
                let message = channel.recv(shape.message_bytes(rows))?;
                key.product(self.wide_job(at), rows, &message)?
            }
            (Some(Method::Pairs(shape)), end) => {
                // Of a mask both have a part; a weight is the server's alone.
                let own = [first, second].map(|value| {
                    let ty = program.ty(value);
                    let absent = matches!((ty.form, end), (Form::Weight { .. }, End::Client { .. }));
                    let numbers = if absent { None } else { Some(part(value)?) };
                    let zeros = || vec![0; ty.len()];
                    Ok::<_, RunError>(numbers.map(|n| n.map_or_else(zeros, Shares::into_values)))
                });
                let [a, b] = own;
                let own = [a?, b?];
                let seed = fresh_seed()?;
                let repeated = |which: usize, value: u32| {
                    own[which].as_ref().map(|numbers| operand(program, at, value, numbers))
                };
                let (a, b) = (repeated(0, first), repeated(1, second));
                let mut share = match end {
                    End::Client { pairs: Some(key), .. } => {
                        pairs::ask(channel, key, &shape, a.as_deref(), b.as_deref(), &seed)?
                    }
                    End::Server { pairs: Some(key), .. } => {
                        pairs::answer(channel, key, &shape, a.as_deref(), b.as_deref(), &seed)?
                    }
                    _ => return Ok(None),
                };
                if let (Instruction::SquareSum(_), [Some(part), _]) = (program.instruction(at as usize), &own)
                {
                    let squares = square_sums(part, shape.k);
                    share.iter_mut().zip(squares).for_each(|(s, q)| *s = s.wrapping_mul(2).wrapping_add(q));
                }
                if let (Cross::Both, [Some(a), Some(b)]) = (shape.cross, own) {
                    let [a, b] =
                        [(first, a), (second, b)].map(|(v, x)| Ring::new(program.ty(v).shape.clone(), x));
                    let local = a.matmul(&b, &program.ty(at).shape, 64);
                    share.iter_mut().zip(&local.data).for_each(|(s, l)| *s = s.wrapping_add(*l));
                }
                share
            }
            _ => return Ok(None),
        };
        channel.end_round();
        Ok(Some(share))
    }

    /// The number of a product with a weight, which is that of its matrix.
    fn wide_job(&self, at: u32) -> usize {
        self.plan.wide.iter().position(|wide| wide.at == at).unwrap_or_default()
    }
}
