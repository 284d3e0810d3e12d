//! The structs of the Parquet format that the crate `parquet` decodes, as fields and types.
//!
//! They are from parquet.thrift of the format, restricted to the fields that the crate reads: it skips any other field by the
//! type which that field declares. A union has each of its empty structs, because the crate reads them without looking
//! at their type.

use super::parquet_thrift::{Kind, StructKind};

use Kind::{Binary, Bool, Byte, Double, Integer, List, Recorded, Struct};

const fn structure(fields: &'static [(i16, Kind)]) -> StructKind {
    StructKind { fields, recorded: false }
}

/// The footer. Each element of the schema has a record, with the number of its children at the index 0.
pub(super) const FILE_METADATA: StructKind = structure(&[
    (1, Integer),
    (2, List(&Struct(&SCHEMA_ELEMENT))),
    (3, Integer),
    (4, List(&Struct(&ROW_GROUP))),
    (5, List(&Struct(&KEY_VALUE))),
    (6, Binary),
    (7, List(&Struct(&COLUMN_ORDER))),
]);

/// The header of a page. Its record has the bytes of the page that follows, uncompressed at the index 0 and in the file at
/// the index 1. The header of a data page in it has a further record, with the number of values at the index 0.
pub(super) const PAGE_HEADER: StructKind = StructKind {
    fields: &[
        (1, Integer),
        (2, Recorded(0)),
        (3, Recorded(1)),
        (4, Integer),
        (5, Struct(&DATA_PAGE_HEADER)),
        (6, Struct(&EMPTY)),
        (7, Struct(&DICTIONARY_PAGE_HEADER)),
        (8, Struct(&DATA_PAGE_HEADER_V2)),
    ],
    recorded: true,
};

const EMPTY: StructKind = structure(&[]);
const DATA_PAGE_HEADER: StructKind =
    StructKind { fields: &[(1, Recorded(0)), (2, Integer), (3, Integer), (4, Integer)], recorded: true };
const DICTIONARY_PAGE_HEADER: StructKind = structure(&[(1, Integer), (2, Integer), (3, Bool)]);
const DATA_PAGE_HEADER_V2: StructKind = StructKind {
    fields: &[(1, Recorded(0)), (2, Integer), (3, Integer), (4, Integer), (5, Integer), (6, Integer), (7, Bool)],
    recorded: true,
};

const SCHEMA_ELEMENT: StructKind = StructKind {
    fields: &[
        (1, Integer),
        (2, Integer),
        (3, Integer),
        (4, Binary),
        (5, Recorded(0)),
        (6, Integer),
        (7, Integer),
        (8, Integer),
        (9, Integer),
        (10, Struct(&LOGICAL_TYPE)),
    ],
    recorded: true,
};

const LOGICAL_TYPE: StructKind = structure(&[
    (1, Struct(&EMPTY)),
    (2, Struct(&EMPTY)),
    (3, Struct(&EMPTY)),
    (4, Struct(&EMPTY)),
    (5, Struct(&DECIMAL_TYPE)),
    (6, Struct(&EMPTY)),
    (7, Struct(&TIME_TYPE)),
    (8, Struct(&TIME_TYPE)),
    (10, Struct(&INTEGER_TYPE)),
    (11, Struct(&EMPTY)),
    (12, Struct(&EMPTY)),
    (13, Struct(&EMPTY)),
    (14, Struct(&EMPTY)),
    (15, Struct(&EMPTY)),
    (16, Struct(&VARIANT_TYPE)),
    (17, Struct(&GEOMETRY_TYPE)),
    (18, Struct(&GEOGRAPHY_TYPE)),
    (19, Struct(&EMPTY)),
]);
const DECIMAL_TYPE: StructKind = structure(&[(1, Integer), (2, Integer)]);
const TIME_TYPE: StructKind = structure(&[(1, Bool), (2, Struct(&TIME_UNIT))]);
const TIME_UNIT: StructKind = structure(&[(1, Struct(&EMPTY)), (2, Struct(&EMPTY)), (3, Struct(&EMPTY))]);
const INTEGER_TYPE: StructKind = structure(&[(1, Byte), (2, Bool)]);
const VARIANT_TYPE: StructKind = structure(&[(1, Byte)]);
const GEOMETRY_TYPE: StructKind = structure(&[(1, Binary)]);
const GEOGRAPHY_TYPE: StructKind = structure(&[(1, Binary), (2, Integer)]);
const COLUMN_ORDER: StructKind = structure(&[(1, Struct(&EMPTY)), (2, Struct(&EMPTY)), (3, Struct(&EMPTY))]);

const KEY_VALUE: StructKind = structure(&[(1, Binary), (2, Binary)]);
const SORTING_COLUMN: StructKind = structure(&[(1, Integer), (2, Bool), (3, Bool)]);

const ROW_GROUP: StructKind = structure(&[
    (1, List(&Struct(&COLUMN_CHUNK))),
    (2, Integer),
    (3, Integer),
    (4, List(&Struct(&SORTING_COLUMN))),
    (5, Integer),
    (7, Integer),
]);

const COLUMN_CHUNK: StructKind = structure(&[
    (1, Binary),
    (2, Integer),
    (3, Struct(&COLUMN_METADATA)),
    (4, Integer),
    (5, Integer),
    (6, Integer),
    (7, Integer),
]);

const COLUMN_METADATA: StructKind = structure(&[
    (1, Integer),
    (2, List(&Integer)),
    (4, Integer),
    (5, Integer),
    (6, Integer),
    (7, Integer),
    (9, Integer),
    (10, Integer),
    (11, Integer),
    (12, Struct(&STATISTICS)),
    (13, List(&Struct(&PAGE_ENCODING_STATISTICS))),
    (14, Integer),
    (15, Integer),
    (16, Struct(&SIZE_STATISTICS)),
    (17, Struct(&GEOSPATIAL_STATISTICS)),
]);

const STATISTICS: StructKind = structure(&[
    (1, Binary),
    (2, Binary),
    (3, Integer),
    (4, Integer),
    (5, Binary),
    (6, Binary),
    (7, Bool),
    (8, Bool),
    (9, Integer),
]);
const PAGE_ENCODING_STATISTICS: StructKind = structure(&[(1, Integer), (2, Integer), (3, Integer)]);
const SIZE_STATISTICS: StructKind = structure(&[(1, Integer), (2, List(&Integer)), (3, List(&Integer))]);
const GEOSPATIAL_STATISTICS: StructKind = structure(&[(1, Struct(&BOUNDING_BOX)), (2, List(&Integer))]);
const BOUNDING_BOX: StructKind = structure(&[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
]);
