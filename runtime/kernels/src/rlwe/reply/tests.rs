use super::super::keys::{publish, published_bytes, uniform};
use super::super::modulus::{LIMBS, product_of};
use super::super::sample::Uniform;
use super::super::scale::Encoder;
use super::super::switching;
use super::*;
use crate::Seed;

const LEVELS: u32 = 3;

struct Holder {
    key: SecretKey,
    public: PublicKey,
}

fn holder(limbs: usize, levels: u32) -> Holder {
    let (secret, public) = (Seed::new([3; 16]), Seed::new([4; 16]));
    let key = SecretKey::new(&secret);
    let bytes = publish(&key, &secret, &public, limbs, levels);
    assert_eq!(bytes.len(), published_bytes(limbs, levels));
    let public = PublicKey::read(&public, limbs, levels, &bytes).unwrap();
    Holder { key, public }
}

fn flood_bits(width_bits: u32, limbs: usize) -> u32 {
    let bits: f64 = MODULI[..limbs].iter().map(|m| m.value.log2()).sum();
    bits as u32 - width_bits - FLOOD_MARGIN_BITS
}

/// An encryption, made from the definition, of `messages` at multiples of `stride`, uniform elsewhere.
fn encrypt(
    key: &SecretKey,
    messages: &[u64],
    stride: usize,
    width_bits: u32,
    limbs: usize,
    salt: u8,
) -> Ciphertext {
    let mut noise = Prg::new(Seed::new([salt; 16]), 9);
    let mut source = Uniform::new(&Seed::new([salt; 16]), 1);
    let error = errors(&mut noise, DEGREE);
    let garbage = noise.ring(DEGREE, 64);
    let encoder = Encoder::new(width_bits, limbs);
    let mut ciphertext = Ciphertext::zero(limbs);
    for (limb, modulus) in MODULI.into_iter().enumerate().take(limbs) {
        let range = limb * DEGREE..(limb + 1) * DEGREE;
        let (a, b) = (&mut ciphertext.a[range.clone()], &mut ciphertext.b[range]);
        uniform(&mut source, 0, limb, a);
        for at in 0..DEGREE {
            b[at] = if at % stride == 0 {
                encoder.residue(limb, encoder.rest(messages[at / stride])) + f64::from(error[at])
            } else {
                modulus.residue(garbage[at] as i64)
            };
        }
        ntt::forward(limb, b);
        product::add_products(a, key.limb(limb), b);
        product::reduce(modulus, b);
    }
    ciphertext
}

#[test]
fn sealed_messages_come_back_less_their_shares() {
    let holder = holder(LIMBS, 0);
    for (width_bits, limbs) in [(1, 4), (20, 4), (37, 7), (53, 8), (54, 8), (55, 8), (64, 9)] {
        let mut noise = Prg::new(Seed::new([width_bits as u8; 16]), 0);
        let messages = noise.ring(DEGREE, width_bits);
        let ciphertext = encrypt(&holder.key, &messages, 1, width_bits, limbs, 7);
        let positions = [0, 1, 77, DEGREE - 1];
        let shares = noise.ring(positions.len(), width_bits);
        let sealer = Sealer::new(&holder.public, limbs, width_bits, flood_bits(width_bits, limbs));
        let mut bytes = Vec::new();
        sealer.seal(ciphertext, &positions, &shares, &mut noise, &mut bytes);
        assert_eq!(bytes.len(), reply_bytes(width_bits, positions.len()));
        let found = open(&holder.key, width_bits, &positions, &bytes).unwrap();
        for ((at, share), found) in positions.iter().zip(&shares).zip(found) {
            assert_eq!(found, messages[*at].wrapping_sub(*share) & mask(width_bits));
        }
        assert!(open(&holder.key, width_bits, &positions[1..], &bytes).is_none());
        assert!(open(&holder.key, width_bits, &positions, &bytes[1..]).is_none());
    }
}

/// The flooding is a thirty-second of a plaintext unit, so it is found by keeping more bits of both parts.
#[test]
fn flooding_and_rounding_stay_in_their_bounds() {
    let holder = holder(4, 0);
    let (width_bits, limbs) = (20, 4);
    let positions: Vec<usize> = (0..DEGREE).collect();
    let messages = vec![0; DEGREE];
    let reply = |noise: &mut Prg| {
        let sealer = Sealer::new(&holder.public, limbs, width_bits, flood_bits(width_bits, limbs));
        let mut bytes = Vec::new();
        sealer.seal(
            encrypt(&holder.key, &messages, 1, width_bits, limbs, 7),
            &positions,
            &messages,
            noise,
            &mut bytes,
        );
        bytes
    };
    let mut noise = Prg::new(Seed::new([1; 16]), 0);
    let (first, second) = (reply(&mut noise), reply(&mut noise));
    let (a, b) = first.split_at(packed_wide_len(DEGREE, width_bits + A_BITS));
    let (c, d) = second.split_at(a.len());
    let differ = |x: &[u8], y: &[u8]| x.iter().zip(y).filter(|(x, y)| x != y).count() as f64 / x.len() as f64;
    assert!(differ(a, c) > 0.98 && differ(b, d) > 0.98, "the same ciphertext gives similar replies");
    let phases = phases(&holder.key, width_bits, &positions, &first).unwrap();
    let errors: Vec<f64> = phases
        .iter()
        .map(|phase| ((*phase as i64) << (64 - width_bits - A_BITS) >> (64 - width_bits - A_BITS)) as f64)
        .collect();
    assert!(errors.iter().all(|e| e.abs() < 497.0));
    // Variances: 5461 nonzero digits of the secret, rounding to 32 units, flooding of 64 to 128 units.
    let variance = errors.iter().map(|e| e * e).sum::<f64>() / DEGREE as f64;
    let q: f64 = MODULI[..limbs].iter().map(|m| m.value).product();
    let flood = 2.0 * 2.0_f64.powi((flood_bits(width_bits, limbs) + width_bits + A_BITS) as i32) / q;
    let expected = (2.0 / 3.0 * DEGREE as f64 + 1024.0 + flood * flood) / 12.0;
    assert!((variance / expected - 1.0).abs() < 0.1, "variance {variance}, expected {expected}");
}

#[test]
fn sparse_ciphertexts_are_packed_into_one() {
    let holder = holder(5, LEVELS);
    let (width_bits, limbs, stride) = (30, 4, 1 << LEVELS);
    for count in [1, 2, 3, 5, 8] {
        let joins = switching::joins(count);
        let messages: Vec<Vec<u64>> = (0..count)
            .map(|i| Prg::new(Seed::new([i as u8; 16]), 3).ring(DEGREE / stride, width_bits))
            .collect();
        let fraction: Vec<f64> = MODULI.iter().map(|m| m.invert(f64::from(1 << joins))).collect();
        let ciphertexts = messages.iter().enumerate().map(|(i, messages)| {
            let mut c = encrypt(&holder.key, messages, stride, width_bits, limbs, i as u8 + 50);
            for (at, value) in c.a.iter_mut().chain(&mut c.b).enumerate() {
                let limb = at / DEGREE % limbs;
                *value = MODULI[limb].reduce(*value * fraction[limb]);
            }
            c
        });
        let packed = switching::pack(ciphertexts.collect(), LEVELS, &holder.public);
        let step = stride >> joins;
        let positions: Vec<usize> =
            (0..count).flat_map(|i| (0..DEGREE / stride).map(move |c| c * stride + i * step)).collect();
        let sealer = Sealer::new(&holder.public, limbs, width_bits, flood_bits(width_bits, limbs));
        let mut bytes = Vec::new();
        let shares = vec![0; positions.len()];
        sealer.seal(packed, &positions, &shares, &mut Prg::new(Seed::new([8; 16]), 0), &mut bytes);
        assert_eq!(
            open(&holder.key, width_bits, &positions, &bytes).unwrap(),
            messages.concat(),
            "{count} packed"
        );
    }
}

#[test]
fn keys_of_wrong_lengths_or_residues_are_refused() {
    let (secret, public) = (Seed::new([3; 16]), Seed::new([4; 16]));
    let mut bytes = publish(&SecretKey::new(&secret), &secret, &public, 2, 1);
    assert!(PublicKey::read(&public, 2, 1, &bytes).is_some());
    assert!(PublicKey::read(&public, 2, 1, &bytes[1..]).is_none());
    assert!(PublicKey::read(&public, 2, 2, &bytes).is_none());
    assert!(PublicKey::read(&public, LIMBS + 1, 1, &bytes).is_none());
    let last = bytes.len() - 1;
    bytes[last] = 0xff;
    assert!(PublicKey::read(&public, 2, 1, &bytes).is_none());
    assert_ne!(product_of(2), 0);
}
