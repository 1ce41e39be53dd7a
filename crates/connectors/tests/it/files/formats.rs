//! Every format and compression, there and back.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use trib_core::{Code, State, TableName};
use trib_testkit::{conformance, emit, rows};

use super::{Folder, lines, read, rejected};

fn compressed(compression: &str, text: &[u8]) -> Vec<u8> {
    match compression {
        "gz" => {
            // Two members, as a tool makes that compresses in parallel.
            let mut out = Vec::new();
            for half in [&text[..text.len() / 2], &text[text.len() / 2..]] {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(half).unwrap();
                out.extend(encoder.finish().unwrap());
            }
            out
        }
        "zst" => zstd::encode_all(text, 1).unwrap(),
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "zip" => {
            let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            writer.start_file("inner.csv", zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(text).unwrap();
            writer.finish().unwrap().into_inner()
        }
        _ => text.to_vec(),
    }
}

#[tokio::test]
async fn compressed_files_are_read_as_streams() {
    let rows: Vec<String> = (0..50_000).map(|i| format!("{i},text {i}")).collect();
    let text = format!("a,b\n{}\n", rows.join("\n"));
    for compression in ["", "gz", "zst", "bz2", "xz", "zip"] {
        let folder = Folder::new();
        let name = if compression.is_empty() { "f.csv".to_owned() } else { format!("f.csv.{compression}") };
        folder.write(&name, compressed(compression, text.as_bytes()));
        let emitted = read(folder.source(&json!({"path": name})).as_ref()).await.unwrap();
        let got = lines(&emitted);
        assert_eq!((got.len(), got.last().map(String::as_str)), (50_000, Some("49999|text 49999")), "{compression}");

        let whole = compressed(compression, text.as_bytes());
        if !compression.is_empty() {
            folder.write(&name, &whole[..whole.len() / 2]);
            let cut = read(folder.source(&json!({"path": name})).as_ref()).await;
            assert!(cut.is_err(), "half of a {compression} file was taken for a whole one");
        }
    }
}

#[tokio::test]
async fn a_big_file_is_cut_where_records_begin() {
    let folder = Folder::new();
    let mut text = "id,note\n".to_owned();
    for i in 0..900_000 {
        // Line ends and delimiters in quotes, and now and then a row that is none.
        match i % 10 {
            0 => writeln!(text, "{i},\"two\nlines, {i} and a \"\"quote\"\"\""),
            7 if i % 100_000 == 7 => writeln!(text, "{i}"),
            _ => writeln!(text, "{i},a plain text of some length more or less {i}"),
        }
        .unwrap();
    }
    text.push_str("x,late\n");
    folder.write("f.csv", &text);
    let source = folder.source(&json!({"path": "f.csv"}));
    let whole = emit::read(source.as_ref(), &emit::full("f"), &State::default()).await.unwrap().0;
    let mut read = emit::full("f");
    read.parallelism = 4;
    let splits = source.plan(std::slice::from_ref(&read), &State::default()).await.unwrap();
    let mut cut = emit::Emitted::default();
    for split in &splits {
        let part = emit::collect(source.as_ref(), split).await.unwrap();
        cut.batches.extend(part.batches);
        cut.rejected.extend(part.rejected);
    }
    assert!(splits.len() > 1, "{} bytes in {} splits", text.len(), splits.len());
    assert_eq!(lines(&cut), lines(&whole));
    assert_eq!(rejected(&cut), rejected(&whole));
    assert_eq!(rejected(&whole).len(), 10);
}

fn shop() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5000));
    let names: ArrayRef = Arc::new((0..5000).map(|i| (i % 7 != 0).then(|| format!("n \"{i}\", é\n"))).collect::<StringArray>());
    let amounts = Decimal128Array::from_iter_values((0..5000).map(|i| i * 110)).with_precision_and_scale(12, 2).unwrap();
    RecordBatch::try_from_iter([("id", ids), ("name", names), ("amount", Arc::new(amounts) as ArrayRef)]).unwrap()
}

/// What a destination writes, another reader than the manifest's finds: by the extension, without `_trib`.
#[tokio::test]
async fn written_files_stand_for_themselves() {
    let cases = [
        ("csv", "", "csv"),
        ("csv", "gzip", "csv.gz"),
        ("tsv", "zstd", "tsv.zst"),
        ("json", "", "json"),
        ("json", "xz", "json.xz"),
        ("jsonl", "bzip2", "jsonl.bz2"),
        ("parquet", "", "parquet"),
        ("parquet", "zstd", "parquet"),
        ("arrow", "", "arrow"),
        ("arrow", "zstd", "arrow"),
    ];
    for (format, compression, extension) in cases {
        let folder = Folder::new();
        let mut settings = json!({"path": "out", "format": format});
        if !compression.is_empty() {
            settings["compression"] = json!(compression);
        }
        let destination = folder.destination(&settings);
        let source = folder.source(&json!({"path": "out"}));
        let stream = conformance::filled_by(destination, source, TableName::parse("shop"), shop()).await;
        assert_eq!(stream, "shop");
        let plain = folder.source(&json!({"path": format!("out/shop/*.{extension}"), "columns": {"amount": "decimal(12,2)"}}));
        let emitted = read(plain.as_ref()).await.unwrap();
        let texts = |batches: &[RecordBatch]| rows::canonical(batches);
        assert_eq!(rows::difference(&texts(&[shop()]), &texts(&emitted.batches)), None, "{format} {compression}");
    }
}

#[tokio::test]
async fn one_file_is_one_table() {
    for name in ["t.parquet", "t.csv", "t.csv.gz", "t.json", "t.jsonl.zst", "t.arrow"] {
        let folder = Folder::new();
        let path = format!("out/{name}");
        let destination = folder.destination(&json!({"path": path}));
        assert_eq!(destination.capabilities().write_modes, [trib_core::WriteMode::Replace]);
        super::commits::replace(destination.as_ref(), "t", &[shop().slice(0, 2000), shop().slice(2000, 3000)]).await.unwrap();
        let emitted = read(folder.source(&json!({"path": path, "columns": {"amount": "decimal(12,2)"}})).as_ref()).await.unwrap();
        let texts = |batches: &[RecordBatch]| rows::canonical(batches);
        assert_eq!(rows::difference(&texts(&[shop()]), &texts(&emitted.batches)), None, "{name}");
        let others: Vec<_> = std::fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(others.len(), 2, "{others:?}");
    }
}

#[tokio::test]
async fn what_a_format_cannot_hold_is_refused_by_name() {
    let folder = Folder::new();
    for (settings, code) in [
        (json!({"path": "out.xlsx"}), Code::ConfigInvalid),
        (json!({"path": "out", "compression": "xz"}), Code::ConfigInvalid),
        (json!({"path": "out/*.csv"}), Code::ConfigInvalid),
        (json!({"path": "https://h/x.csv"}), Code::Unsupported),
    ] {
        let Err(e) = trib_connectors::files::connector().make_destination(&settings, &super::context(folder.path())) else {
            panic!("{settings} was accepted")
        };
        assert_eq!(e.code(), code, "{settings}: {e:?}");
    }
}

#[tokio::test]
async fn worksheets_have_types_of_their_own() {
    // Made by hand: a workbook is a zip of XML.
    let folder = Folder::new();
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let parts = [
        (
            "[Content_Types].xml",
            r#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>"#,
        ),
        (
            "_rels/.rels",
            r#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#,
        ),
        (
            "xl/workbook.xml",
            r#"<?xml version="1.0"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Notes" sheetId="1" r:id="rId1"/><sheet name="Data" sheetId="2" r:id="rId2"/></sheets></workbook>"#,
        ),
        (
            "xl/_rels/workbook.xml.rels",
            r#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet2.xml"/></Relationships>"#,
        ),
        (
            "xl/worksheets/sheet1.xml",
            r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData/></worksheet>"#,
        ),
        (
            "xl/worksheets/sheet2.xml",
            r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>id</t></is></c><c r="B1" t="inlineStr"><is><t>price</t></is></c><c r="C1" t="inlineStr"><is><t>zip</t></is></c><c r="D1" t="inlineStr"><is><t>ok</t></is></c></row><row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>1.5</v></c><c r="C2" t="inlineStr"><is><t>123</t></is></c><c r="D2" t="b"><v>1</v></c></row><row r="3"><c r="A3"><v>2</v></c><c r="C3" t="inlineStr"><is><t>456</t></is></c></row></sheetData></worksheet>"#,
        ),
    ];
    for (name, content) in parts {
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    folder.write("book.xlsx", writer.finish().unwrap().into_inner());
    let source = folder.source(&json!({"path": "book.xlsx", "sheet": "Data"}));
    assert_eq!(super::types(source.as_ref()).await, ["id: Int64", "price: Decimal128(18, 1)", "zip: Utf8", "ok: Boolean"]);
    assert_eq!(lines(&read(source.as_ref()).await.unwrap()), ["1|1.5|123|true", "2|-|456|-"]);
    let e = folder.source(&json!({"path": "book.xlsx", "sheet": "Dat"})).discover(&[]).await.unwrap_err();
    assert_eq!(e.hint_text(), Some("did you mean \"Data\"?"));
}
