//! Parquet files: a column of texts, and a table of embeddings (<https://parquet.apache.org/docs/file-format>).

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, FloatType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::{Type, TypePtr};

use crate::failure::{Failure, OrFail, Outcome};

/// Values of embeddings in a row group: so much is in memory at a time.
const GROUP_VALUES: usize = 1 << 22;

/// The texts of one column.
pub(super) struct TextColumn {
    rows: RowIter<'static>,
    read: u64,
    count: u64,
    file_bytes: u64,
}

impl TextColumn {
    pub(super) fn open(path: &Path, column: &str) -> Outcome<Self> {
        let name = path.display();
        let place = || format!("can't read {name}");
        let file = File::open(path).or_fail(place)?;
        let file_bytes = file.metadata().or_fail(place)?.len();
        let reader = SerializedFileReader::new(file).or_fail(place)?;
        let metadata = reader.metadata().file_metadata();
        let fields = metadata.schema().get_fields();
        let Some(field) = fields.iter().find(|field| field.name() == column) else {
            let known: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            return Err(Failure::new(format!(
                "{name} has no column {column:?}; it has {}",
                known.join(", ")
            )));
        };
        if !field.is_primitive() || field.get_physical_type() != Physical::BYTE_ARRAY {
            return Err(Failure::new(format!("column {column:?} of {name} has no texts")));
        }
        let count = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let schema = Type::group_type_builder(metadata.schema().name()).with_fields(vec![Arc::clone(field)]);
        let schema = schema.build().or_fail(place)?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(schema)).or_fail(place)?;
        Ok(Self { rows, read: 0, count, file_bytes })
    }

    /// Bytes of the file that have been read, as far as rows tell.
    pub(super) fn bytes(&self) -> u64 {
        (u128::from(self.file_bytes) * u128::from(self.read) / u128::from(self.count.max(1))) as u64
    }

    /// The next text; nothing at the end. `place` says where, for errors.
    pub(super) fn next(&mut self, place: impl Fn() -> String) -> Outcome<Option<String>> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.read += 1;
        let row = row.or_fail(&place)?;
        match row.into_columns().into_iter().next() {
            Some((_, Field::Str(text))) => Ok(Some(text)),
            // Some writers leave out that bytes are texts.
            Some((_, Field::Bytes(bytes))) => {
                Ok(Some(std::str::from_utf8(bytes.data()).or_fail(&place)?.to_owned()))
            }
            _ => Err(Failure::new(format!("{} has no text", place()))),
        }
    }
}

/// Bytes of a row of the file from which [`write`] makes a table: the values, tokens, and whether it was truncated.
pub(super) const fn row_bytes(columns: usize) -> usize {
    4 * columns + 8
}

/// Writes a row that [`write`] reads.
pub(super) fn write_row(
    out: &mut impl Write,
    values: &[f32],
    tokens: usize,
    truncated: bool,
) -> std::io::Result<()> {
    let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.extend(u32::try_from(tokens).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(u32::from(truncated).to_le_bytes());
    out.write_all(&bytes)
}

/// Makes a table of `rows` rows: `index`, `embedding` (a list of floats), `tokens`, `truncated`.
pub(super) fn write(from: &File, to: File, rows: u64, columns: usize) -> Result<()> {
    let properties = WriterProperties::builder()
        // Floats of embeddings do not repeat, and hardly compress.
        .set_dictionary_enabled(false)
        .set_created_by(concat!("firecrest ", env!("CARGO_PKG_VERSION")).into());
    let mut writer = SerializedFileWriter::new(BufWriter::new(to), schema()?, Arc::new(properties.build()))?;
    let mut reader = BufReader::with_capacity(1 << 16, from);
    let mut done = 0;
    while done < rows {
        let count = (GROUP_VALUES / columns.max(1)).max(1).min((rows - done) as usize);
        let mut group = writer.next_row_group()?;
        write_group(&mut reader, &mut group, done, count, columns)?;
        group.close()?;
        done += count as u64;
    }
    let file = writer.into_inner()?.into_inner().map_err(|error| ParquetError::External(Box::new(error)))?;
    file.sync_all().map_err(|error| ParquetError::External(Box::new(error)))
}

fn write_group(
    reader: &mut impl Read,
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    first: u64,
    count: usize,
    columns: usize,
) -> Result<()> {
    let index: Vec<i64> = (first..first + count as u64).map(|index| index as i64).collect();
    let (mut values, mut tokens, mut truncated) = (Vec::with_capacity(count * columns), vec![], vec![]);
    let mut row = vec![0; row_bytes(columns)];
    for _ in 0..count {
        reader.read_exact(&mut row).map_err(|error| ParquetError::External(Box::new(error)))?;
        let mut words = row.as_chunks::<4>().0.iter();
        values.extend(words.by_ref().take(columns).map(|word| f32::from_le_bytes(*word)));
        let mut number = || words.next().map_or(0, |word| u32::from_le_bytes(*word));
        tokens.push(i32::try_from(number()).unwrap_or(i32::MAX));
        truncated.push(number() != 0);
    }
    // Every value is there; the first of a list begins it.
    let definition = vec![1; values.len()];
    let repetition: Vec<i16> = (0..values.len()).map(|i| i16::from(!i.is_multiple_of(columns))).collect();
    let mut at = 0;
    while let Some(mut column) = group.next_column()? {
        match at {
            0 => column.typed::<Int64Type>().write_batch(&index, None, None)?,
            1 => column.typed::<FloatType>().write_batch(&values, Some(&definition), Some(&repetition))?,
            2 => column.typed::<Int32Type>().write_batch(&tokens, None, None)?,
            _ => column.typed::<BoolType>().write_batch(&truncated, None, None)?,
        };
        column.close()?;
        at += 1;
    }
    Ok(())
}

fn schema() -> Result<TypePtr> {
    let required = |name: &str, physical| {
        let built =
            Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED).build();
        built.map(Arc::new)
    };
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![required("element", Physical::FLOAT)?])
        .build()?;
    let embedding = Type::group_type_builder("embedding")
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(list)])
        .build()?;
    let fields = vec![
        required("index", Physical::INT64)?,
        Arc::new(embedding),
        required("tokens", Physical::INT32)?,
        required("truncated", Physical::BOOLEAN)?,
    ];
    Type::group_type_builder("embeddings").with_fields(fields).build().map(Arc::new)
}
