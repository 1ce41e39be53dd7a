//! CSV and JSON as they are found in the wild: nothing is guessed against the text, nothing is lost silently, nothing panics.

use std::fmt::Write as _;

use serde_json::{Value, json};
use trib_core::Code;

use super::{Folder, lines, read, rejected, types};

struct Case {
    name: &'static str,
    content: &'static [u8],
    settings: Value,
    types: &'static [&'static str],
    rows: &'static [&'static str],
    rejected: &'static [&'static str],
}

fn case(name: &'static str, content: &'static [u8], settings: Value) -> Case {
    Case { name, content, settings, types: &[], rows: &[], rejected: &[] }
}

#[tokio::test]
async fn csv_of_the_wild() {
    let cases = [
        Case {
            types: &["a: Int64", "b: Utf8"],
            rows: &["1|x", "2|-", "3|"],
            ..case("null is not empty", b"a,b\n1,x\n2,\n3,\"\"\n", json!({}))
        },
        Case { types: &["zip: Utf8", "n: Int64"], rows: &["01234|5"], ..case("leading zeros are text", b"zip,n\n01234,5\n", json!({})) },
        Case {
            types: &["d: Decimal128(18, 2)"],
            rows: &["1.10", "20.00"],
            ..case("decimals keep their digits", b"d\n1.10\n20\n", json!({}))
        },
        Case { types: &["a: Int64"], rows: &["1", "2"], ..case("BOM, CRLF, no last line end", b"\xef\xbb\xbfa\r\n1\r\n2", json!({})) },
        Case {
            types: &["a: Int64", "b: Utf8"],
            rows: &["1|x", "4|y"],
            rejected: &["f.csv:3: 1 field, where the header has 2", "f.csv:4: 3 fields, where the header has 2"],
            ..case("ragged rows", b"a,b\n1,x\n2\n3,y,z\n4,y\n", json!({}))
        },
        Case {
            types: &["a: Int64", "b: Utf8"],
            rows: &["1|ok", "3|ok"],
            rejected: &["f.csv:3: column b: not valid UTF-8 (if the file has another encoding, set `csv: {encoding: …}`)"],
            ..case("bad UTF-8", b"a,b\n1,ok\n2,caf\xe9\n3,ok\n", json!({}))
        },
        Case {
            types: &["a: Utf8"],
            rows: &["café", "€"],
            ..case("Windows-1252", b"a\ncaf\xe9\n\x80\n", json!({"csv": {"encoding": "windows-1252"}}))
        },
        Case {
            types: &["a: Int64", "b: Utf8"],
            rows: &["2|b", "3|c"],
            rejected: &["f.csv:2: text after a closing quote, or a quote that never closes"],
            ..case("a quote that never closes", b"a,b\n1,\"open\n2,\"b\"\n3,c\n", json!({}))
        },
        Case { types: &["a: Utf8", "b: Int64"], rows: &["x\ny|1"], ..case("a line end in quotes", b"a,b\n\"x\ny\",1\n", json!({})) },
        Case {
            types: &["id: Int64", "id_2: Int64", "column_3: Int64"],
            rows: &["1|2|3"],
            ..case("names that repeat or are missing", b"id,id,\n1,2,3\n", json!({}))
        },
        Case { ..case("an empty file", b"", json!({})) },
        Case { types: &["a: Utf8", "b: Utf8"], ..case("a header only", b"a,b\n", json!({})) },
        Case { types: &["a: Int64"], rows: &["1", "-", "2"], ..case("empty lines of one column", b"a\n1\n\n2\n", json!({})) },
        Case {
            types: &["x: Int64", "y: Utf8"],
            rows: &["1|a"],
            ..case(
                "no header, tabs, comments, lines to skip",
                b"junk\n#c\n1\ta\n",
                json!({"csv": {"names": ["x", "y"], "delimiter": "tab", "comment": "#", "skip_rows": 1}}),
            )
        },
        Case {
            types: &["a: Utf8", "b: Int64"],
            rows: &["-|1", "NULL|-"],
            ..case("null values", b"a,b\nNULL,1\n\"NULL\",\\N\n", json!({"csv": {"null_values": ["NULL", "\\N"]}}))
        },
        Case {
            types: &["n: Int32", "d: Decimal128(12, 2)", "t: Utf8"],
            rows: &["1|1.50|007"],
            rejected: &["f.csv:3: column n: \"x\" is not integer", "f.csv:4: column d: \"1.234\" is not decimal(12,2)"],
            ..case(
                "declared types are never guessed",
                b"n,d,t\n1,1.5,007\nx,1,1\n2,1.234,1\n",
                json!({"columns": {"n": "integer", "d": "decimal(12,2)", "t": "text"}}),
            )
        },
        Case {
            types: &["at: Timestamp(µs, \"UTC\")", "on: Date32", "local: Timestamp(µs)"],
            rows: &["2024-01-01T08:00:00Z|2024-02-29|2024-01-01T10:00:00"],
            ..case("times", b"at,on,local\n2024-01-01 10:00:00+02:00,2024-02-29,2024-01-01T10:00:00\n", json!({}))
        },
        Case {
            types: &["n: Decimal128(38, 0)"],
            rows: &["9223372036854775808"],
            ..case("integers too great for bigint", b"n\n9223372036854775808\n", json!({}))
        },
    ];
    for case in cases {
        let folder = Folder::new();
        folder.write("f.csv", case.content);
        let mut settings = case.settings.clone();
        settings["path"] = json!("f.csv");
        let source = folder.source(&settings);
        assert_eq!(types(source.as_ref()).await, case.types, "{}", case.name);
        let emitted = read(source.as_ref()).await.unwrap();
        assert_eq!(lines(&emitted), case.rows, "{}", case.name);
        assert_eq!(rejected(&emitted), case.rejected, "{}", case.name);
    }
}

#[tokio::test]
async fn what_contradicts_the_sample_is_rejected_with_its_line() {
    let folder = Folder::new();
    let mut text = "id,n\n".to_owned();
    for i in 0..200_000 {
        let n = if i == 150_000 { "many".to_owned() } else { i.to_string() };
        writeln!(text, "{i},{n}").unwrap();
    }
    folder.write("f.csv", &text);
    let source = folder.source(&json!({"path": "f.csv", "infer": {"bytes": 65536}}));
    let emitted = read(source.as_ref()).await.unwrap();
    assert_eq!(emitted.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 199_999);
    assert_eq!(rejected(&emitted), ["f.csv:150002: column n: \"many\" is not bigint"]);
    assert_eq!(emitted.rejected[0].row, json!("150000,many"));
}

#[tokio::test]
async fn ten_thousand_columns() {
    let folder = Folder::new();
    let header = (0..10_000).map(|i| format!("c{i}")).collect::<Vec<_>>().join(",");
    let row = (0..10_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    folder.write("f.csv", format!("{header}\n{row}\n{row}\n1,2\n"));
    let emitted = read(folder.source(&json!({"path": "f.csv"})).as_ref()).await.unwrap();
    assert_eq!((emitted.batches[0].num_columns(), emitted.batches[0].num_rows()), (10_000, 2));
    assert_eq!(rejected(&emitted), ["f.csv:4: 2 fields, where the header has 10000"]);
}

#[tokio::test]
async fn a_record_that_never_ends_does_not_fill_the_memory() {
    let folder = Folder::new();
    let mut text = b"a,b\n1,x\n2,".to_vec();
    text.resize(4 << 20, b'y');
    folder.write("f.csv", &text);
    let source = folder.source(&json!({"path": "f.csv", "csv": {"max_record_bytes": 100_000}}));
    let e = read(source.as_ref()).await.unwrap_err();
    assert_eq!((e.code(), e.place().to_string()), (Code::DataInvalid, "f.csv:3, connection test, stream f".to_owned()));
}

#[tokio::test]
async fn json_of_the_wild() {
    type Texts = &'static [&'static str];
    // File, content, types, rows, rejected rows.
    type Case = (&'static str, &'static str, Texts, Texts, Texts);
    let cases: [Case; 9] = [
        ("f.jsonl", "{\"a\":1}\n\n{\"a\":2,\"b\":\"x\"}\n", &["a: Int64", "b: Utf8"], &["1|-", "2|x"], &[]),
        ("f.json", "[{\"a\":1},\n {\"a\":2}]", &["a: Int64"], &["1", "2"], &[]),
        ("f.json", "{\"a\":1} {\"a\":2}\n{\"a\":3}", &["a: Int64"], &["1", "2", "3"], &[]),
        (
            "f.jsonl",
            "{\"a\":1}\n{oops}\n[1]\n{\"a\":2",
            &["a: Int64"],
            &["1"],
            &[
                "f.jsonl:2: not valid JSON: a name in quotes is missing (character 2)",
                "f.jsonl:3: not a JSON object",
                "f.jsonl:4: not valid JSON: the value ends early (character 7)",
            ],
        ),
        ("f.jsonl", "{\"n\":9007199254740993}\n", &["n: Int64"], &["9007199254740993"], &[]),
        ("f.jsonl", "{\"n\":18446744073709551617}\n", &["n: Decimal128(38, 0)"], &["18446744073709551617"], &[]),
        ("f.jsonl", "{\"v\":1}\n{\"v\":{\"x\": 1.50}}\n", &["v: Utf8"], &["1", "{\"x\": 1.50}"], &[]),
        (
            "f.jsonl",
            "{\"o\":{\"p\":[{\"q\":\"\\u00e9\\n\"}]}}\n",
            &["o: Struct(\"p\": List(Struct(\"q\": Utf8)))"],
            &["{p: [{q: é\n}]}"],
            &[],
        ),
        ("f.jsonl", "{\"a\":1,\"a\":2}\n{\"a\":3}\n", &["a: Int64"], &["3"], &["f.jsonl:1: \"a\" stands twice in one object"]),
    ];
    for (file, content, expected_types, rows, reasons) in cases {
        let folder = Folder::new();
        folder.write(file, content);
        let source = folder.source(&json!({"path": file}));
        assert_eq!(types(source.as_ref()).await, expected_types, "{content}");
        let emitted = read(source.as_ref()).await.unwrap();
        assert_eq!(lines(&emitted), rows, "{content}");
        assert_eq!(rejected(&emitted), reasons, "{content}");
    }
}

#[tokio::test]
async fn half_a_json_array_is_an_error() {
    let folder = Folder::new();
    folder.write("f.json", "[{\"a\":1},\n{\"a\":");
    let e = read(folder.source(&json!({"path": "f.json"})).as_ref()).await.unwrap_err();
    assert_eq!((e.code(), e.place().line), (Code::DataInvalid, Some(2)));
}

#[tokio::test]
async fn names_unseen_in_the_sample_reject_their_row() {
    let folder = Folder::new();
    let mut text = "{\"a\":1}\n".repeat(20_000);
    text.push_str("{\"a\":2,\"late\":true}\n");
    folder.write("f.jsonl", &text);
    let emitted = read(folder.source(&json!({"path": "f.jsonl", "infer": {"bytes": 1000}})).as_ref()).await.unwrap();
    // At least 64 KiB and one window are sampled; the late row lies behind it only in bigger files.
    assert_eq!(emitted.batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>() + emitted.rejected.len(), 20_001);
}

#[tokio::test]
async fn places_without_files_are_errors_with_hints() {
    let folder = Folder::new();
    folder.write("sub/readme.txt", "x");
    for path in ["nothing.csv", "*.csv", "sub", "none/"] {
        let e = folder.source(&json!({"path": path})).discover(&[]).await.unwrap_err();
        assert_eq!(e.code(), Code::NotFound, "{path}");
        assert!(e.hint_text().is_some(), "{path}");
    }
    let e = folder.source(&json!({"path": "sub/readme.txt"})).discover(&[]).await.unwrap_err();
    assert_eq!(e.hint_text(), Some("set `format: csv`, or another one"));
}

#[tokio::test]
async fn settings_are_checked_before_any_file_is_touched() {
    let folder = Folder::new();
    for (settings, setting) in [
        (json!({"path": "x.csv", "columns": {"a": "bigin"}}), "columns.a"),
        (json!({"path": "x.csv", "csv": {"delimiter": ";;"}}), "csv.delimiter"),
        (json!({"path": "x.csv", "csv": {"quote": ","}}), "csv.delimiter"),
    ] {
        let Err(e) = folder.try_source(&settings) else { panic!("{settings} was accepted") };
        assert_eq!((e.code(), e.place().setting.as_deref()), (Code::ConfigInvalid, Some(setting)));
    }
}
