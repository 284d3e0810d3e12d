//! Walks values of Thrift's compact protocol, in which a Parquet file stores its metadata and page headers.
//!
//! The crate `parquet` decodes them without a bound on its work. It skips the booleans of an unknown list without reading
//! a byte for each, so that 90 bytes can cost 2^31 steps, and it reads a known field by the type of the format, whatever
//! type the field declares. A value that passes this walk has no list of booleans, has the types of the format, and takes
//! at least one byte for each step of a decoder. The encoding is Thrift's doc/specs/thrift-compact-protocol.md.

/// Levels of structs, lists and maps below a field that the format does not have. The crate refuses more.
const MAX_DEPTH: usize = 64;
/// Bytes of a number of 64 bits, 7 bits in each.
const MAX_NUMBER_BYTES: u32 = 10;

/// The type of a field.
pub(super) enum Kind {
    Bool,
    Byte,
    /// A number of 16, 32 or 64 bits: all have the same encoding.
    Integer,
    /// A number of 32 bits that [`Walker::records`] gets, at this index.
    Recorded(usize),
    Double,
    Binary,
    List(&'static Kind),
    Struct(&'static StructKind),
}

/// A struct or union of the format.
pub(super) struct StructKind {
    /// Ids from 1 to 63 and their types.
    pub(super) fields: &'static [(i16, Kind)],
    /// Whether [`Walker::records`] gets an entry for each struct of this kind.
    pub(super) recorded: bool,
}

/// A value that the walker refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Defect {
    /// Continues a sentence whose subject is the value.
    pub(super) what: String,
    /// Whether the bytes end before the value does, so that more bytes can complete it.
    pub(super) is_cut: bool,
}

type Walked<T = ()> = Result<T, Defect>;

fn invalid<T>(what: impl Into<String>) -> Walked<T> {
    Err(Defect { what: what.into(), is_cut: false })
}

/// The encodings of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Bool,
    Byte,
    Integer,
    Double,
    Binary,
    List,
    Set,
    Map,
    Struct,
    Uuid,
}

impl Wire {
    fn of(code: u8) -> Walked<Self> {
        Ok(match code {
            1 | 2 => Wire::Bool,
            3 => Wire::Byte,
            4..=6 => Wire::Integer,
            7 => Wire::Double,
            8 => Wire::Binary,
            9 => Wire::List,
            10 => Wire::Set,
            11 => Wire::Map,
            12 => Wire::Struct,
            13 => Wire::Uuid,
            _ => return invalid(format!("has a value of the unknown type {code}")),
        })
    }

    fn of_kind(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => Wire::Bool,
            Kind::Byte => Wire::Byte,
            Kind::Integer | Kind::Recorded(_) => Wire::Integer,
            Kind::Double => Wire::Double,
            Kind::Binary => Wire::Binary,
            Kind::List(_) => Wire::List,
            Kind::Struct(_) => Wire::Struct,
        }
    }
}

/// A position in bytes, and the numbers recorded before it.
pub(super) struct Walker<'b> {
    bytes: &'b [u8],
    position: usize,
    records: Vec<[Option<i32>; 2]>,
}

impl<'b> Walker<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Walker { bytes, position: 0, records: Vec::new() }
    }

    /// The bytes before the position.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The fields [`Kind::Recorded`] of each struct with [`StructKind::recorded`], in the order of the structs.
    pub(super) fn records(&self) -> &[[Option<i32>; 2]] {
        &self.records
    }

    /// Moves over a struct.
    ///
    /// # Errors
    /// A struct that the format does not permit, or whose decoding is not bounded by its bytes.
    pub(super) fn structure(&mut self, kind: &StructKind) -> Walked {
        let record = self.records.len();
        if kind.recorded {
            self.records.push([None; 2]);
        }
        let (mut last, mut seen) = (0, 0u64);
        while let Some((id, wire)) = self.field(last)? {
            last = id;
            let Some((_, field)) = kind.fields.iter().find(|(known, _)| *known == id) else {
                self.skip(wire, MAX_DEPTH)?;
                continue;
            };
            if seen & (1 << id) != 0 {
                return invalid(format!("has the field {id} twice in one struct"));
            }
            seen |= 1 << id;
            if Wire::of_kind(field) != wire {
                return invalid(format!("has a field {id} of another type than the format"));
            }
            match field {
                Kind::Recorded(index) => {
                    let Ok(value) = i32::try_from(self.integer()?) else {
                        return invalid(format!("has a field {id} of more than 32 bits"));
                    };
                    if let Some(slot) = self.records.get_mut(record).and_then(|slots| slots.get_mut(*index)) {
                        *slot = Some(value);
                    }
                }
                field => self.value(field)?,
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind) -> Walked {
        match kind {
            Kind::Struct(kind) => self.structure(kind),
            Kind::List(element) => {
                let (wire, length) = self.list()?;
                if length > 0 && wire != Wire::of_kind(element) {
                    return invalid("has a list of another type than the format");
                }
                (0..length).try_for_each(|_| self.value(element))
            }
            other => self.skip(Wire::of_kind(other), 1),
        }
    }

    /// Moves over a value of any type, with at most `depth` levels.
    fn skip(&mut self, wire: Wire, depth: usize) -> Walked {
        let Some(below) = depth.checked_sub(1) else {
            return invalid(format!("has a value nested deeper than {MAX_DEPTH} levels"));
        };
        match wire {
            // The value of a field is in its type; `list` and `map` refuse other booleans.
            Wire::Bool => Ok(()),
            Wire::Byte => self.take(1).map(drop),
            Wire::Integer => self.number().map(drop),
            Wire::Double => self.take(8).map(drop),
            Wire::Uuid => self.take(16).map(drop),
            Wire::Binary => {
                let length = self.number()?;
                let left = self.left();
                match usize::try_from(length) {
                    Ok(length) if length <= left => self.take(length).map(drop),
                    _ => {
                        Err(Defect { what: format!("declares a text of {length} bytes in {left} bytes"), is_cut: true })
                    }
                }
            }
            Wire::Struct => {
                while let Some((_, wire)) = self.field(0)? {
                    self.skip(wire, below)?;
                }
                Ok(())
            }
            Wire::List | Wire::Set => {
                let (wire, length) = self.list()?;
                (0..length).try_for_each(|_| self.skip(wire, below))
            }
            Wire::Map => {
                let length = self.number()?;
                if length == 0 {
                    return Ok(());
                }
                let types = self.byte()?;
                let (key, value) = (Wire::of(types >> 4)?, Wire::of(types & 15)?);
                self.check_elements(&[key, value], length)?;
                (0..length).try_for_each(|_| {
                    self.skip(key, below)?;
                    self.skip(value, below)
                })
            }
        }
    }

    /// The id and the type of the next field of a struct, or none at its end. `last` is the id of the field before.
    fn field(&mut self, last: i16) -> Walked<Option<(i16, Wire)>> {
        let header = self.byte()?;
        if header & 15 == 0 {
            return Ok(None);
        }
        let id = match i16::from(header >> 4) {
            0 => i16::try_from(self.integer()?).ok(),
            difference => last.checked_add(difference),
        };
        match id {
            Some(id) => Ok(Some((id, Wire::of(header & 15)?))),
            None => invalid("has a field whose number has more than 16 bits"),
        }
    }

    /// The type and the number of the elements of a list or set.
    fn list(&mut self) -> Walked<(Wire, u64)> {
        let header = self.byte()?;
        // Some writers leave out the type of an empty list.
        if header == 0 {
            return Ok((Wire::Byte, 0));
        }
        let wire = Wire::of(header & 15)?;
        let length = match header >> 4 {
            15 => self.number()?,
            length => u64::from(length),
        };
        self.check_elements(&[wire], length)?;
        Ok((wire, length))
    }

    /// Each element has a byte, so that a length cannot exceed the bytes. The protocol has a byte for a boolean as well,
    /// but the crate skips none, and would continue at another place than this walk.
    fn check_elements(&self, wires: &[Wire], length: u64) -> Walked {
        if length == 0 {
            return Ok(());
        }
        if wires.contains(&Wire::Bool) {
            return invalid(format!("declares {length} booleans in a list or map, which the format does not have"));
        }
        let left = self.left();
        if length > left as u64 {
            return Err(Defect { what: format!("declares {length} entries in {left} bytes"), is_cut: true });
        }
        Ok(())
    }

    /// A signed number.
    fn integer(&mut self) -> Walked<i64> {
        let zigzag = self.number()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn number(&mut self) -> Walked<u64> {
        let mut number = 0;
        for index in 0..MAX_NUMBER_BYTES {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << (7 * index);
            if byte & 128 == 0 {
                return Ok(number);
            }
        }
        invalid(format!("has a number of more than {MAX_NUMBER_BYTES} bytes"))
    }

    fn byte(&mut self) -> Walked<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, length: usize) -> Walked<&'b [u8]> {
        let Some(taken) = self.bytes.get(self.position..).and_then(|rest| rest.get(..length)) else {
            return Err(Defect { what: "ends within a value".to_owned(), is_cut: true });
        };
        self.position += length;
        Ok(taken)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: StructKind = StructKind {
        fields: &[(1, Kind::Integer), (2, Kind::Binary), (3, Kind::List(&Kind::Integer)), (4, Kind::Recorded(1))],
        recorded: true,
    };

    fn walk(bytes: &[u8]) -> Walked<(usize, Vec<[Option<i32>; 2]>)> {
        let mut walker = Walker::new(bytes);
        walker.structure(&KNOWN)?;
        Ok((walker.position(), walker.records().to_vec()))
    }

    fn defect(bytes: &[u8]) -> String {
        walk(bytes).unwrap_err().what
    }

    #[test]
    fn every_type_of_field_is_walked() {
        // The header of a field: the difference of its id in the upper half of the byte, its type in the lower half.
        let known = [0x15, 0x80, 0x01, 0x18, 2, b'a', b'b', 0x19, 0x25, 1, 0x7f, 0x16, 0x0d];
        // A long field id, and the types in their order: two booleans, byte, 3 integers, double, text.
        let scalars = [0x01, 40, 0x12, 0x13, 9, 0x14, 1, 0x15, 1, 0x16, 1, 0x17, 0, 1, 2, 3, 4, 5, 6, 7, 0x18, 1, b'c'];
        // A list without a type, a set of 2 texts, a map of byte to integer, an empty map, a struct, a UUID.
        let nested = [0x19, 0, 0x1a, 0x28, 1, b'd', 0, 0x1b, 1, 0x35, 7, 1, 0x1b, 0, 0x1c, 0x15, 1, 0, 0x1d];
        let bytes = [&known[..], &scalars, &nested, &[0; 16], &[0], b"after"].concat();
        assert_eq!(walk(&bytes), Ok((bytes.len() - 5, vec![[None, Some(-7)]])));
        for length in 0..bytes.len() - 5 {
            assert!(walk(&bytes[..length]).unwrap_err().is_cut, "{length}");
        }
    }

    #[test]
    fn unbounded_values_are_refused() {
        let many = [0xff, 0xff, 0xff, 0xff, 0x07];
        let with = |head: &[u8], tail: &[u8]| [head, &many, tail].concat();
        insta::assert_snapshot!(defect(&with(&[0xf9, 0xf1], &[])), @"declares 2147483647 booleans in a list or map, which the format does not have");
        insta::assert_snapshot!(defect(&with(&[0xfa, 0xf2], &[0; 9])), @"declares 2147483647 booleans in a list or map, which the format does not have");
        insta::assert_snapshot!(defect(&[0xf9, 0x11, 1, 0]), @"declares 1 booleans in a list or map, which the format does not have");
        insta::assert_snapshot!(defect(&with(&[0xfb], &[0x51, 0])), @"declares 2147483647 booleans in a list or map, which the format does not have");
        insta::assert_snapshot!(defect(&with(&[0xfb], &[0x55, 0])), @"declares 2147483647 entries in 1 bytes");
        insta::assert_snapshot!(defect(&with(&[0xf9, 0x19, 0xfc], &[0, 0])), @"declares 2147483647 entries in 2 bytes");
        insta::assert_snapshot!(defect(&with(&[0xf8], b"abc")), @"declares a text of 2147483647 bytes in 3 bytes");
        insta::assert_snapshot!(defect(&[&[0xf5][..], &[0xff; 40]].concat()), @"has a number of more than 10 bytes");
        insta::assert_snapshot!(defect(&[&[0xfc][..], &[0x1c; 10_000]].concat()), @"has a value nested deeper than 64 levels");
        insta::assert_snapshot!(defect(&[&[0xf9][..], &[0x19; 10_000]].concat()), @"has a value nested deeper than 64 levels");
        insta::assert_snapshot!(defect(&[0xfe, 0]), @"has a value of the unknown type 14");
        insta::assert_snapshot!(defect(&[0xf9, 0x10, 0]), @"has a value of the unknown type 0");
    }

    #[test]
    fn depth_of_the_limit_is_walked() {
        let nested = |levels: usize| [&[0xfc][..], &vec![0x1c; levels - 1], &vec![0; levels + 1]].concat();
        walk(&nested(MAX_DEPTH)).unwrap();
        walk(&nested(MAX_DEPTH + 1)).unwrap_err();
    }

    /// The crate reads the types of the format: a list of booleans could hide in the text that a number declares.
    #[test]
    fn known_fields_have_their_types_once() {
        insta::assert_snapshot!(defect(&[0x18, 8, 2, 0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0]), @"has a field 1 of another type than the format");
        insta::assert_snapshot!(defect(&[0x11, 0]), @"has a field 1 of another type than the format");
        insta::assert_snapshot!(defect(&[0x39, 0x18, 0, 0]), @"has a list of another type than the format");
        insta::assert_snapshot!(defect(&[0x15, 2, 0x05, 2, 2, 0]), @"has the field 1 twice in one struct");
        insta::assert_snapshot!(defect(&[0x46, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0]), @"has a field 4 of more than 32 bits");
        insta::assert_snapshot!(defect(&[0x05, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0]), @"has a field whose number has more than 16 bits");
    }
}
