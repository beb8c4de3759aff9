//! The server's weights: sent masked at setup, multiplied tile by tile online.

use marill_kernels::matmul::MatShape;
use marill_kernels::pack::pack;
use marill_kernels::{Prg, Seed};
use marill_plaintext::{DType, Op};
use marill_program::{Form, Instruction, Ring};

use super::constants::Constants;
use super::encode::{Layout, encode_tensor, encode_to, origin};
use super::{failed, not_held};
use crate::correlation::mask_stream;
use crate::correlation::masks::Matrices;
use crate::correlation::spool::Chunks;
use crate::error::RunError;
use crate::protocol::tiles;
use crate::transport::Channel;

/// Elements per block of the masked stream.
const BLOCK: usize = 1 << 16;

/// Sends `W - B` of every weight to the client. Returns whether there was any to send.
///
/// # Errors
/// Of the bundle and the channel; `BadInput` naming a weight that does not fit its ring.
pub fn send_masked(constants: &Constants<'_>, seed: &Seed, client: &mut Channel) -> Result<bool, RunError> {
    let (mut any, program) = (false, constants.program());
    for at in 0..program.len() as u32 {
        let Instruction::Weight(w) = program.instruction(at as usize) else { continue };
        let tensor = constants.tensor(at, w.arg)?;
        let array = tensor.as_f32().map_err(failed(at))?.as_standard_layout();
        let values = array.as_slice().ok_or_else(|| not_held(at, "a tensor in order"))?;
        let layout = Layout { width: w.width, frac: w.frac };
        let name = || origin(program, at);
        client.meter_mut().set_label(at);
        let mut out = Chunks::new(client);
        out.write_blocks(values.len().div_ceil(BLOCK), |i| {
            let range = i * BLOCK..values.len().min((i + 1) * BLOCK);
            let mut elements = Vec::with_capacity(range.len());
            encode_to(&values[range.clone()], layout, &name, range.start, &mut elements)?;
            let mut masks = Prg::new(seed.clone(), mask_stream(at));
            masks.seek_number(range.start as u64, w.width);
            let masks = masks.ring(range.len(), w.width);
            elements.iter_mut().zip(&masks).for_each(|(w, b)| *w = w.wrapping_sub(*b));
            let mut bytes = Vec::new();
            pack(&elements, w.width, &mut bytes);
            Ok(bytes)
        })?;
        out.finish()?;
        any |= !values.is_empty();
    }
    Ok(any)
}

impl Matrices for Constants<'_> {
    fn product(&self, matrix: u32, x: &Ring, shape: &[usize], width: u32) -> Result<Ring, RunError> {
        product(self, &Op::MatMul, x, matrix, (shape, width))
    }
}

/// `x W` for a `Weight`, or `x C` for an `Encode` of a constant, known to this party: instruction `value`, as the
/// product `op` into a shape and a ring of so many bits.
pub(super) fn product(
    constants: &Constants<'_>,
    op: &Op,
    x: &Ring,
    value: u32,
    (shape, width): (&[usize], u32),
) -> Result<Ring, RunError> {
    let program = constants.program();
    let (arg, layout) = match program.instruction(value as usize) {
        Instruction::Weight(w) => (w.arg, Layout { width: w.width, frac: w.frac }),
        Instruction::Encode(e) => (e.arg, Layout { width: e.width, frac: e.frac }),
        _ => return Err(not_held(value, "a constant matrix")),
    };
    let is_matrix = *op == Op::MatMul;
    let ty = program.ty(arg);
    let is_floats = matches!(ty.form, Form::Plain { dtype: DType::F32, .. });
    let (true, &[k, m]) = (is_matrix && is_floats && !x.shape.is_empty(), ty.shape.as_slice()) else {
        let factor = encode_tensor(program, value, &constants.tensor(value, arg)?, layout)?;
        return Ok(if is_matrix { x.matmul(&factor, shape, width) } else { x.mul(&factor, shape) });
    };
    let name = || origin(program, value);
    let shape_of_product = MatShape { n: shape.iter().product::<usize>() / m.max(1), k, m };
    let floats = constants.floats(arg)?;
    let data = tiles::product(&x.data, shape_of_product, width, Vec::new, |scratch, tile, out| {
        out.clear();
        tile.spans().try_for_each(|span| {
            floats.read(span.clone(), scratch)?;
            encode_to(scratch, layout, &name, span.start, out)
        })
    })?;
    Ok(Ring::new(shape, data))
}
