"""Reads a Delta table as other people's tools do, and prints its rows as canonical JSON, one line for each.

    python read_with_python.py TABLE_PATH deltalake|duckdb [ORDER_COLUMN]

Values are texts that do not depend on the reader: floats as the hex of their bits, times as microseconds since 1970,
bytes as hex, decimals with all their digits, maps as lists of pairs.
"""

import json
import os
import struct
import sys

import duckdb
import pyarrow as pa
from deltalake import DeltaTable


def plain(table):
    """Times as integers: Python's own have a smaller range than the table's."""
    columns = []
    for name, column in zip(table.column_names, table.columns):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
        columns.append(column)
    return pa.table(columns, names=table.column_names)


def text(value, kind):
    if value is None:
        return None
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    if pa.types.is_floating(kind):
        return struct.pack(">d", value).hex()
    if pa.types.is_decimal(kind):
        return format(value, "f")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return value.hex()
    if pa.types.is_date(kind):
        return value.isoformat()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [text(item, kind.value_type) for item in value]
    if pa.types.is_map(kind):
        return [[text(k, kind.key_type), text(v, kind.item_type)] for k, v in value]
    if pa.types.is_struct(kind):
        return {field.name: text(value[field.name], field.type) for field in kind}
    return str(value)


def main():
    path, reader = sys.argv[1], sys.argv[2]
    dataset = DeltaTable(path).to_pyarrow_dataset()
    if reader == "duckdb":
        connection = duckdb.connect()
        connection.execute("set timezone = 'UTC'")
        connection.register("dataset", dataset)
        table = connection.sql("select * from dataset").to_arrow_table()
    else:
        table = dataset.to_table()
    table = plain(table)
    if len(sys.argv) > 3:
        table = table.sort_by(sys.argv[3])
    for row in table.to_pylist(maps_as_pydicts=None):
        print(json.dumps({f.name: text(row[f.name], f.type) for f in table.schema}, sort_keys=True))


main()
# All rows are out. The readers' own threads sometimes abort the process while Python shuts down, which says nothing of the table.
sys.stdout.flush()
os._exit(0)
