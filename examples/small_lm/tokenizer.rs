//! Tokens back to text: the decoding half of a byte-level BPE tokenizer in the `tokenizer.json` format.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// A vocabulary: the text of every token.
pub struct Tokenizer {
    texts: BTreeMap<i64, String>,
    bytes: BTreeMap<char, u8>,
}

impl Tokenizer {
    /// Reads the vocabulary from `tokenizer.json`.
    ///
    /// # Errors
    /// A file that cannot be read or holds no vocabulary.
    pub fn load(path: &Path) -> Result<Tokenizer, Box<dyn Error>> {
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
        let vocabulary = json["model"]["vocab"].as_object().ok_or("tokenizer.json holds no model.vocab")?;
        let texts = vocabulary.iter().filter_map(|(text, id)| Some((id.as_i64()?, text.clone()))).collect();
        Ok(Tokenizer { texts, bytes: byte_alphabet() })
    }

    /// The text of `tokens`; an unknown token reads as U+FFFD.
    pub fn decode(&self, tokens: &[i64]) -> String {
        let texts = tokens.iter().map(|id| self.texts.get(id).map_or("\u{fffd}", String::as_str));
        let bytes: Vec<u8> =
            texts.flat_map(str::chars).map(|c| self.bytes.get(&c).copied().unwrap_or(b'?')).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Byte-level BPE writes every byte as a printable character: Latin letters and signs stand for themselves, the
/// others for U+0100 and up in order.
fn byte_alphabet() -> BTreeMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = 0x100u32..;
    let character = |b: u8| {
        if printable(b) { Some(char::from(b)) } else { shifted.next().and_then(char::from_u32) }
    };
    (0..=255u8).map(character).zip(0..=255u8).filter_map(|(c, b)| Some((c?, b))).collect()
}
