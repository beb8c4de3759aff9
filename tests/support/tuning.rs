//! Ways of fine-tuning that are compared.

/// How a model was fine-tuned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// Whether every weight changed, but for those of frozen blocks and, with these, the embeddings and the head.
    pub full: bool,
    /// Blocks from the first on that did not change.
    pub frozen: usize,
    /// Rank of unmerged adapters beside the linear layers of the blocks that are not frozen; 0 for none.
    pub lora_rank: usize,
    /// Whether only the layers that make queries, keys and values have adapters, or else all linear layers.
    pub lora_attention_only: bool,
    /// Heads that became one, in the blocks that are not frozen; 0 and 1 leave them.
    pub merged_heads: usize,
}

impl Tuning {
    /// What the table of techniques compares, by name.
    pub fn named(name: &str, layers: usize) -> Option<Tuning> {
        let base = Tuning::default();
        let frozen = layers / 2;
        Some(match name {
            "base" => base,
            "full" => Tuning { full: true, ..base },
            "frozen" => Tuning { full: true, frozen, ..base },
            "lora" => Tuning { lora_rank: 8, ..base },
            "lora-attention" => Tuning { lora_rank: 8, lora_attention_only: true, ..base },
            "heads" => Tuning { full: true, merged_heads: 4, ..base },
            "all" => Tuning { frozen, lora_rank: 8, merged_heads: 4, ..base },
            "all-attention" => {
                Tuning { frozen, lora_rank: 8, lora_attention_only: true, merged_heads: 4, ..base }
            }
            "all-attention-late" => Tuning {
                frozen: 3 * layers / 4,
                lora_rank: 8,
                lora_attention_only: true,
                merged_heads: 4,
                ..base
            },
            _ => return None,
        })
    }
}
