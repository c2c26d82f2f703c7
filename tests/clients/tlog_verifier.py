"""A verifier of transparency logs, written from RFC 6962 (sections 2.1, 2.1.1, 2.1.2; the checking algorithms are those of
RFC 9162, 2.1.3.2 and 2.1.4.2) and the C2SP pages on signed notes, checkpoints and log proofs, and, for what a receipt
states, from docs/audit.md. It shares nothing with the gateway.

    tlog_verifier.py FOLDER      reads FOLDER/case.json; says `all of it holds`, or fails with a reason
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Refused(Exception):
    pass


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf_hash(leaf):
    return sha256(b"\x00" + leaf)


def node_hash(left, right):
    return sha256(b"\x01" + left + right)


def tree_hash(leaves):
    """MTH of RFC 6962, 2.1, over leaf hashes, by its definition."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def check_inclusion(leaf, index, size, root, proof):
    if index >= size:
        raise Refused("inclusion: the index is not below the size")
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            raise Refused("inclusion: the proof is too long")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while fn & 1 == 0 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    if sn != 0 or r != root:
        raise Refused("inclusion: the proof does not lead to the root")


def check_consistency(first, second, first_root, second_root, proof):
    if first == second:
        if proof or first_root != second_root:
            raise Refused("consistency: the same size, and another root")
        return
    if first == 0:
        if proof or first_root != sha256(b""):
            raise Refused("consistency: of the empty log")
        return
    proof = list(proof)
    if not proof:
        raise Refused("consistency: no proof")
    if first & (first - 1) == 0:
        proof.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            raise Refused("consistency: the proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn & 1 == 0 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)
        fn >>= 1
        sn >>= 1
    if sn != 0 or fr != first_root or sr != second_root:
        raise Refused("consistency: the proof does not lead to both roots")


class Key:
    def __init__(self, vkey):
        self.name, key_id, encoded = vkey.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        self.id = sha256(self.name.encode() + b"\n" + key)[:4]
        if self.id.hex() != key_id or key[0] != 1:
            raise Refused("the verifier key does not fit its id")
        self.public = Ed25519PublicKey.from_public_bytes(key[1:])

    def open(self, note):
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        for line in signatures.rstrip("\n").split("\n"):
            dash, name, encoded = line.split(" ")
            blob = base64.b64decode(encoded, validate=True)
            if dash == "\u2014" and name == self.name and blob[:4] == self.id:
                try:
                    self.public.verify(blob[4:], text.encode())
                except InvalidSignature:
                    raise Refused("a signature does not fit its text")
                return text
        raise Refused("not signed by this key")

    def checkpoint(self, note):
        origin, size, root = self.open(note).split("\n")[:3]
        if origin != self.name:
            raise Refused("a checkpoint of another log")
        return int(size), base64.b64decode(root, validate=True)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def check_receipt(key, text, opening, scope):
    note, marker, proof = text.partition("c2sp.org/tlog-proof@v1\n")
    if not marker:
        raise Refused("receipt: no log proof")
    statement = key.open(note)
    path, _, checkpoint = proof.partition("\n\n")
    index, *hashes = path.split("\n")
    size, root = key.checkpoint(checkpoint)
    entry = statement.encode()
    leaf = leaf_hash(b"\x1a" + varint(len(entry)) + entry)
    hashes = [base64.b64decode(line, validate=True) for line in hashes]
    check_inclusion(leaf, int(index.removeprefix("index ")), size, root, hashes)
    committed = sha256(b"quietus/1 receipt scope\x00" + bytes.fromhex(opening) + scope.encode()).hex()
    if f"scope: {committed}" not in statement.split("\n"):
        raise Refused("receipt: the opening and the scope are not what it commits to")


def main():
    case = json.loads((pathlib.Path(sys.argv[1]) / "case.json").read_text())
    key = Key(case["vkey"])
    leaves = [base64.b64decode(leaf, validate=True) for leaf in case["leaf_hashes"]]
    decode = lambda proof: [base64.b64decode(line, validate=True) for line in proof]
    roots = [tree_hash(leaves[:size]) for size in range(len(leaves) + 1)]
    sizes = []
    for note in case["checkpoints"]:
        size, root = key.checkpoint(note)
        if root != roots[size]:
            raise Refused(f"the checkpoint of {size} entries has another root than its leaves")
        sizes.append(size)
    if sizes != sorted(sizes):
        raise Refused("the log became shorter")
    for it in case["consistency"]:
        check_consistency(it["old"], it["new"], roots[it["old"]], roots[it["new"]], decode(it["proof"]))
    for it in case["inclusion"]:
        check_inclusion(leaves[it["index"]], it["index"], it["size"], roots[it["size"]], decode(it["proof"]))
    for receipt in case["receipts"]:
        check_receipt(key, receipt["text"], receipt["opening"], receipt["scope"])
    print(
        f"{len(sizes)} checkpoints, {len(case['consistency'])} consistency proofs, {len(case['inclusion'])} inclusion "
        f"proofs, {len(case['receipts'])} receipts: all of it holds"
    )


if __name__ == "__main__":
    try:
        main()
    except (Refused, ValueError, IndexError) as refused:
        sys.exit(f"refused: {refused}")
