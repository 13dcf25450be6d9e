"""Damage to files: bytes that flip, go, come or move, and changes by somebody who knows the format.

``mutate(data, kind, rng)`` gives other bytes. The same `rng` gives the same bytes. Changes of the second sort put new
checksums where the format has them, so that what is behind the checksum is tried as well.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

NUMBERS = [0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
ODD = [
    None,
    True,
    False,
    -1,
    *NUMBERS,
    2**63,
    2**64,
    10**30,
    -(2**63),
    0.5,
    1e308,
    -1e-320,
    "",
    "x",
    "F64",
    "BF16",
    "I8",
]
ODD += [
    "BOOL",
    "\0",
    "é",
    "../x",
    "1",
    [],
    {},
    [0],
    [0, 0],
    [2**40, 2**40],
    [-1],
    [[]],
    {"a": 1},
    "9" * 5000,
    "[" * 9000,
]


# --------------------------------------------------------------------------------------------------------- any file


def flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        changed[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, ord("9"), ord('"'), rng.randrange(256)])
    return bytes(changed)


def cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.choice([rng.randrange(len(data)), len(data) - 1, rng.randrange(min(len(data), 16))])]


def cut_front(data: bytes, rng: Random) -> bytes:
    return data[rng.randrange(1, min(len(data), 64) + 1) :]


def extend(data: bytes, rng: Random) -> bytes:
    count = rng.choice([1, 2, 4, 5, 8, 64, 1000])
    return data + rng.choice([bytes(count), rng.randbytes(count), data[:count], data[-count:], data, b"\n", b"\n{"])


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice([1, 2, 3, 4, 5, 8, 16, 64, 512, len(data)]))


def duplicate(data: bytes, rng: Random) -> bytes:
    start, stop = _block(data, rng)
    place = rng.choice([stop, rng.randrange(len(data) + 1)])
    return data[:place] + data[start:stop] * rng.choice([1, 1, 2, 16]) + data[place:]


def remove(data: bytes, rng: Random) -> bytes:
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def overwrite(data: bytes, rng: Random) -> bytes:
    start, stop = _block(data, rng)
    place = rng.randrange(len(data))
    block = rng.choice([data[start:stop], bytes(stop - start), b"\xff" * (stop - start), rng.randbytes(stop - start)])
    return (data[:place] + block + data[place + len(block) :])[: len(data)]


def number(data: bytes, rng: Random) -> bytes:
    """A binary number of 2, 4 or 8 bytes, which may be a length or a count."""
    width, order = rng.choice([2, 4, 4, 8]), "big" if rng.random() < 0.5 else "little"
    near = rng.choice([64, 64, len(data)])
    place = rng.choice([rng.randrange(min(near, len(data))), max(0, len(data) - 1 - rng.randrange(near))])
    old = int.from_bytes(data[place : place + width], order)
    value = rng.choice([*NUMBERS, len(data), len(data) - place, old + 1, old - 1, old * 2, old << 8])
    packed = (value % (1 << 8 * width)).to_bytes(width, order)
    return data[:place] + packed + data[place + width :]


def digits(data: bytes, rng: Random) -> bytes:
    """A number written in digits."""
    found = list(re.finditer(rb"-?[0-9]+", data[:4096]))
    if not found:
        return flip(data, rng)
    match = rng.choice(found)
    text = str(rng.choice([*NUMBERS, 2**64, -1, 10**30, "", "-", "9" * 5000, "nan", "1e999", "0.5", "0x"])).encode()
    return data[: match.start()] + text + data[match.end() :]


ANY: list[Mutator] = [flip, flip, flip, set_bytes, set_bytes, cut, cut_front, extend, duplicate, remove, overwrite]
ANY += [number, number, digits]


# -------------------------------------------------------------------------------------------------------- text, JSON


def lines(data: bytes, rng: Random) -> bytes:
    """Lines that go, come twice or change places, and odd text in them."""
    rows = data.split(b"\n")
    row, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    odd = [
        "inf",
        "-inf",
        "nan",
        '""',
        "{}",
        "[]",
        "2022-06-19",
        "1e999",
        "10" * 400,
        "[" * 3000,
        '"\\ud800"',
        "\0",
        "ÿ",
    ]
    what = rng.randrange(5)
    if what == 0:
        del rows[row]
    elif what == 1:
        rows.insert(other, rows[row])
    elif what == 2:
        rows[row], rows[other] = rows[other], rows[row]
    elif what == 3:
        rows[row] = rng.choice([b"", b"#", b"\xff", *(text.encode() for text in odd)])
    else:
        name, sign, _ = rows[row].partition(b"=")
        rows[row] = name + sign + rng.choice(odd).encode()
    return b"\n".join(rows)


def _edit(tree: Any, rng: Random) -> Any:
    """A JSON value with one change somewhere in it."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.05:
        return rng.choice(ODD)
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, other = rng.choice(keys), rng.choice(keys)
    what = rng.randrange(8)
    if what == 0:
        del tree[key]
    elif what == 1:
        tree[key], tree[other] = tree[other], tree[key]
    elif what == 2 and isinstance(tree, dict):
        tree[rng.choice([f"{key}x", "", "__metadata__", "a.b", "\0"])] = (
            tree[key] if rng.random() < 0.5 else tree.pop(key)
        )
    elif what == 2:
        tree.append(tree[key])
    else:
        tree[key] = _edit(tree[key], rng)
    return tree


def _json(tree: Any, rng: Random) -> bytes:
    text = json.dumps(_edit(tree, rng))
    if rng.random() < 0.05:  # what json.dumps does not write
        text = text.replace("1", rng.choice(["NaN", "1e999", "[" * 5000, '{"a":1,"a":2}', "9" * 5000]), 1)
    return text.encode()


def json_lines(data: bytes, rng: Random) -> bytes:
    rows = data.split(b"\n")
    row = rng.randrange(len(rows) - 1)
    rows[row] = _json(json.loads(rows[row]), rng)
    return b"\n".join(rows)


def safetensors(data: bytes, rng: Random) -> bytes:
    """The header in JSON, with the length before it made to fit."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = _json(json.loads(data[8:end]), rng)
    return len(header).to_bytes(8, "little") + header + data[end:]


def cache(data: bytes, rng: Random) -> bytes:
    """The header in JSON, with its length and checksum made to fit."""
    magic, length, _ = struct.unpack_from("<8sQI", data)
    header = _json(json.loads(data[20 : 20 + length]), rng)
    return struct.pack("<8sQI", magic, len(header), zlib.crc32(header)) + header + data[20 + length :]


# -------------------------------------------------------------------------------------------------- NumPy, archives


def npy(data: bytes, rng: Random) -> bytes:
    """The header of an array, with its length made to fit."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:end].decode("latin-1"))
    what = rng.randrange(4)
    if what == 0:
        odd = ["|O", "<f4", ">f4", "<f8", "<f2", "<i8", ">u8", "|b1", "<U4", "|S8", "<c8", "|V0", "|V4", "<M8[us]", "O"]
        header["descr"] = rng.choice([*odd, "<f16", [("x", "<i2")], [("a", "|O")], [("x", "<f8", (10**9,))], 7, None])
    elif what == 1:
        axes = [
            (),
            (0,),
            (-1,),
            (1,),
            (2**40,),
            (2**62, 4),
            (2**31, 2**31),
            (1,) * 40,
            5,
            "x",
            (0.5,),
            (True,),
            (10**30,),
        ]
        header["shape"] = rng.choice([*axes, (*header["shape"], 1), header["shape"][::-1]])
    elif what == 2:
        header["fortran_order"] = rng.choice([True, None, 1, "x"])
    else:
        header.pop(rng.choice(sorted(header)))
    text = (str(header) + "\n").encode("latin-1")
    return data[:8] + len(text).to_bytes(2, "little") + text + data[end:]


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(data: bytes, rng: Random) -> bytes:
    """A member changed, left out, renamed, there twice or compressed; the archive itself is whole."""
    members = list(_members(data).items())
    place = rng.randrange(len(members))
    name, content = members[place]
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    what = rng.randrange(10)
    if what == 0:
        del members[place]
    elif what == 1:
        members[place] = (rng.choice([f"{name}x", "x", "../x", "/x", members[0][0], name.upper()]), content)
    else:
        kind = "pickle" if name.endswith(".pkl") else "npy" if name.endswith(".npy") else ""
        members[place] = (name, mutate(content, kind, rng) if content else b"x")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            if name not in archive.namelist():
                archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def zip_fields(data: bytes, rng: Random) -> bytes:
    """A field of the directory or of a header in front of a member."""
    mark, sizes = rng.choice([(b"PK\1\2", 46), (b"PK\1\2", 46), (b"PK\5\6", 22), (b"PK\3\4", 30)])
    places = [match.start() for match in re.finditer(re.escape(mark), data)]
    if not places:
        return flip(data, rng)
    place = rng.choice(places) + rng.randrange(4, sizes - 1)
    width = rng.choice([2, 4])
    value = rng.choice([*NUMBERS, len(data)]) % (1 << 8 * width)
    return data[:place] + value.to_bytes(width, "little") + data[place + width :]


def retar(data: bytes, rng: Random) -> bytes:
    """The archive in a .tar.gz, compressed again."""
    return gzip.compress(mutate(gzip.decompress(data), "", rng), 1, mtime=0)


def png(data: bytes, rng: Random) -> bytes:
    """A chunk's content, with its checksum made to fit."""
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    row = rng.randrange(len(chunks))
    kind, content = chunks[row]
    what = rng.randrange(6)
    if what == 0:
        del chunks[row]
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks)), chunks[row])
    elif what == 2 and kind == b"IDAT":
        raw = mutate(zlib.decompress(content), "", rng)
        chunks[row] = (kind, zlib.compress(raw))
    elif what == 3:
        chunks.insert(row, (rng.choice([b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"PLTE"]), rng.randbytes(40)))
    else:
        chunks[row] = (kind, mutate(content, "", rng) if content else b"x")
    parts = [len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in chunks]
    return data[:8] + b"".join(parts)


# ------------------------------------------------------------------------------------------------------------ pickles

OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
SNIPPETS = [
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"X\x01\0\0\0x", b")R", b"\x85R", b"(tR", b"}b", b"h\0", b"q\0", b"\x94",
    b"K\1", b"J\xff\xff\xff\xff", b"\x8a\x01\xff", b"N", b"\x88", b"2", b"0", b"(", b"e", b"u", b"\x93", b"Q", b"P0\n",
    b"(ios\nsystem\n", b"\x81", b"\x92", b"T\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"V\\ud800\n", b"\x8b\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"\x95" + b"\xff" * 7 + b"\x7f",
    b")" + b"\x85" * 5000,     b"]q\1h\1a", b"}r\1\0\0\0",
]  # fmt: skip


def pickle(data: bytes, rng: Random) -> bytes:
    """An opcode that goes, comes twice, moves, becomes another or gets another argument."""
    starts = [place or 0 for _, _, place in pickletools.genops(data)]
    steps = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    row, other = rng.randrange(len(steps)), rng.randrange(len(steps))
    what = rng.randrange(6)
    if what == 0:
        del steps[row]
    elif what == 1:
        steps.insert(other, steps[row])
    elif what == 2:
        steps[row], steps[other] = steps[other], steps[row]
    elif what == 3:
        steps.insert(row, rng.choice(SNIPPETS))
    elif what == 4:
        steps[row] = rng.choice(OPCODES) + steps[row][1:]
    else:
        steps[row] = steps[row][:1] + flip(steps[row] + b"\0", rng)[1:-1]
    return b"".join(steps)


OWN: dict[str, list[Mutator]] = {
    "": [],
    "text": [lines],
    "jsonl": [json_lines, lines],
    "safetensors": [safetensors],
    "cache": [cache],
    "npy": [npy],
    "zip": [rezip, rezip, zip_fields],
    "tar.gz": [retar],
    "png": [png],
    "pickle": [pickle, pickle],
}
"""What those do who know the format."""


SEALED = (cache, rezip, retar, png)
"""Those that put new checksums: what comes of their files need not be what was written."""


def mutate(data: bytes, kind: str, rng: Random) -> bytes:
    """Other bytes than `data`, a file of a kind of `OWN`; half of them by a mutator of this kind, if there is one."""
    return mutate_and_tell(data, kind, rng)[0]


def mutate_and_tell(data: bytes, kind: str, rng: Random) -> tuple[bytes, bool]:
    """`mutate`, and whether checksums were put right."""
    while True:
        own = OWN[kind] if rng.random() < 0.5 else []
        mutator = rng.choice(own or ANY)
        changed = mutator(data, rng)
        if rng.random() < 0.2 and changed:
            changed = rng.choice(ANY)(changed, rng)
        if changed != data:
            return changed, mutator in SEALED
