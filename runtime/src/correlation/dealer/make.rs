//! The dealer's walk through a program, on masks alone.

use std::collections::BTreeMap;

use marill_kernels::{Prg, Seed};
use marill_plaintext::Tensor;
use marill_program::correlation::fields;
use marill_program::fixed::mask;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::fields::Known;
use super::stream::{Shape, send};
use crate::correlation::derived::sources;
use crate::correlation::masks::{Masks, Matrices};
use crate::correlation::spool::Chunks;
use crate::correlation::{field_stream, mask_stream};
use crate::error::RunError;
use crate::transport::Channel;

/// Most bytes of one value that the dealer handles: programs come from a peer.
const VALUE_LIMIT_BYTES: u64 = 1 << 33;

/// The seeds of one run.
pub struct Seeds {
    /// Of the client's masks and shares.
    pub client: Seed,
    /// Of the server's masks.
    pub server: Seed,
    /// Of the weights' masks, since setup.
    pub weight: Seed,
}

/// Makes every correlation of `program` and streams the corrections to the server; `progress` hears which instruction
/// is done. `indices` holds the public tensors by which masks move, `matrices` those by which they are multiplied.
///
/// # Errors
/// Of the channel; `BadProgram` and `Exhausted` where the masks cannot be followed.
pub fn make(
    program: &ValidProgram,
    indices: &BTreeMap<u32, Tensor>,
    matrices: &dyn Matrices,
    seeds: &Seeds,
    server: &mut Channel,
    progress: &mut dyn FnMut(u32),
) -> Result<(), RunError> {
    let mut masks = Masks::new(program, indices, None);
    // What becomes of a truncated mask depends on both parties' parts of it.
    let of_interest = sources(program);
    let mut parts =
        [&seeds.client, &seeds.server].map(|seed| (seed, Masks::new(program, indices, Some(matrices))));
    for at in 0..program.len() as u32 {
        let demand = fields(program, at as usize);
        if !demand.is_empty() {
            let needed_bytes = 8 * program.ty(at).len() as u64;
            if needed_bytes > VALUE_LIMIT_BYTES {
                let limit_bytes = VALUE_LIMIT_BYTES;
                return Err(RunError::Exhausted {
                    what: "value of one instruction",
                    needed_bytes,
                    limit_bytes,
                });
            }
            server.meter_mut().set_label(at);
            let mut out = Chunks::new(server);
            let known = Known { program, masks: &masks, weight_seed: &seeds.weight };
            for (position, field) in demand.iter().enumerate() {
                let values = known.values(at, field)?;
                let stream = field_stream(at, position);
                let shape = Shape { sharing: field.sharing, width: field.width, stream };
                send(&mut out, &values, &shape, &seeds.client)?;
            }
            out.finish()?;
        }
        for (seed, part) in &mut parts {
            part.pass(at, || of_interest.contains(&at).then(|| own(program, at, seed)))?;
        }
        masks.pass(at, || match program.instruction(at as usize) {
            Instruction::MatMul(_) | Instruction::Truncate(_) => {
                let [client, server] = [&parts[0].1, &parts[1].1].map(|part| part.get(at));
                let sum = client?.zip(server?, &program.ty(at).shape, u64::wrapping_add);
                let reduce = mask(program.ty(at).width().unwrap_or(64));
                Some(sum.map(|v| v & reduce))
            }
            _ => Some(draw(program, at, seeds)),
        })?;
        progress(at + 1);
    }
    Ok(())
}

/// One party's mask of what instruction `at` opens.
fn own(program: &ValidProgram, at: u32, seed: &Seed) -> Ring {
    let ty = program.ty(at);
    let data = Prg::new(seed.clone(), mask_stream(at)).ring(ty.len(), ty.width().unwrap_or(64));
    Ring::new(ty.shape.clone(), data)
}

/// The whole mask of what instruction `at` opens.
fn draw(program: &ValidProgram, at: u32, seeds: &Seeds) -> Ring {
    let ty = program.ty(at);
    let (len, width) = (ty.len(), ty.width().unwrap_or(64));
    let of = |seed: &Seed| Prg::new(seed.clone(), mask_stream(at)).ring(len, width);
    let data = match ty.form {
        Form::Masked { to: Target::Server, .. } => of(&seeds.client),
        Form::Masked { to: Target::Client, .. } => of(&seeds.server),
        Form::MaskedBits { .. } => {
            of(&seeds.client).iter().zip(of(&seeds.server)).map(|(a, b)| a ^ b).collect()
        }
        _ => {
            let both = of(&seeds.client).into_iter().zip(of(&seeds.server));
            both.map(|(a, b)| a.wrapping_add(b) & mask(width)).collect()
        }
    };
    Ring::new(ty.shape.clone(), data)
}
