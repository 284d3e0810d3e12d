//! Converts Parquet values to JSON, with the list layouts of old writers.
//!
//! A list is a group annotated LIST with one repeated field. Today that field is a group `list` around the element. Older
//! writers (Avro, Hive, Thrift, Spark) made the repeated field itself the element; the rules by which the two are told
//! apart are in the Parquet format's LogicalTypes.md, "Backward-compatibility rules". The record reader of the crate
//! `parquet` wraps a list of the second kind into another list, which is undone here.

use std::collections::HashSet;

use parquet::basic::{ConvertedType, Repetition};
use parquet::record::{Field, List};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Number, Value};

use super::row::RowResult;

/// The JSON value of `field`, a value of the type `kind`. A null stays null.
///
/// # Errors
/// A type without a counterpart in JSON, or a number that is not finite.
pub(super) fn to_json(field: Field, kind: &Type) -> RowResult<Value> {
    match field {
        // A repeated field without an annotation is a list, too.
        Field::ListInternal(list) if !is_list(kind) => elements(list, kind),
        Field::ListInternal(list) => list_to_json(list, kind),
        other => single_to_json(other, kind),
    }
}

/// A list whose type is annotated LIST.
fn list_to_json(list: List, kind: &Type) -> RowResult<Value> {
    let repeated = only_field(kind)?;
    if !is_element(repeated) {
        // The element is the only field of the repeated group.
        return elements(list, only_field(repeated)?);
    }
    let mut items = Vec::new();
    for field in list.elements() {
        match field {
            Field::ListInternal(inner) => {
                for element in inner.elements() {
                    items.push(single_to_json(element.clone(), repeated)?);
                }
            }
            other => items.push(single_to_json(other.clone(), repeated)?),
        }
    }
    Ok(Value::Array(items))
}

fn elements(list: List, kind: &Type) -> RowResult<Value> {
    let of_repeated = kind.get_basic_info().has_repetition()
        && kind.get_basic_info().repetition() == Repetition::REPEATED
        && !is_list(kind);
    let item = |field: &Field| match field {
        // A value of a repeated field, not a list in it.
        Field::Group(_) if of_repeated => single_to_json(field.clone(), kind),
        _ => to_json(field.clone(), kind),
    };
    list.elements().iter().map(item).collect()
}

/// A value that is not a list.
fn single_to_json(field: Field, kind: &Type) -> RowResult<Value> {
    let float = |number: f64| {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| format!("`{}` is {number}, which is not finite", kind.name()))
    };
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => float(value.into())?,
        Field::Float(value) => float(value.into())?,
        Field::Double(value) => float(value)?,
        Field::Str(text) => text.into(),
        Field::ListInternal(list) => list_to_json(list, kind)?,
        Field::Group(row) => {
            let mut object = Map::new();
            for ((name, value), kind) in row.into_columns().into_iter().zip(kind.get_fields()) {
                object.insert(name, to_json(value, kind)?);
            }
            Value::Object(object)
        }
        Field::Bytes(_) => return Err(format!("`{}` is a column of bytes; declare it as text (UTF8)", kind.name())),
        Field::MapInternal(_) => {
            return Err(format!("`{}` is a map; store it as a struct or as JSON text", kind.name()));
        }
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => {
            return Err(format!("`{}` is a date, time or decimal; store it as text or as a number", kind.name()));
        }
    })
}

/// Checks that no two of `fields` have the same name, here and below.
pub(super) fn check_names<'t>(fields: impl Iterator<Item = &'t TypePtr>, what: &str) -> RowResult<()> {
    let mut names = HashSet::new();
    for field in fields {
        if !names.insert(field.name()) {
            return Err(format!("has the {what} `{}` twice; remove or rename one", field.name()));
        }
        if field.is_group() {
            check_names(field.get_fields().iter(), "field")?;
        }
    }
    Ok(())
}

fn is_list(kind: &Type) -> bool {
    kind.get_basic_info().converted_type() == ConvertedType::LIST
}

fn only_field(kind: &Type) -> RowResult<&Type> {
    match kind {
        Type::GroupType { fields, .. } if fields.len() == 1 => Ok(&fields[0]),
        _ => Err(format!("`{}` is a list of an unknown layout; write the file again", kind.name())),
    }
}

/// Whether the repeated field of a list is its element, and not a group around it.
fn is_element(repeated: &Type) -> bool {
    let Type::GroupType { fields, .. } = repeated else {
        return true;
    };
    let wraps_repeated = fields.len() == 1
        && fields[0].get_basic_info().has_repetition()
        && fields[0].get_basic_info().repetition() == Repetition::REPEATED;
    if is_list(repeated) || wraps_repeated {
        return false;
    }
    fields.len() > 1 || repeated.name() == "array" || repeated.name().ends_with("_tuple")
}
