//! Reads `.parquet`: a column `messages` (a list of structs with `role`, `content` and further fields, or JSON text), a
//! column `label`, and optionally the columns of [`row::template_values`]. Other columns are not read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::TreeBuilder;
use parquet::record::{Field, Row as ParquetRow};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::panics;

use super::dialogue::Dialogue;
use super::label;
use super::parquet_bounds::ReadBounds;
use super::parquet_headers::HeaderCheck;
use super::parquet_value::{self, check_names};
use super::place::{FileRows, RowPlaces};
use super::row::{self, RowResult};

/// The dialogues of a file, in file order.
///
/// # Errors
/// An unreadable or damaged file, missing columns, more data than the file can plausibly have, or an invalid row (with
/// its number from 1).
pub(super) fn read(path: &Path) -> Result<FileRows> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    // The parquet crate documents errors for damaged files but panics on some. No state of it outlives the call.
    panics::catch(|| read_rows(path, file))
        .unwrap_or_else(|| Err(Error::file(path, "is damaged; write the file again")))
}

fn read_rows(path: &Path, file: File) -> Result<FileRows> {
    let damaged = |error: ParquetError| Error::file(path, format!("is not a readable Parquet file: {error}"));
    let file_bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let headers = HeaderCheck::new(path, &file, file_bytes);
    headers.check_metadata()?;
    let reader = SerializedFileReader::new(file.try_clone().map_err(Error::io("read", path))?).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = schema.get_fields();
    let name_list = || columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(",");
    let has = |name: &str| columns.iter().any(|column| column.name() == name);
    if !has("messages") || !has("label") {
        return Err(Error::file(
            path,
            format!("has the columns `{}`; it must have `messages` and `label`", name_list()),
        ));
    }
    let read: Vec<TypePtr> = columns.iter().filter(|column| is_read(column.name())).cloned().collect();
    check_names(columns.iter(), "column").map_err(|what| Error::file(path, what))?;
    let projection = Type::group_type_builder(schema.name()).with_fields(read.clone()).build().map_err(damaged)?;
    let projection = Arc::new(SchemaDescriptor::new(Arc::new(projection)));
    let mut bounds = ReadBounds::new(file_bytes);
    bounds.check_declared(reader.metadata(), is_read).map_err(|what| Error::file(path, what))?;

    let mut dialogues = Vec::new();
    let row_error = |row: usize, what: String| Error::input(format!("{} row {row}", path.display()), what);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        let page_bytes = headers.check_pages(group.metadata(), is_read)?;
        bounds.check_pages(page_bytes).map_err(|what| Error::file(path, what))?;
        let first_row = dialogues.len() + 1;
        bounds
            .check_texts(&*group, is_read)
            .map_err(damaged)?
            .map_err(|(row, what)| row_error(first_row + row, what))?;
        let rows = TreeBuilder::new()
            .with_batch_size(ReadBounds::batch_size(group.metadata(), is_read))
            .as_iter(projection.clone(), &*group)
            .map_err(damaged)?;
        for record in rows {
            let record = record.map_err(damaged)?;
            let dialogue = dialogue(record, &read).map_err(|what| row_error(dialogues.len() + 1, what))?;
            dialogues.push(dialogue);
        }
    }
    let places = RowPlaces::rows(path, dialogues.len());
    Ok(FileRows { dialogues, places })
}

fn is_read(column: &str) -> bool {
    matches!(column, "messages" | "label") || row::TEMPLATE_KEYS.contains(&column)
}

fn dialogue(record: ParquetRow, columns: &[TypePtr]) -> RowResult<Dialogue> {
    let mut values: Vec<(String, Option<Field>)> =
        record.into_columns().into_iter().map(|(name, field)| (name, Some(field))).collect();
    let mut take = |name: &str| {
        values.iter_mut().find(|(column, _)| column == name).and_then(|(_, field)| field.take()).unwrap_or(Field::Null)
    };
    let json = |name: &str, field: Field| -> RowResult<Value> {
        match columns.iter().find(|column| column.name() == name) {
            Some(column) => parquet_value::to_json(field, column),
            None => Ok(Value::Null),
        }
    };
    let messages = match take("messages") {
        Field::Group(_) | Field::MapInternal(_) => {
            return Err("`messages` is neither a list of {role, content} nor JSON text".to_owned());
        }
        field => match json("messages", field)? {
            list @ (Value::Array(_) | Value::String(_) | Value::Null) => row::messages_from_json(Some(&list))?,
            _ => return Err("`messages` is neither a list of {role, content} nor JSON text".to_owned()),
        },
    };
    let label = label_of(take("label"))?;
    let mut template = Vec::new();
    for key in row::TEMPLATE_KEYS {
        template.push((key, json(key, take(key))?));
    }
    let template_values =
        row::template_values(|key| template.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()))?;
    Ok(Dialogue { messages, template_values, label })
}

fn label_of(field: Field) -> RowResult<bool> {
    match field {
        Field::Null => label::from_json(None, None),
        Field::Str(text) => label::from_text(&text),
        Field::Double(number) => label_of_float(number),
        Field::Float(number) => label_of_float(number.into()),
        Field::Float16(number) => label_of_float(number.into()),
        Field::Bytes(_) | Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => {
            Err(label::bad("of another type than a number, a boolean or text"))
        }
        // Integers, booleans and decimals: their text is exact.
        other => label::from_text(&other.to_string()).map_err(|_| label::bad(&other.to_string())),
    }
}

fn label_of_float(number: f64) -> RowResult<bool> {
    if number == 0.0 {
        Ok(false)
    } else if number == 1.0 {
        Ok(true)
    } else {
        Err(label::bad(&number.to_string()))
    }
}
