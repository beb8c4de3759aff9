//! Products of one matrix of each party, fresh on both sides: masks of attention, and thin weights.
//!
//! * Functionality: `a0`, `b0` of the client, `a1`, `b1` of the server -> shares modulo `2^w` of the cross products that
//!   [`Cross`] names, `[batch, n, m]`, exact; the server's share is uniform. Shapes `a [batch, n, k]`, `b [batch, k, m]`.
//! * Requires: `w` in 1..=64, `k <= 2^24`; the server's matrices are `plain_bits`-bit numbers in two's complement,
//!   modulo `2^w` where they are masks.
//! * Bytes: setup, client to server, once: the public key. Then per half `24576 L` per ciphertext of a request, and per
//!   ciphertext of a reply `8192 (w + 10)` bits and `w + 5` bits per element
//!   ([`marill_program::two_party::rlwe::PairShape`]).
//! * Rounds: one, client first.
//! * Fails: a coefficient is rounded wrongly with probability below `2^-70`.
//!
//! Each cross product is a half of its own, the right one transposed, so that each can have the blocks that suit it: two
//! dense requests per head of attention, where one layout for the sum of both takes about 24, because what limits a
//! common layout is `rows x columns` of a block. The encrypted side has entry (i, j) of a block at `i C T - j`,
//! the plain side entry (j, l) at `l T + j`, for `T` terms and `C` columns, so that the product has entry (i, l) at
//! `(i C + l) T`. What stands at multiples of `T` is packed by automorphisms, `T` results to a ciphertext.
//!
//! Batches of a row by a column have whole rows of several products in one ciphertext, and each of them meets a plain
//! polynomial of its own, of which coefficient 0 of the product is wanted. Other multiples of `T` hold products of others'
//! rows: as all that stands at no position, they are never sent.
//!
//! The client's view is the reply: `a` hidden by a fresh encryption of zero under its own public key, the phase drowned
//! in flooding, other coefficients never sent ([`marill_kernels::rlwe::reply`]); the simulator draws them from its share
//! as for [`super::wide`], with the parties exchanged, to within `2^-40` for a whole message. The server's view is the
//! client's encryptions. The noise budget is in [`marill_program::two_party::rlwe`].
//!
//! References: Huang et al., Cheetah, USENIX Security 2022, section 3 (coefficient packing); Lu et al., BumbleBee, NDSS
//! 2025, section 4 (batches of private products, replies interleaved); Chen et al., ACNS 2021 (packing).

use std::ops::Range;

use marill_kernels::bits::{mask, sign_extend};
use marill_kernels::rlwe::keys::{self, PublicKey, SecretKey};
use marill_kernels::rlwe::reply::{Sealer, open};
use marill_kernels::rlwe::residues::{self, RESIDUE_BYTES};
use marill_kernels::rlwe::sample::{Uniform, errors};
use marill_kernels::rlwe::scale::Encoder;
use marill_kernels::rlwe::switching::{Ciphertext, joins, pack};
use marill_kernels::rlwe::{DEGREE, MODULI, TERMS, ntt, product};
use marill_kernels::{Prg, Seed};
use marill_program::cost::SEED_BYTES;
use marill_program::two_party::rlwe::{Cross, HalfPlan, HalfShape, PairShape, key_bytes, pair_key};
use zeroize::Zeroizing;

use super::super::super::arrivals::Arrivals;
use super::super::super::spool::Chunks;
use super::{check_length, malformed, parallel, public_seed, read_key, send_key};
use crate::error::{Role, RunError};
use crate::transport::{Channel, FromPeer};

/// Ciphertexts of a request that are made or read at once.
const BATCH: usize = 32;

fn batches(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(BATCH).map(move |start| start..count.min(start + BATCH))
}

/// The client's half of setup: it can encrypt and open.
pub struct ClientKey {
    secret: SecretKey,
}

/// The server's half of setup: it can pack and seal.
pub struct ServerKey {
    public: PublicKey,
}

/// Sends the public key of `seed`, which must be fresh, for all `shapes`.
///
/// # Errors
/// Of the channel.
pub fn send(channel: &mut Channel, shapes: &[PairShape], seed: &Seed) -> Result<(), RunError> {
    let mut chunks = Chunks::new(channel);
    send_key(&mut chunks, &SecretKey::new(seed), seed, pair_key(shapes))?;
    chunks.finish()
}

/// Receives what [`send`] sends.
///
/// # Errors
/// Of the channel and of a temporary file.
pub fn receive(channel: &mut Channel, shapes: &[PairShape], to: &Arrivals) -> Result<(), RunError> {
    let (limbs, levels) = pair_key(shapes);
    to.receive(channel, key_bytes(limbs, levels))
}

impl ClientKey {
    /// The key of `seed`.
    pub fn new(seed: &Seed) -> ClientKey {
        ClientKey { secret: SecretKey::new(seed) }
    }

    /// The request for the products that `shape` names, which goes to `send`, part by part. `seed` must be fresh.
    ///
    /// # Panics
    /// If a matrix that the products need is missing or not of its shape.
    pub fn request(
        &self,
        shape: &PairShape,
        a0: Option<&[u64]>,
        b0: Option<&[u64]>,
        seed: &Seed,
        send: &mut dyn FnMut(Vec<u8>),
    ) {
        let public = public_seed(seed, 0);
        send(public.expose().to_vec());
        for (number, (side, half)) in sides(shape).enumerate() {
            let left = Zeroizing::new(match side {
                Side::Left => operand(a0, shape.batch, (shape.n, shape.k)).to_vec(),
                Side::Right => transpose(operand(b0, shape.batch, (shape.k, shape.m)), shape.k, shape.m),
            });
            let plan = half.plan();
            let encoder = Encoder::new(shape.width, plan.modulus.limbs);
            let encrypt = |at: usize| {
                let rests = block(&half, &plan, at, &left, &encoder);
                let noise = 1 + ((number as u64) << 32) + at as u64;
                let errors = Zeroizing::new(errors(&mut Prg::new(seed.clone(), noise), DEGREE));
                let mut source = Uniform::new(&public, number as u64);
                let mut bytes = Vec::with_capacity(plan.modulus.limbs * DEGREE * RESIDUE_BYTES);
                let (mut a, mut b) = (vec![0.0; DEGREE], Zeroizing::new(vec![0.0; DEGREE]));
                for (limb, modulus) in MODULI.into_iter().enumerate().take(plan.modulus.limbs) {
                    keys::uniform(&mut source, at as u64, limb, &mut a);
                    for ((b, error), rest) in b.iter_mut().zip(errors.iter()).zip(rests.iter()) {
                        *b = encoder.residue(limb, *rest) + f64::from(*error);
                    }
                    ntt::forward(limb, &mut b);
                    product::add_products(&a, self.secret.limb(limb), &mut b);
                    residues::write(modulus, &b, &mut bytes);
                }
                bytes
            };
            for batch in batches(half.requests(&plan)) {
                parallel(batch.len(), |at| encrypt(batch.start + at)).into_iter().for_each(&mut *send);
            }
        }
    }

    /// The client's share `[batch, n, m]` from the server's reply.
    ///
    /// # Errors
    /// The reply is not one of this shape.
    pub fn finish(&self, shape: &PairShape, reply: &[u8]) -> Result<Vec<u64>, RunError> {
        check_length(Role::Server, "reply", reply.len(), shape.reply_bytes())?;
        let mut share = vec![0; shape.batch * shape.n * shape.m];
        let mut rest = reply;
        for (side, half) in sides(shape) {
            let plan = half.plan();
            let mut pieces = Vec::new();
            for group in half.groups(&plan) {
                let (bytes, later) = rest.split_at(half.group_bytes(&plan, group.clone()));
                pieces.push((group, bytes));
                rest = later;
            }
            let opened = parallel(pieces.len(), |at| {
                let (group, bytes) = &pieces[at];
                let places = places(&half, &plan, group.clone());
                let positions: Vec<usize> = places.iter().map(|place| place.position).collect();
                Some((places, open(&self.secret, shape.width, &positions, bytes)?))
            });
            for opened in opened {
                let (places, values) =
                    opened.ok_or_else(|| malformed(Role::Server, "reply", "bits after its end"))?;
                add(shape, side, &places, &values, &mut share);
            }
        }
        Ok(share)
    }
}

impl ServerKey {
    /// What the client has sent for `shapes`, as soon as it is there.
    ///
    /// # Errors
    /// Of the file; the client's public key is none.
    pub fn new(shapes: &[PairShape], theirs: &Arrivals) -> Result<ServerKey, RunError> {
        let (_, public) = read_key(theirs, Role::Client, pair_key(shapes))?;
        Ok(ServerKey { public })
    }

    /// The reply to a request, and the server's share `[batch, n, m]`. `receive` fills buffers with the request's next bytes,
    /// `shape.request_bytes()` in all. `seed` must be fresh.
    ///
    /// # Errors
    /// The request is none; what `receive` returns.
    ///
    /// # Panics
    /// If a matrix that the products need is missing or not of its shape.
    pub fn reply(
        &self,
        shape: &PairShape,
        a1: Option<&[u64]>,
        b1: Option<&[u64]>,
        receive: FromPeer<'_>,
        seed: &Seed,
    ) -> Result<(Vec<u8>, Vec<u64>), RunError> {
        let mut bytes = [0; SEED_BYTES as usize];
        receive(&mut bytes)?;
        let public = Seed::new(bytes);
        let mut share = vec![0; shape.batch * shape.n * shape.m];
        let mut out = Vec::with_capacity(shape.reply_bytes() as usize);
        for (number, (side, half)) in sides(shape).enumerate() {
            let right = Zeroizing::new(match side {
                Side::Left => operand(b1, shape.batch, (shape.k, shape.m)).to_vec(),
                Side::Right => transpose(operand(a1, shape.batch, (shape.n, shape.k)), shape.n, shape.k),
            });
            let plan = half.plan();
            let count = half.requests(&plan);
            let requests = Requests::read(&public, number as u64, plan.modulus.limbs, count, receive)?;
            let sealer = Sealer::new(&self.public, plan.modulus.limbs, shape.width, plan.modulus.flood_bits);
            let groups: Vec<_> = half.groups(&plan).collect();
            let sealed = parallel(groups.len(), |at| {
                let group = groups[at].clone();
                let factor = joins(group.len());
                let results =
                    group.clone().map(|result| requests.times(&half, &plan, result, &right, factor));
                let packed = pack(results.collect(), plan.log_terms, &self.public);
                let places = places(&half, &plan, group.clone());
                let mut noise = Prg::new(seed.clone(), ((number as u64) << 32) + at as u64);
                let shares = noise.ring(places.len(), shape.width);
                let positions: Vec<usize> = places.iter().map(|place| place.position).collect();
                let mut bytes = Vec::with_capacity(half.group_bytes(&plan, group));
                sealer.seal(packed, &positions, &shares, &mut noise, &mut bytes);
                (bytes, places, shares)
            });
            for (bytes, places, shares) in sealed {
                out.extend_from_slice(&bytes);
                add(shape, side, &places, &shares, &mut share);
            }
        }
        Ok((out, share))
    }
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn sides(shape: &PairShape) -> impl Iterator<Item = (Side, HalfShape)> {
    let sides = match shape.cross {
        Cross::Left => [Side::Left].as_slice(),
        Cross::Right => &[Side::Right],
        Cross::Both => &[Side::Left, Side::Right],
    };
    sides.iter().copied().zip(shape.halves())
}

fn operand(matrix: Option<&[u64]>, batch: usize, (rows, columns): (usize, usize)) -> &[u64] {
    let matrix = matrix.unwrap_or_default();
    assert_eq!(matrix.len(), batch * rows * columns, "a matrix is not {batch} times [{rows}, {columns}]");
    matrix
}

/// `[batch, rows, columns] -> [batch, columns, rows]`.
fn transpose(matrices: &[u64], rows: usize, columns: usize) -> Vec<u64> {
    let transposed = |matrix: &[u64]| -> Vec<u64> {
        (0..columns).flat_map(|c| matrix.iter().skip(c).step_by(columns).copied()).collect()
    };
    matrices.chunks_exact((rows * columns).max(1)).flat_map(transposed).collect()
}

/// The rests of ciphertext `at` of a request: by batch, then blocks of rows, then blocks of terms.
fn block(
    half: &HalfShape,
    plan: &HalfPlan,
    at: usize,
    left: &[u64],
    encoder: &Encoder,
) -> Zeroizing<Vec<i64>> {
    if plan.together > 1 {
        let mut rests = Zeroizing::new(vec![0; DEGREE]);
        let from = at * plan.together * half.k;
        let values = &left[from..(from + plan.together * half.k).min(left.len())];
        rests.iter_mut().zip(values).for_each(|(rest, value)| *rest = encoder.rest(*value));
        return rests;
    }
    let terms = 1 << plan.log_terms;
    let (inner, down) = (half.k.div_ceil(terms), half.rows.div_ceil(plan.rows));
    let (term, row, batch) = (at % inner * terms, at / inner % down * plan.rows, at / inner / down);
    let count = terms.min(half.k - term);
    let mut rests = Zeroizing::new(vec![0; DEGREE]);
    for i in 0..plan.rows.min(half.rows - row) {
        let values = &left[(batch * half.rows + row + i) * half.k + term..][..count];
        for (j, value) in values.iter().enumerate() {
            match ((i * plan.columns) << plan.log_terms).checked_sub(j) {
                Some(place) => rests[place] = encoder.rest(*value),
                None => rests[DEGREE - j] = encoder.rest(value.wrapping_neg()),
            }
        }
    }
    rests
}

/// One element of a half's result and where its ciphertext holds it.
struct Place {
    batch: usize,
    row: usize,
    column: usize,
    position: usize,
}

/// The elements of a group of results, in the order in which they are sent.
fn places(half: &HalfShape, plan: &HalfPlan, group: Range<usize>) -> Vec<Place> {
    let count = group.len();
    let result = |(index, at)| {
        let extent = half.extent(plan, at);
        let element = move |i, l| Place {
            batch: extent.batch,
            row: extent.row + i,
            column: extent.column + l,
            position: HalfShape::position(plan, (i, l), index, count),
        };
        (0..extent.rows).flat_map(move |i| (0..extent.columns).map(move |l| element(i, l)))
    };
    group.enumerate().flat_map(result).collect()
}

fn add(shape: &PairShape, side: Side, places: &[Place], values: &[u64], share: &mut [u64]) {
    for (place, value) in places.iter().zip(values) {
        let (row, column) = match side {
            Side::Left => (place.row, place.column),
            Side::Right => (place.column, place.row),
        };
        let total = &mut share[(place.batch * shape.n + row) * shape.m + column];
        *total = total.wrapping_add(*value) & mask(shape.width);
    }
}

/// The ciphertexts of a request, in single precision, `[limbs, DEGREE]` each.
struct Requests {
    limbs: usize,
    ciphertexts: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Requests {
    /// The next `count` ciphertexts.
    fn read(
        public: &Seed,
        stream: u64,
        limbs: usize,
        count: usize,
        receive: FromPeer<'_>,
    ) -> Result<Requests, RunError> {
        let limb_bytes = DEGREE * RESIDUE_BYTES;
        let (mut ciphertexts, mut bytes) = (Vec::with_capacity(count), Vec::new());
        for batch in batches(count) {
            bytes.resize(batch.len() * limbs * limb_bytes, 0);
            receive(&mut bytes)?;
            let read = parallel(batch.len(), |at| {
                let mut source = Uniform::new(public, stream);
                let mut values = vec![0.0; DEGREE];
                let (mut a, mut b) = (Vec::with_capacity(limbs * DEGREE), Vec::with_capacity(limbs * DEGREE));
                let bytes = &bytes[at * limbs * limb_bytes..][..limbs * limb_bytes];
                for (limb, bytes) in bytes.chunks_exact(limb_bytes).enumerate() {
                    keys::uniform(&mut source, (batch.start + at) as u64, limb, &mut values);
                    a.extend(values.iter().map(|x| *x as f32));
                    residues::read(MODULI[limb], bytes, &mut values)?;
                    b.extend(values.iter().map(|x| *x as f32));
                }
                Some((a, b))
            });
            for ciphertext in read {
                ciphertexts.push(ciphertext.ok_or_else(|| {
                    malformed(Role::Client, "request", "a residue that is not below its prime")
                })?);
            }
        }
        Ok(Requests { limbs, ciphertexts })
    }

    /// Result `at` of a half, over `2^joins`, which packing multiplies by.
    fn times(&self, half: &HalfShape, plan: &HalfPlan, at: usize, right: &[u64], joins: u32) -> Ciphertext {
        let mut result = Ciphertext::zero(self.limbs);
        if plan.together > 1 {
            // The coefficient 0 of a row at `from` times the other one backwards is the product. `2^63` and `-2^63` are the
            // same modulo `2^64`.
            let mut plain = Zeroizing::new(vec![0_i64; DEGREE]);
            let from = at % plan.together * half.k;
            for (j, value) in right[at * half.k..][..half.k].iter().enumerate() {
                let value = sign_extend(*value, half.plain_bits);
                match from + j {
                    0 => plain[0] = value,
                    place => plain[DEGREE - place] = value.wrapping_neg(),
                }
            }
            self.add_product(at / plan.together, &plain, joins, true, &mut result);
            return result;
        }
        let extent = half.extent(plan, at);
        let terms = 1 << plan.log_terms;
        let inner = half.k.div_ceil(terms);
        let first = (extent.batch * half.rows.div_ceil(plan.rows) + extent.row / plan.rows) * inner;
        let mut plain = Zeroizing::new(vec![0_i64; extent.columns << plan.log_terms]);
        for block in 0..inner {
            plain.fill(0);
            for j in 0..terms.min(half.k - block * terms) {
                let row =
                    &right[(extent.batch * half.k + block * terms + j) * half.columns..][..half.columns];
                let places = plain[j..].iter_mut().step_by(terms);
                let row = &row[extent.column..extent.column + extent.columns];
                places.zip(row).for_each(|(place, value)| *place = sign_extend(*value, half.plain_bits));
            }
            let is_full = block % (TERMS / 2) == TERMS / 2 - 1 || block + 1 == inner;
            self.add_product(first + block, &plain, joins, is_full, &mut result);
        }
        result
    }

    /// Adds ciphertext `number` times the first coefficients of a plain polynomial over `2^joins`, and reduces the sum
    /// where it is full.
    fn add_product(&self, number: usize, plain: &[i64], joins: u32, is_full: bool, result: &mut Ciphertext) {
        let mut coefficients = Zeroizing::new(vec![0.0; plain.len()]);
        let mut values = Zeroizing::new(vec![0.0; DEGREE]);
        let (a, b) = &self.ciphertexts[number];
        for (limb, modulus) in MODULI.into_iter().enumerate().take(self.limbs) {
            let range = limb * DEGREE..(limb + 1) * DEGREE;
            let factor = modulus.invert(f64::from(1_u32 << joins));
            for (place, value) in coefficients.iter_mut().zip(plain) {
                *place = modulus.reduce(modulus.residue(*value) * factor);
            }
            if coefficients.len() <= ntt::SHORT {
                ntt::forward_short(limb, &coefficients, &mut values);
            } else {
                values.fill(0.0);
                values[..coefficients.len()].copy_from_slice(&coefficients);
                ntt::forward(limb, &mut values);
            }
            product::add_narrow_products(&values, &a[range.clone()], &mut result.a[range.clone()]);
            product::add_narrow_products(&values, &b[range.clone()], &mut result.b[range.clone()]);
            if is_full {
                product::reduce(modulus, &mut result.a[range.clone()]);
                product::reduce(modulus, &mut result.b[range]);
            }
        }
    }
}

/// Sends a request and receives the reply: the client's side of the round.
///
/// # Errors
/// Of the channel, and of [`ClientKey::finish`].
pub fn ask(
    channel: &mut Channel,
    key: &ClientKey,
    shape: &PairShape,
    a0: Option<&[u64]>,
    b0: Option<&[u64]>,
    seed: &Seed,
) -> Result<Vec<u64>, RunError> {
    channel.flow(shape.request_bytes() as usize, 0, |flow| {
        key.request(shape, a0, b0, seed, &mut |part| flow.send(part));
        Ok(())
    })?;
    let reply = channel.recv(shape.reply_bytes() as usize)?;
    key.finish(shape, &reply)
}

/// Receives a request and sends the reply: the server's side of the round.
///
/// # Errors
/// Of the channel, and of [`ServerKey::reply`].
pub fn answer(
    channel: &mut Channel,
    key: &ServerKey,
    shape: &PairShape,
    a1: Option<&[u64]>,
    b1: Option<&[u64]>,
    seed: &Seed,
) -> Result<Vec<u64>, RunError> {
    let (reply, share) = channel.flow(0, shape.request_bytes() as usize, |flow| {
        key.reply(shape, a1, b1, &mut |part| flow.receive(part), seed)
    })?;
    channel.send(&reply)?;
    Ok(share)
}
