//! Rotary frequencies (Su et al. 2021) and their scalings for long contexts, as in transformers' `modeling_rope_utils`.

/// One rotary table: the frequencies of its pairs of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// The first elements of each head that are rotated; even.
    pub rotary_dim: usize,
    /// What is done to the frequencies for long contexts.
    pub scaling: RopeScaling,
}

/// What is done to the frequencies for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    Default,
}

impl RopeSpec {
    /// The frequencies, `rotary_dim / 2` of them, in radians a position.
    pub fn frequencies(&self) -> Vec<f32> {
        Vec::new()
    }

    /// The factor of cosines and sines (YaRN, LongRoPE); 1 for the others.
    pub fn attention_factor(&self) -> f32 {
        1.0
    }

    /// The longest row, in tokens, that has these frequencies, and what a longer one would have; none where all rows have them.
    pub fn longest_row(&self) -> Option<(usize, String)> {
        None
    }
}
