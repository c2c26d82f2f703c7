#!/usr/bin/env python3
"""An independent reader of quietus slices, written from docs/format.md section 1 alone.

    slice_reader.py open --secret HEX OBJECT...     the audio of a recording's objects, to standard output
    slice_reader.py check FOLDER                    every vector of FOLDER/cases.json, good and broken

`open` has no slice list: it puts the objects in the order their headers state. Needs the package `cryptography`.
"""

import argparse
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEGMENT = 65536
MAX_SLICE = 8 * 1024 * 1024


class Rejected(Exception):
    """The reason, in the words of cases.json."""


def derive(secret, label, context, length):
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    info = label.encode() + b"\0" + context
    out, block = b"", b""
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256).digest()
        out += block
    return out[:length]


def object_length(plain):
    return 96 + plain + 16 * max(1, -(-plain // SEGMENT))


def read_slice(secret, data, listed=None):
    """(ordinal, last, plaintext) of one object; `listed` is its line in the slice list."""
    if len(data) < 96:
        raise Rejected("truncated")
    if data[:4] != b"QTSL":
        raise Rejected("magic")
    if data[4] != 1 or data[5:8] != bytes(3):
        raise Rejected("version")
    if listed and data[8:40].hex() != listed["salt"]:
        raise Rejected("salt_not_listed")
    if derive(secret, "quietus/1 slice commitment", data[:40], 32) != data[40:72]:
        raise Rejected("wrong_key")
    aead = AESGCM(derive(secret, "quietus/1 slice key", data[:40], 32))
    try:
        part = aead.decrypt(bytes(11) + b"\x02", data[72:96], data[:72])
    except InvalidTag:
        raise Rejected("header_altered") from None
    if part[4] > 1 or part[5:] != bytes(3):
        raise Rejected("header_altered")
    ordinal, last = int.from_bytes(part[:4], "big"), bool(part[4] & 1)
    if listed:
        if ordinal != listed["ordinal"]:
            raise Rejected("ordinal")
        if last != listed["last"]:
            raise Rejected("last_flag")
        if len(data) < object_length(listed["length"]):
            raise Rejected("truncated")
        if len(data) > object_length(listed["length"]):
            raise Rejected("trailing_bytes")
    if len(data) < 96 + 16:
        raise Rejected("truncated")
    plain = bytearray()
    segments = [data[at : at + SEGMENT + 16] for at in range(96, len(data), SEGMENT + 16)]
    for number, segment in enumerate(segments):
        final = number == len(segments) - 1
        nonce = bytes(7) + number.to_bytes(4, "big") + (b"\x01" if final else b"\x00")
        try:
            opened = aead.decrypt(nonce, segment, data[:96])
        except (InvalidTag, ValueError):
            raise Rejected(f"segment {number}") from None
        if final and not opened and number > 0:
            raise Rejected("length")
        plain += opened
    return ordinal, last, bytes(plain)


def check_list(slices):
    """A complete recording's slice list: every slice once, in order, and only its end is the last."""
    for place, listed in enumerate(slices):
        if place and slices[place - 1]["last"]:
            raise Rejected("behind_last_slice")
        if listed["ordinal"] != place:
            raise Rejected(f"missing_slice {place}")
        if listed["length"] > MAX_SLICE:
            raise Rejected("length")
    if not slices or not slices[-1]["last"]:
        raise Rejected("missing_last_slice")


def check(folder):
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    wrong = 0
    for case in cases:
        try:
            check_list(case["slices"])
            secret = bytes.fromhex(case["audio_secret"])
            plain = b"".join(read_slice(secret, (folder / s["file"]).read_bytes(), s)[2] for s in case["slices"])
            found = hashlib.sha256(plain).hexdigest()
        except Rejected as rejected:
            found = str(rejected)
        wanted = case.get("rejected", case.get("plaintext_sha256"))
        if found != wanted:
            wrong += 1
            print(f"{case['name']}: {found}, but {wanted} was to be expected")
    print(f"{len(cases) - wrong} of {len(cases)} vectors as they should be")
    return 1 if wrong else 0


def open_objects(secret, paths):
    try:
        slices = sorted(read_slice(secret, path.read_bytes()) for path in paths)
        check_list([{"ordinal": o, "last": last, "length": len(plain)} for o, last, plain in slices])
    except Rejected as rejected:
        print(f"slice_reader: {rejected}", file=sys.stderr)
        return 1
    for _, _, plain in slices:
        sys.stdout.buffer.write(plain)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check")
    one.add_argument("folder", type=pathlib.Path)
    two = commands.add_parser("open")
    two.add_argument("--secret", required=True, type=bytes.fromhex)
    two.add_argument("objects", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check(arguments.folder)
    return open_objects(arguments.secret, arguments.objects)


if __name__ == "__main__":
    sys.exit(main())
