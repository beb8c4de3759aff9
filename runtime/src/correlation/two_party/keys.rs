//! What setup leaves for a run: transfers in both directions, and keys for encrypted products where the program has
//! such. All of it is for one pair of parties and one model.

use marill_program::ValidProgram;
use marill_program::two_party::count::Demand;
use marill_program::two_party::gates::Side;
use marill_program::two_party::matrix::operand;
use marill_program::two_party::products::{Encrypted, Method, method};
use marill_program::{Instruction, Ring};

use super::he::{pairs, wide};
use super::ot::{Receiver, Sender};
use super::source::Weights;
use crate::correlation::fresh_seed;
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
    /// Base transfers for as many as `demand` takes.
    ///
    /// # Errors
    /// Of the channel.
    pub fn setup(channel: &mut Channel, side: Side, demand: &Demand) -> Result<Transfers, RunError> {
        let [server_chooses, client_chooses] =
            [demand.server_chooses, demand.client_chooses].map(|count| count as usize);
        Ok(match side {
            Side::Client => {
                let sender = Sender::setup(channel, server_chooses)?;
                channel.end_round();
                let receiver = Receiver::setup(channel, client_chooses)?;
                channel.end_round();
                Transfers { sender, receiver }
            }
            Side::Server => {
                let receiver = Receiver::setup(channel, server_chooses)?;
                channel.end_round();
                let sender = Sender::setup(channel, client_chooses)?;
                channel.end_round();
                Transfers { sender, receiver }
            }
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
    /// The server sends its weights encrypted, the client a key; where the program needs neither, nothing is sent.
    ///
    /// # Errors
    /// Of the channel, the temporary file and `weights`.
    pub fn setup(
        channel: &mut Channel,
        side: Side,
        program: &ValidProgram,
        weights: Weights<'_>,
    ) -> Result<ProductKeys, RunError> {
        let plan = Encrypted::new(program);
        let (wide_shapes, pair_shapes) = (plan.wide_shapes(), plan.pair_shapes());
        let end = match side {
            Side::Client => {
                let wide = match wide_shapes.is_empty() {
                    true => None,
                    false => Some(wide::ClientKey::setup(channel, &wide_shapes)?),
                };
                let pairs = match pair_shapes.is_empty() {
                    true => None,
                    false => Some(pairs::ClientKey::setup(channel, &pair_shapes, &fresh_seed()?)?),
                };
                End::Client { wide, pairs }
            }
            Side::Server => {
                let mut failed = None;
                let matrix = |job: usize| -> Vec<u64> {
                    let (at, shape, _) = plan.wide[job];
                    weight_of(program, at).map_or(Ok(Vec::new()), weights).unwrap_or_else(|error| {
                        failed = Some(error);
                        vec![0; shape.k * shape.m]
                    })
                };
                let wide = match wide_shapes.is_empty() {
                    true => None,
                    false => Some(wide::ServerKey::setup(channel, &wide_shapes, &fresh_seed()?, matrix)?),
                };
                if let Some(error) = failed {
                    return Err(error);
                }
                let pairs = match pair_shapes.is_empty() {
                    true => None,
                    false => Some(pairs::ServerKey::setup(channel, &pair_shapes)?),
                };
                End::Server { wide, pairs }
            }
        };
        if !plan.wide.is_empty() || !plan.pairs.is_empty() {
            channel.end_round();
        }
        Ok(ProductKeys { end, plan })
    }

    /// This party's shares of the field of instruction `at`, where it is made by encryption; `part` gives this party's
    /// part of a mask, or the server's weight.
    ///
    /// # Errors
    /// Of the channel and the temporary file.
    pub fn product(
        &self,
        channel: &mut Channel,
        program: &ValidProgram,
        at: u32,
        part: &dyn Fn(u32) -> Vec<u64>,
    ) -> Result<Option<Vec<u64>>, RunError> {
        let Instruction::MatMul(p) = program.instruction(at as usize) else { return Ok(None) };
        let share = match (method(program, at), &self.end) {
            (Some(Method::Wide { rows, .. }), End::Client { wide: Some(key), .. }) => {
                let (message, share) = key.product(self.wide_job(at), &part(p.a), rows, &fresh_seed()?)?;
                channel.send(&message)?;
                share
            }
            (Some(Method::Wide { shape, rows }), End::Server { wide: Some(key), .. }) => {
                let message = channel.recv(shape.message_bytes(rows))?;
                key.product(self.wide_job(at), rows, &message)?
            }
            (Some(Method::Pairs(shape)), end) => {
                let own = [p.a, p.b].map(|value| {
                    let numbers = part(value);
                    (!numbers.is_empty()).then(|| operand(program, at, value, &numbers))
                });
                let [a, b] = &own;
                let seed = fresh_seed()?;
                let mut share = match end {
                    End::Client { pairs: Some(key), .. } => {
                        pairs::ask(channel, key, &shape, a.as_deref(), b.as_deref(), &seed)?
                    }
                    End::Server { pairs: Some(key), .. } => {
                        pairs::answer(channel, key, &shape, a.as_deref(), b.as_deref(), &seed)?
                    }
                    _ => return Ok(None),
                };
                if let (Some(_), Some(_)) = (a, b) {
                    let [a, b] = [p.a, p.b].map(|v| Ring::new(program.ty(v).shape.clone(), part(v)));
                    let local = a.matmul(&b, &program.ty(at).shape);
                    share.iter_mut().zip(&local.data).for_each(|(s, l)| *s = s.wrapping_add(*l));
                }
                share
            }
            _ => return Ok(None),
        };
        channel.end_round();
        Ok(Some(share))
    }

    fn wide_job(&self, at: u32) -> usize {
        self.plan.wide.iter().position(|(found, ..)| *found == at).unwrap_or_default()
    }
}

fn weight_of(program: &ValidProgram, at: u32) -> Option<u32> {
    match program.instruction(at as usize) {
        Instruction::MatMul(p) => Some(p.b),
        _ => None,
    }
}
