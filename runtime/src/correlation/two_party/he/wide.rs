//! Products of the client's fresh matrices and matrices that the server fixes at setup.
//!
//! * Functionality: `r [n, k]` of the client, `W [k, m]` of the server -> shares modulo `2^w` of `r W`, exact; the
//!   client's share is uniform.
//! * Requires: `w` in 1..=64, `k <= 2^24`; all words of `r` and `W` are taken modulo `2^w`.
//! * Bytes: setup, server to client, once: the public key, then `3 L` bytes per element of `W` for `L` limbs of the
//!   modulus. Preprocessing, client to server: per `2^log_stride` rows and 8192 columns one ciphertext of
//!   `8192 (w + 10)` bits, and `w + 5` bits per element of the result
//!   ([`marill_program::two_party::rlwe::WideShape`]).
//! * Rounds: half a round of setup for all matrices; one message per product.
//! * Fails: a coefficient is rounded wrongly with probability below `2^-70`.
//!
//! The server encrypts row `j` of `W`, entry `c` at coefficient `c 2^log_stride`, as `(a_j, b_j = a_j s + e_j + Q W_j /
//! 2^w)`, and sends what stands at those coefficients of `b_j`; `a_j` comes from a public seed. The client computes
//! `sum_j r_ij (a_j, b_j)`, two products of matrices, packs rows by automorphisms, and seals the reply
//! ([`marill_kernels::rlwe::reply`]): the noise budget is in [`marill_program::two_party::rlwe`].
//!
//! The server's view is its own randomness and the replies. `sum_j r_ij a_j` would tell it `r`, but for the fresh
//! encryption of zero under the public key that the client adds: with the error of the phase drowned in flooding, `a` is
//! pseudo-random to who does not know its ternary `u`, though he made the public key. Hence the simulator, given the
//! server's share `y`: uniform `a`, `b = a s + Q y / 2^w +` fresh flooding, then the same rounding. Distance: `2^-40` per
//! message of up to `2^26` coefficients, and the advantage against ring learning with errors. The client's view is
//! encryptions under a secret it does not know, of `W` and of that secret's images (circular security, as is usual for
//! key switching).
//!
//! References: Li et al., Nimbus: Secure and efficient two-party inference for transformers, NeurIPS 2024, section 3
//! (client-side outer product, row encoding); Chen et al., ACNS 2021 (packing); Lyubashevsky, Peikert and Regev,
//! EUROCRYPT 2010 (encryption).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use marill_kernels::bits::{mask, sign_extend};
use marill_kernels::rlwe::keys::{self, BLOCKS, PublicKey, SecretKey};
use marill_kernels::rlwe::reply::{Sealer, open, reply_bytes};
use marill_kernels::rlwe::residues::{self, RESIDUE_BYTES};
use marill_kernels::rlwe::sample::{BLOCK, Uniform, errors};
use marill_kernels::rlwe::scale::Encoder;
use marill_kernels::rlwe::switching::{Ciphertext, joins, pack};
use marill_kernels::rlwe::{DEGREE, MODULI, TERMS, ntt, product};
use marill_kernels::{Prg, Seed};
use marill_program::two_party::rlwe::{WidePlan, WideShape, key_bytes, wide_key, wide_setup_bytes};
use zeroize::Zeroizing;

use super::super::super::arrivals::Arrivals;
use super::super::super::shares::{Numbers, Shares};
use super::super::super::spool::Chunks;
use super::{WEIGHT_STREAM, check_length, malformed, parallel, read_key, send_key};
use crate::error::{Role, RunError};
use crate::transport::Channel;

/// Rows that are multiplied at once, unless one ciphertext holds more.
const PANEL_ROWS: usize = 128;

/// Terms of the client's matrix that are in memory at once.
const SPAN: usize = 16 * TERMS;

/// The server's half of setup: it can open replies.
pub struct ServerKey {
    secret: SecretKey,
    shapes: Vec<WideShape>,
}

/// The client's half of setup: the encrypted matrices, in a file that may still fill.
pub struct ClientKey {
    public: PublicKey,
    seed: Seed,
    shapes: Vec<WideShape>,
    /// Where each matrix begins.
    offsets: Vec<u64>,
    theirs: Arc<Arrivals>,
}

/// Sends the encrypted matrices 0, 1, ..., each `[k, m]` in row-major order, under the key of `seed`, which must be fresh.
/// `weights` makes a range of a matrix's elements.
///
/// # Errors
/// Of the channel, and what `weights` returns.
///
/// # Panics
/// If `weights` makes fewer than it is asked for.
pub fn send(
    channel: &mut Channel,
    shapes: &[WideShape],
    seed: &Seed,
    weights: impl Fn(usize, Range<usize>) -> Result<Vec<u64>, RunError> + Sync,
) -> Result<(), RunError> {
    let secret = SecretKey::new(seed);
    let mut chunks = Chunks::new(channel);
    let public = send_key(&mut chunks, &secret, seed, wide_key(shapes))?;
    for (job, shape) in shapes.iter().enumerate() {
        for (block, columns) in shape.blocks().enumerate() {
            let rows = Rows { secret: &secret, seed, public: &public, shape, job, block, columns };
            chunks.write_blocks(shape.k.div_ceil(TERMS), |at| {
                let (first, end) = (at * TERMS, shape.k.min((at + 1) * TERMS));
                Ok(rows.encrypt(first, &weights(job, first * shape.m..end * shape.m)?))
            })?;
        }
    }
    chunks.finish()
}

/// Receives what [`send`] sends.
///
/// # Errors
/// Of the channel and of the temporary file.
pub fn receive(channel: &mut Channel, shapes: &[WideShape], to: &Arrivals) -> Result<(), RunError> {
    to.receive(channel, wide_setup_bytes(shapes))
}

impl ServerKey {
    /// The key of `seed`.
    pub fn new(shapes: &[WideShape], seed: &Seed) -> ServerKey {
        ServerKey { secret: SecretKey::new(seed), shapes: shapes.to_vec() }
    }

    /// The server's share `[n, m]` of product `job` from the client's message.
    ///
    /// # Errors
    /// The message is not one of `n` rows.
    pub fn product(&self, job: usize, n: usize, message: &[u8]) -> Result<Vec<u64>, RunError> {
        let shape = &self.shapes[job];
        check_length(Role::Client, "product", message.len(), shape.message_bytes(n) as u64)?;
        let (plan, mut rest) = (shape.plan(), message);
        let mut pieces = Vec::new();
        for piece in pieces_of(shape, &plan, n) {
            let (bytes, later) = rest.split_at(reply_bytes(shape.width, piece.rows * piece.columns));
            pieces.push((piece, bytes));
            rest = later;
        }
        let opened = parallel(pieces.len(), |at| {
            let (piece, bytes) = &pieces[at];
            open(&self.secret, shape.width, &piece.positions(plan.log_stride), bytes)
        });
        let mut share = vec![0; n * shape.m];
        for ((piece, _), opened) in pieces.iter().zip(opened) {
            let opened = opened.ok_or_else(|| malformed(Role::Client, "product", "bits after its end"))?;
            for (i, values) in opened.chunks_exact(piece.columns).enumerate() {
                share[(piece.row + i) * shape.m + piece.column..][..piece.columns].copy_from_slice(values);
            }
        }
        Ok(share)
    }
}

/// One ciphertext of a message.
#[derive(Clone, Copy)]
struct Piece {
    block: usize,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl Piece {
    /// Where its elements stand, row by row.
    fn positions(&self, log_stride: u32) -> Vec<usize> {
        let step = log_stride - joins(self.rows);
        let row = |i: usize| (0..self.columns).map(move |c| (c << log_stride) + (i << step));
        (0..self.rows).flat_map(row).collect()
    }
}

fn panel_rows(plan: &WidePlan) -> usize {
    PANEL_ROWS.max(1 << plan.log_stride)
}

/// The ciphertexts of a message in order: by panel of rows, then block of columns.
fn pieces_of(shape: &WideShape, plan: &WidePlan, n: usize) -> Vec<Piece> {
    let (panel, group, mut pieces) = (panel_rows(plan), 1 << plan.log_stride, Vec::new());
    for first in (0..n).step_by(panel) {
        let end = n.min(first + panel);
        for (block, columns) in shape.blocks().enumerate() {
            let piece = |row: usize| Piece {
                block,
                row,
                rows: group.min(end - row),
                column: block * plan.columns,
                columns,
            };
            pieces.extend((first..end).step_by(group).map(piece));
        }
    }
    pieces
}

/// What encrypts the rows of one block of columns.
struct Rows<'a> {
    secret: &'a SecretKey,
    seed: &'a Seed,
    public: &'a Seed,
    shape: &'a WideShape,
    job: usize,
    block: usize,
    columns: usize,
}

impl Rows<'_> {
    /// Rows from `first` on, at most [`TERMS`], of which `weights` are the elements: by limb, then [`BLOCK`] columns, then
    /// row.
    fn encrypt(&self, first: usize, weights: &[u64]) -> Vec<u8> {
        let plan = self.shape.plan();
        let limbs = plan.modulus.limbs;
        let log_step = plan.log_stride.min(ntt::LOG_STEPS);
        let depth = TERMS.min(self.shape.k - first);
        let encoder = Encoder::new(self.shape.width, limbs);
        let mut source = Uniform::new(self.public, stream(self.job, self.block));
        let mut out = vec![0; limbs * depth * self.columns * RESIDUE_BYTES];
        let (mut a, mut product) = (vec![0.0; DEGREE], Zeroizing::new(vec![0.0; DEGREE]));
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for j in 0..depth {
            let row = first + j;
            let from = j * self.shape.m + self.block * plan.columns;
            let noise = WEIGHT_STREAM + ((stream(self.job, self.block)) << 32) + row as u64;
            let errors = Zeroizing::new(errors(&mut Prg::new(self.seed.clone(), noise), self.columns));
            let rests: Vec<i64> =
                weights[from..from + self.columns].iter().map(|w| encoder.rest(*w)).collect();
            for limb in 0..limbs {
                keys::uniform(&mut source, row as u64, limb, &mut a);
                product.fill(0.0);
                product::add_products(&a, self.secret.limb(limb), &mut product);
                product::reduce(MODULI[limb], &mut product);
                ntt::inverse_sparse(limb, log_step, &mut product);
                values.clear();
                let places = product[..DEGREE >> log_step].iter().step_by(1 << (plan.log_stride - log_step));
                let terms = places.zip(errors.iter()).zip(&rests);
                values.extend(terms.map(|((p, e), rest)| p + f64::from(*e) + encoder.residue(limb, *rest)));
                bytes.clear();
                residues::write(MODULI[limb], &values, &mut bytes);
                let places = &mut out[limb * depth * self.columns * RESIDUE_BYTES..];
                for (chunk, bytes) in bytes.chunks(BLOCK * RESIDUE_BYTES).enumerate() {
                    let at = chunk * BLOCK * RESIDUE_BYTES * depth + j * bytes.len();
                    places[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        out
    }
}

/// The stream of a public seed for one block of columns of one matrix.
fn stream(job: usize, block: usize) -> u64 {
    ((job as u64) << 12) + block as u64
}

impl ClientKey {
    /// What the server sends for `shapes`; waits for its key, and each product for its matrix.
    ///
    /// # Errors
    /// Of the file; the server's public key is none.
    pub fn new(shapes: &[WideShape], theirs: Arc<Arrivals>) -> Result<ClientKey, RunError> {
        let (limbs, levels) = wide_key(shapes);
        let (seed, public) = read_key(&theirs, Role::Server, (limbs, levels))?;
        let mut at = key_bytes(limbs, levels);
        let offsets = shapes.iter().map(|shape| {
            at += shape.setup_bytes();
            at - shape.setup_bytes()
        });
        let offsets = offsets.collect();
        Ok(ClientKey { public, seed, shapes: shapes.to_vec(), offsets, theirs })
    }

    /// The client's share `[n, m]` of `r [n, k]` times matrix `job`; the message goes to `send`, part by part. `seed` must be
    /// fresh.
    ///
    /// # Errors
    /// Of the file; the server's ciphertexts are none.
    ///
    /// # Panics
    /// If `r` is not `[n, k]`, or its width none of whole bytes.
    pub fn product(
        &self,
        job: usize,
        r: &Shares,
        n: usize,
        seed: &Seed,
        send: &mut dyn FnMut(Vec<u8>),
    ) -> Result<Vec<u64>, RunError> {
        let shape = &self.shapes[job];
        let (k, m, plan) = (shape.k, shape.m, shape.plan());
        assert_eq!(r.len(), n * k, "the client's matrix is not [{n}, {k}]");
        let share = Prg::new(seed.clone(), 0).ring(n * m, shape.width);
        let limbs = plan.modulus.limbs;
        let sealer = Sealer::new(&self.public, limbs, shape.width, plan.modulus.flood_bits);
        let pieces = pieces_of(shape, &plan, n);
        let mut at = 0;
        while let Some(first) = pieces.get(at) {
            let here = pieces[at..]
                .iter()
                .take_while(|p| p.block == first.block && p.row < first.row + panel_rows(&plan));
            let panel: Vec<Piece> = here.copied().collect();
            let product = Panel::new(self, job, &panel, r)?;
            let sealed = parallel(panel.len(), |i| {
                let piece = &panel[i];
                let shares: Vec<u64> = (piece.row..piece.row + piece.rows)
                    .flat_map(|row| &share[row * m + piece.column..][..piece.columns])
                    .copied()
                    .collect();
                let rows = piece.row - first.row..piece.row - first.row + piece.rows;
                let packed = pack(rows.map(|row| product.row(row)).collect(), plan.log_stride, &self.public);
                let mut noise = Prg::new(seed.clone(), 1 + (at + i) as u64);
                let mut bytes = Vec::with_capacity(reply_bytes(shape.width, shares.len()));
                sealer.seal(packed, &piece.positions(plan.log_stride), &shares, &mut noise, &mut bytes);
                bytes
            });
            sealed.into_iter().for_each(&mut *send);
            at += panel.len();
        }
        Ok(share)
    }
}

/// The product of a few rows of the client's matrix and one block of columns of the encrypted one.
struct Panel {
    plan: WidePlan,
    columns: usize,
    /// By limb, then [`BLOCK`] slots: `[rows, BLOCK]`.
    a: Vec<Vec<f64>>,
    /// By limb, then [`BLOCK`] columns: `[rows, BLOCK]`, the last narrower.
    b: Vec<Vec<f64>>,
}

impl Panel {
    fn new(key: &ClientKey, job: usize, pieces: &[Piece], r: &Shares) -> Result<Panel, RunError> {
        let shape = &key.shapes[job];
        let (plan, Piece { block, row: first_row, columns, .. }) = (shape.plan(), pieces[0]);
        let limbs = plan.modulus.limbs;
        let n = pieces.iter().map(|piece| piece.rows).sum::<usize>();
        let chunks = columns.div_ceil(BLOCK);
        let width = |chunk: usize| BLOCK.min(columns - chunk * BLOCK);
        let zeros = |width: usize| Mutex::new(vec![0.0; n * width]);
        let a: Vec<_> = (0..limbs * BLOCKS).map(|_| zeros(BLOCK)).collect();
        let b: Vec<_> = (0..limbs * chunks).map(|item| zeros(width(item % chunks))).collect();
        let offset = key.offsets[job] + (limbs * shape.k * block * plan.columns * RESIDUE_BYTES) as u64;
        for from in (0..shape.k).step_by(SPAN) {
            let terms = from..shape.k.min(from + SPAN);
            let depths: Vec<usize> = terms.clone().step_by(TERMS).collect();
            let depth = |first: usize| TERMS.min(terms.end - first);
            let mut numbers = Numbers::default();
            let mut here = Zeroizing::new(Vec::with_capacity(n * terms.len()));
            for row in (first_row..first_row + n).map(|row| row * shape.k) {
                r.read(row + terms.start..row + terms.end, &mut numbers);
                here.extend_from_slice(&numbers);
            }
            let tiles = parallel(limbs, |limb| tiles(shape, pieces, &here, limb));
            parallel(limbs * BLOCKS, |item| {
                let (limb, chunk) = (item / BLOCKS, item % BLOCKS);
                let mut source = Uniform::new(&key.seed, stream(job, block));
                let (mut row, mut panel) = (vec![0.0; BLOCK], vec![0.0; BLOCK * TERMS]);
                let mut sums = a[item].lock().unwrap_or_else(PoisonError::into_inner);
                for (first, tiles) in depths.iter().zip(&tiles[limb]) {
                    let panel = &mut panel[..BLOCK * depth(*first)];
                    for j in 0..depth(*first) {
                        keys::uniform_block(&mut source, (first + j) as u64, limb, chunk, &mut row);
                        product::pack_term(&row, j, depth(*first), panel);
                    }
                    product::accumulate(MODULI[limb], depth(*first), tiles, panel, &mut sums, BLOCK);
                }
            });
            let read = parallel(limbs * chunks, |item| {
                let (limb, chunk) = (item / chunks, item % chunks);
                let width = width(chunk);
                let mut row = vec![0.0; width];
                let mut panel = vec![0.0; width.next_multiple_of(product::COLUMNS) * TERMS];
                let mut sums = b[item].lock().unwrap_or_else(PoisonError::into_inner);
                for (first, tiles) in depths.iter().zip(&tiles[limb]) {
                    let depth = depth(*first);
                    let before = first * limbs * columns + (limb * columns + chunk * BLOCK) * depth;
                    let at = offset + (before * RESIDUE_BYTES) as u64;
                    let bytes = key.theirs.read(at, depth * width * RESIDUE_BYTES)?;
                    let panel = &mut panel[..width.next_multiple_of(product::COLUMNS) * depth];
                    for (j, bytes) in bytes.chunks_exact(width * RESIDUE_BYTES).enumerate() {
                        residues::read(MODULI[limb], bytes, &mut row).ok_or_else(|| {
                            malformed(Role::Server, "matrix", "a residue that is not below its prime")
                        })?;
                        product::pack_term(&row, j, depth, panel);
                    }
                    product::accumulate(MODULI[limb], depth, tiles, panel, &mut sums, width);
                }
                Ok(())
            });
            read.into_iter().collect::<Result<(), RunError>>()?;
        }
        let all = |sums: Vec<Mutex<Vec<f64>>>| -> Vec<Vec<f64>> {
            sums.into_iter().map(|sum| sum.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
        };
        Ok(Panel { plan, columns, a: all(a), b: all(b) })
    }

    /// The encrypted row `row`.
    fn row(&self, row: usize) -> Ciphertext {
        let mut ciphertext = Ciphertext::zero(self.plan.modulus.limbs);
        for (place, a) in ciphertext.a.chunks_exact_mut(BLOCK).zip(&self.a) {
            place.copy_from_slice(&a[row * BLOCK..(row + 1) * BLOCK]);
        }
        let chunks = self.b.chunks_exact(self.columns.div_ceil(BLOCK));
        for (limb, (place, chunks)) in ciphertext.b.chunks_exact_mut(DEGREE).zip(chunks).enumerate() {
            let widths = (0..self.columns).step_by(BLOCK).map(|from| BLOCK.min(self.columns - from));
            let values = chunks.iter().zip(widths).flat_map(|(b, width)| &b[row * width..(row + 1) * width]);
            place
                .iter_mut()
                .step_by(1 << self.plan.log_stride)
                .zip(values)
                .for_each(|(place, b)| *place = *b);
            ntt::forward(limb, place);
        }
        ciphertext
    }
}

/// Some terms of the client's matrix modulo one prime over the factor that packing multiplies by, in tiles of [`TERMS`].
fn tiles(shape: &WideShape, pieces: &[Piece], r: &[u64], limb: usize) -> Vec<Zeroizing<Vec<f64>>> {
    let modulus = MODULI[limb];
    let factors = pieces.iter().flat_map(|piece| {
        let factor = modulus.invert(f64::from(1_u32 << joins(piece.rows)));
        std::iter::repeat_n(factor, piece.rows)
    });
    let terms = r.len() / pieces.iter().map(|piece| piece.rows).sum::<usize>();
    let mut residues = Zeroizing::new(Vec::with_capacity(r.len()));
    for (row, factor) in r.chunks_exact(terms).zip(factors) {
        let residue = |value: &u64| modulus.residue(sign_extend(value & mask(shape.width), shape.width));
        residues.extend(row.iter().map(|value| modulus.reduce(residue(value) * factor)));
    }
    let tile = |first: usize| {
        let mut tiles = Zeroizing::new(Vec::new());
        product::pack_rows(&residues, terms, first, TERMS.min(terms - first), &mut tiles);
        tiles
    };
    (0..terms).step_by(TERMS).map(tile).collect()
}
