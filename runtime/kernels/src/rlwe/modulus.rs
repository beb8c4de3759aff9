//! Arithmetic modulo one prime, on doubles, and the choice of instructions.

/// Coefficients of a ring element.
pub const DEGREE: usize = 1 << 13;
/// The most primes of a modulus.
pub const LIMBS: usize = 9;
/// Products of two residues that may be added to a third residue before a reduction.
pub const TERMS: usize = 96;

/// The largest primes `p = 1 mod 2 N` below `2^24`.
const PRIMES: [u32; LIMBS] =
    [16760833, 16580609, 16515073, 16465921, 16384001, 16269313, 16121857, 15974401, 15941633];

/// The moduli, in the order in which they are used: `L` limbs are the first `L`.
pub const MODULI: [Modulus; LIMBS] = {
    let mut moduli = [Modulus::new(PRIMES[0]); LIMBS];
    let mut i = 1;
    while i < LIMBS {
        moduli[i] = Modulus::new(PRIMES[i]);
        i += 1;
    }
    moduli
};

/// Added to and taken from a double below `2^51`, it rounds to the nearest integer.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// A prime and its inverse.
#[derive(Clone, Copy, Debug)]
pub struct Modulus {
    pub(super) value: f64,
    pub(super) inverse: f64,
}

impl Modulus {
    const fn new(prime: u32) -> Modulus {
        Modulus { value: prime as f64, inverse: 1.0 / prime as f64 }
    }

    /// The prime.
    pub const fn prime(self) -> u32 {
        self.value as u32
    }

    /// `x` brought near `-p/2..=p/2` (beyond it by at most one), for an integer below `2^53`.
    pub fn reduce(self, x: f64) -> f64 {
        self.reduce_by::<Plain>(x)
    }

    #[inline(always)]
    pub(super) fn reduce_by<A: MulAdd>(self, x: f64) -> f64 {
        let quotient = A::mul_add(x, self.inverse, ROUND) - ROUND;
        A::mul_add(-quotient, self.value, x)
    }

    /// `x` in `0..p`, for an integer below `2^53`.
    pub fn canonical(self, x: f64) -> u32 {
        let near = self.reduce(x);
        let from_zero = if near < 0.0 { near + self.value } else { near };
        (if from_zero >= self.value { from_zero - self.value } else { from_zero }) as u32
    }

    /// The residue of an integer.
    pub fn residue(self, value: i64) -> f64 {
        let high = self.reduce((value >> 32) as f64);
        self.reduce(high * self.reduce(4_294_967_296.0) + (value & 0xffff_ffff) as f64)
    }

    /// `base^exponent`.
    pub fn power(self, base: f64, mut exponent: u64) -> f64 {
        let (mut power, mut square) = (1.0, base);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power = self.reduce(power * square);
            }
            square = self.reduce(square * square);
            exponent >>= 1;
        }
        power
    }

    /// The inverse of a residue that is not zero.
    pub fn invert(self, x: f64) -> f64 {
        self.power(x, u64::from(self.prime()) - 2)
    }
}

/// `Q` of the first `limbs` moduli, modulo `2^64`.
pub fn product_of(limbs: usize) -> u64 {
    PRIMES[..limbs].iter().fold(1, |product: u64, prime| product.wrapping_mul(u64::from(*prime)))
}

/// The product `Q / p_i` of the other moduli, modulo `p_i`.
pub(super) fn others(limbs: usize, i: usize) -> f64 {
    let modulus = MODULI[i];
    let others = (0..limbs).filter(|j| *j != i);
    others.fold(1.0, |product, j| modulus.reduce(product * MODULI[j].value))
}

/// How `a * b + c` is computed where the result is exact anyhow.
pub(super) trait MulAdd {
    /// `a * b + c`.
    fn mul_add(a: f64, b: f64, c: f64) -> f64;
}

/// With a fused instruction.
pub(super) struct Fused;

impl MulAdd for Fused {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }
}

/// With two instructions.
pub(super) struct Plain;

impl MulAdd for Plain {
    #[inline(always)]
    fn mul_add(a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }
}

/// An implementation; all give the same residues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// No vector instructions beyond what the compiler finds.
    Portable,
}

impl Path {
    /// Every path, fastest first.
    pub const ALL: [Path; 3] = [Path::Avx512, Path::Avx2, Path::Portable];

    /// Whether this machine can run the path.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Path::Avx512 => is_x86_feature_detected!("avx512f") && Path::Avx2.is_available(),
            Path::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Path::Portable => true,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Path::Portable;
    }

    /// The fastest path of this machine.
    pub fn best() -> Path {
        Path::ALL.into_iter().find(|path| path.is_available()).unwrap_or(Path::Portable)
    }
}

/// Defines `name(path, arguments)` that runs `body::<Fused>` or `body::<Plain>` with the path's instructions.
macro_rules! on_every_path {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $visible fn $name(path: $crate::rlwe::modulus::Path, $($argument: $kind),*) {
            use $crate::rlwe::modulus::{Path, Plain};
            assert!(path.is_available(), "this machine cannot run the {path:?} path");
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::rlwe::modulus::Fused;
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn avx512($($argument: $kind),*) {
                    $body::<Fused>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) {
                    $body::<Fused>($($argument),*)
                }
                // SAFETY: the machine has the features, which was asserted above.
                match path {
                    Path::Avx512 => return unsafe { avx512($($argument),*) },
                    Path::Avx2 => return unsafe { avx2($($argument),*) },
                    Path::Portable => {}
                }
            }
            $body::<Plain>($($argument),*)
        }
    };
}
pub(super) use on_every_path;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moduli_are_the_primes_that_are_wanted() {
        let is_prime = |p: u32| (2..5000).all(|d: u32| !p.is_multiple_of(d));
        let wanted: Vec<u32> =
            (1..1024).map(|i| (1 << 24) + 1 - (i << 14)).filter(|p| is_prime(*p)).take(LIMBS).collect();
        assert_eq!(wanted, PRIMES);
    }

    #[test]
    fn residues_are_those_of_integers() {
        for modulus in MODULI {
            let p = i64::from(modulus.prime());
            for value in
                [0, 1, -1, p / 2, p / 2 + 1, p, -p, i64::MAX, i64::MIN, 1 << 52, 0x0123_4567_89ab_cdef]
            {
                let residue = modulus.residue(value);
                assert_eq!((residue as i64).rem_euclid(p), value.rem_euclid(p), "{value} modulo {p}");
                assert!(residue.abs() <= modulus.value / 2.0 + 1.0);
                assert_eq!(i64::from(modulus.canonical(residue)), value.rem_euclid(p));
            }
            let largest =
                TERMS as f64 * (modulus.value / 2.0 + 1.0) * (modulus.value / 2.0 + 1.0) + modulus.value;
            assert!(largest < 9_007_199_254_740_992.0);
            let x = (TERMS as i64 + 1) * (p / 2) * (p / 2) - 12345;
            assert_eq!((modulus.reduce(x as f64) as i64).rem_euclid(p), x % p);
            assert_eq!(modulus.reduce(modulus.invert(12345.0) * 12345.0), 1.0);
        }
    }
}
