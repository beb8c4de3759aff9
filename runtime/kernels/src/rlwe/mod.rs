//! Ring learning with errors over `R_Q = Z_Q[X] / (X^N + 1)`, `N` = [`DEGREE`], `Q` a product of up to [`LIMBS`]
//! primes just below `2^24`.
//!
//! Residues are `f64` integers near `-p/2..=p/2`: a product is below `2^46`, so that [`TERMS`] of them add up exactly
//! before one reduction, and every loop is a loop over doubles. Data flows [`modulus`] (one residue) -> [`ntt`] and
//! [`product`] (many) -> [`sample`] and [`scale`] (from and to integers) -> [`keys`] and [`switching`] (ciphertexts) ->
//! [`reply`] (what is sent back). A ciphertext `(a, b)` under the secret `s` has the phase `b - a s`, which is the
//! message times `Q / 2^w` and an error.
//!
//! Security: ternary secrets and `log2 Q <= 215.7` at `N = 8192`, below the 218 bits that the Homomorphic Encryption
//! Standard (Albrecht et al., 2018, table 1) gives for 128 bits.

pub mod keys;
pub mod modulus;
pub mod ntt;
pub mod product;
pub mod reply;
pub mod residues;
pub mod sample;
pub mod scale;
pub mod switching;

pub use modulus::{DEGREE, LIMBS, MODULI, TERMS};
