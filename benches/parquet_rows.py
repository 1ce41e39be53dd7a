"""How many rows a Parquet file says it has: its footer is a Thrift struct in the compact protocol, field 3 is the count.

https://github.com/apache/parquet-format (FileMetaData), https://github.com/apache/thrift (compact protocol)
"""

import struct
from pathlib import Path

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
NUM_ROWS = 3


class Compact:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            b = self.byte()
            value |= (b & 127) << shift
            if b < 128:
                return value
            shift += 7

    def zigzag(self) -> int:
        n = self.varint()
        return (n >> 1) ^ -(n & 1)

    def fields(self):
        """(id, kind) of each field of a struct; the caller consumes the value."""
        number = 0
        while (head := self.byte()) != STOP:
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self.zigzag()
            yield number, kind

    def skip(self, kind: int, in_list: bool = False) -> None:
        if kind in (TRUE, FALSE):
            self.at += in_list
        elif kind == BYTE:
            self.at += 1
        elif kind in (I16, I32, I64):
            self.varint()
        elif kind == DOUBLE:
            self.at += 8
        elif kind == BINARY:
            length = self.varint()
            self.at += length
        elif kind in (LIST, SET):
            head = self.byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self.varint()):
                self.skip(head & 15, in_list=True)
        elif kind == MAP:
            if count := self.varint():
                kinds = self.byte()
                for _ in range(count):
                    self.skip(kinds >> 4, in_list=True)
                    self.skip(kinds & 15, in_list=True)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner)
        else:
            raise ValueError(f"not a Thrift type: {kind}")


def rows(path: Path) -> int:
    with open(path, "rb") as file:
        file.seek(-8, 2)
        length, magic = struct.unpack("<I4s", file.read())
        if magic != b"PAR1":
            raise ValueError(f"{path} is not a Parquet file")
        file.seek(-8 - length, 2)
        footer = Compact(file.read(length))
    for number, kind in footer.fields():
        if number == NUM_ROWS:
            return footer.zigzag()
        footer.skip(kind)
    raise ValueError(f"{path} does not say how many rows it has")


def rows_below(folder: Path) -> int:
    """In all Parquet files below a folder that are published; names that begin with `_` or `.` are working files."""
    files = [p for p in folder.rglob("*.parquet") if not any(part.startswith(("_", ".")) for part in p.relative_to(folder).parts)]
    return sum(rows(p) for p in files)
