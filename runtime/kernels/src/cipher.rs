//! AES-128 of many blocks at once.

#[cfg(target_arch = "x86_64")]
pub(crate) mod wide;

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::blocks::Block;

/// AES-128 under one key.
pub(crate) struct Cipher {
    narrow: Aes128Enc,
    #[cfg(target_arch = "x86_64")]
    wide: Option<wide::RoundKeys>,
}

impl Cipher {
    pub(crate) fn new(key: &[u8; 16]) -> Cipher {
        Cipher {
            narrow: Aes128Enc::new(key.into()),
            #[cfg(target_arch = "x86_64")]
            wide: wide::RoundKeys::new(key),
        }
    }

    /// Replaces every block by its encryption.
    pub(crate) fn encrypt(&self, blocks: &mut [Block]) {
        blocks.iter_mut().for_each(|block| *block = block.to_le());
        #[cfg(target_arch = "x86_64")]
        let rest = match &self.wide {
            Some(keys) => keys.encrypt(blocks),
            None => &mut *blocks,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let rest = &mut *blocks;
        // SAFETY: `Array<u8, U16>` is 16 bytes that take any value, aligned to 1, and the memory is borrowed mutably for
        // as long as the view lives.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(rest.as_mut_ptr().cast::<Array<u8, _>>(), rest.len()) };
        self.narrow.encrypt_blocks(bytes);
        blocks.iter_mut().for_each(|block| *block = Block::from_le(*block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_blocks_is_encrypted_as_one_by_one() {
        let key = *b"sixteen byte key";
        let cipher = Cipher::new(&key);
        for len in [0_u32, 1, 3, 4, 5, 31, 32, 33, 64, 100] {
            let mut blocks: Vec<Block> = (0..len).map(|i| Block::from(i * i + 7) << (i % 90)).collect();
            let expected: Vec<Block> = blocks
                .iter()
                .map(|block| {
                    let mut bytes = block.to_le_bytes().into();
                    Aes128Enc::new(&key.into()).encrypt_block(&mut bytes);
                    Block::from_le_bytes(bytes.into())
                })
                .collect();
            cipher.encrypt(&mut blocks);
            assert_eq!(blocks, expected, "{len}");
        }
    }
}
