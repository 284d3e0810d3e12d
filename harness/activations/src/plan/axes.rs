//! The named axes of activations and the four shapes they may have.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// One axis of an activation tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// `b`: samples.
    Batch,
    /// `l`: layers of the model, each with its number.
    Layer,
    /// `s`: token positions, padded on the right to the longest sample.
    Sequence,
    /// `h`: columns of the residual stream.
    Hidden,
}

impl Axis {
    /// All axes in the order of a shape.
    pub const ALL: [Axis; 4] = [Axis::Batch, Axis::Layer, Axis::Sequence, Axis::Hidden];

    /// The letter that names the axis.
    pub const fn letter(self) -> char {
        match self {
            Axis::Batch => 'b',
            Axis::Layer => 'l',
            Axis::Sequence => 's',
            Axis::Hidden => 'h',
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

impl FromStr for Axis {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) => Axis::ALL.into_iter().find(|axis| axis.letter() == letter),
            _ => None,
        }
        .ok_or_else(|| Error::usage(format!("unknown axis '{text}': use b, l, s or h")))
    }
}

/// Which axes a tensor has. Every tensor has `b` and `h`, so only legal shapes can be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axes {
    layer: bool,
    sequence: bool,
}

impl Axes {
    /// One vector a sample.
    pub const BH: Axes = Axes { layer: false, sequence: false };
    /// One vector a token.
    pub const BSH: Axes = Axes { layer: false, sequence: true };
    /// One vector a sample and layer.
    pub const BLH: Axes = Axes { layer: true, sequence: false };
    /// One vector a sample, layer and token.
    pub const BLSH: Axes = Axes { layer: true, sequence: true };
    /// Every legal shape.
    pub const ALL: [Axes; 4] = [Axes::BH, Axes::BSH, Axes::BLH, Axes::BLSH];

    /// Whether `axis` is one of them.
    pub const fn has(self, axis: Axis) -> bool {
        match axis {
            Axis::Batch | Axis::Hidden => true,
            Axis::Layer => self.layer,
            Axis::Sequence => self.sequence,
        }
    }

    /// These axes without `axis`; `b` and `h` stay.
    pub const fn without(self, axis: Axis) -> Axes {
        match axis {
            Axis::Batch | Axis::Hidden => self,
            Axis::Layer => Axes { layer: false, ..self },
            Axis::Sequence => Axes { sequence: false, ..self },
        }
    }

    /// The letters in order: `bh`, `bsh`, `blh` or `blsh`.
    pub const fn name(self) -> &'static str {
        match (self.layer, self.sequence) {
            (false, false) => "bh",
            (false, true) => "bsh",
            (true, false) => "blh",
            (true, true) => "blsh",
        }
    }

    /// The number of axes.
    pub const fn count(self) -> usize {
        2 + self.layer as usize + self.sequence as usize
    }
}

impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Axes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Axes::ALL
            .into_iter()
            .find(|axes| axes.name() == text)
            .ok_or_else(|| Error::usage(format!("unknown axes '{text}': use bh, bsh, blh or blsh")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for axes in Axes::ALL {
            assert_eq!(axes.name().parse::<Axes>().unwrap(), axes);
            assert_eq!(axes.name().len(), axes.count());
            for axis in Axis::ALL {
                assert_eq!(axes.has(axis), axes.name().contains(axis.letter()));
                assert_eq!(axis.to_string().parse::<Axis>().unwrap(), axis);
            }
        }
        for wrong in ["", "hb", "bls", "bhh", "BH"] {
            assert!(wrong.parse::<Axes>().unwrap_err().to_string().contains("blsh"), "{wrong}");
        }
        assert!("layer".parse::<Axis>().is_err());
    }

    #[test]
    fn dropping_an_axis_leaves_the_others() {
        assert_eq!(Axes::BLSH.without(Axis::Layer), Axes::BSH);
        assert_eq!(Axes::BLSH.without(Axis::Sequence).without(Axis::Layer), Axes::BH);
        assert_eq!(Axes::BH.without(Axis::Batch), Axes::BH);
    }
}
