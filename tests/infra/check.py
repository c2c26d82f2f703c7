"""Checks the Terraform in infra/terraform as far as that works without AWS and without a provider: it parses, names only
what it declares, uses what it declares, and says of every bucket and of the role what the design says.

    check.py FOLDER

Prints one line per fault and fails if there is any. Needs python-hcl2 (`make deps`).
"""

import json
import pathlib
import re
import sys

import hcl2

# Every bucket has one of each, made for each bucket.
COMPANIONS = [
    "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_ownership_controls",
    "aws_s3_bucket_policy",
    "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration",
    "aws_s3_bucket_versioning",
]
# What the gateway's requests need: see src/object/*.rs.
ACTIONS = {
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:PutObject",
}


def plain(value):
    """The parser keeps quotes around strings; here they go. Comments go too."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if not k.endswith("comments__") and k != "__is_block__"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


class Folder:
    def __init__(self, folder):
        self.files = [plain(hcl2.loads(path.read_text())) for path in sorted(folder.glob("*.tf"))]
        self.resources = self.two_labels("resource")
        self.data = self.two_labels("data")
        self.variables = self.one_label("variable")
        self.outputs = self.one_label("output")

    def blocks(self, kind):
        return [block for file in self.files for block in file.get(kind, [])]

    def one_label(self, kind):
        return {name: body for block in self.blocks(kind) for name, body in block.items()}

    def two_labels(self, kind):
        return {
            (first, second): body
            for block in self.blocks(kind)
            for first, inner in block.items()
            for second, body in inner.items()
        }


def references(folder, faults):
    """Names that are used are declared, and the other way round."""
    # Descriptions and messages are prose.
    prose = {"description", "error_message"}

    def code(value):
        if isinstance(value, dict):
            return {k: code(v) for k, v in value.items() if k not in prose}
        return [code(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(code(folder.files))
    used = set(re.findall(r"\bvar\.(\w+)", text))
    # A variable's own validation is no use of it.
    elsewhere = json.dumps(code([{k: v for k, v in file.items() if k != "variable"} for file in folder.files]))
    for name in sorted(used - folder.variables.keys()):
        faults.append(f"var.{name} is not declared")
    for name in sorted(folder.variables.keys() - set(re.findall(r"\bvar\.(\w+)", elsewhere))):
        faults.append(f"var.{name} is not used")
    for kind, name in sorted(set(re.findall(r"(?<!data\.)\b(aws_\w+)\.(\w+)", text))):
        if (kind, name) not in folder.resources:
            faults.append(f"{kind}.{name} is not declared")
    for kind, name in sorted(set(re.findall(r"\bdata\.(aws_\w+)\.(\w+)", text))):
        if (kind, name) not in folder.data:
            faults.append(f"data.{kind}.{name} is not declared")
    for kind, bodies in (("variable", folder.variables), ("output", folder.outputs)):
        for name, body in bodies.items():
            if not body.get("description"):
                faults.append(f"{kind} {name} has no description")


def buckets(folder, faults):
    names = [name for kind, name in folder.resources if kind == "aws_s3_bucket"]
    if not names:
        faults.append("there is no bucket")
    for name in names:
        bucket = folder.resources["aws_s3_bucket", name]
        if bucket.get("region") != "${each.key}" or bucket.get("for_each") != "${toset(var.regions)}":
            faults.append(f"bucket {name} is not made in each region")
        if bucket.get("force_destroy") is not False:
            faults.append(f"bucket {name} may be destroyed with its objects")
        if "object_lock_enabled" in bucket or "object_lock_configuration" in bucket:
            faults.append(f"bucket {name} has an object lock: nothing in it could be erased")
        for kind in COMPANIONS:
            companion = folder.resources.get((kind, name))
            if companion is None:
                faults.append(f"bucket {name} has no {kind}")
            elif companion.get("for_each") != f"${{aws_s3_bucket.{name}}}" or companion.get("region") != "${each.key}":
                faults.append(f"{kind}.{name} is not made for each bucket in its region")
        access = folder.resources.get(("aws_s3_bucket_public_access_block", name), {})
        for switch in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"):
            if access.get(switch) is not True:
                faults.append(f"bucket {name}: {switch} is not true")
        versioning = folder.resources.get(("aws_s3_bucket_versioning", name), {})
        if [block.get("status") for block in versioning.get("versioning_configuration", [])] != ["Enabled"]:
            faults.append(f"bucket {name} keeps no versions")
        owner = folder.resources.get(("aws_s3_bucket_ownership_controls", name), {})
        if [rule.get("object_ownership") for rule in owner.get("rule", [])] != ["BucketOwnerEnforced"]:
            faults.append(f"bucket {name} does not own its objects")
    if ("aws_s3_bucket_replication_configuration") in {kind for kind, _ in folder.resources}:
        faults.append("objects are replicated behind the gateway's back")


def policies(folder, faults):
    statements = folder.data.get(("aws_iam_policy_document", "bucket"), {}).get("statement", [])
    if any(statement.get("effect") != "Deny" for statement in statements):
        faults.append("the bucket policy allows something")

    def denies(variable, test, values):
        return any(
            condition.get("variable") == variable and condition.get("test") == test and condition.get("values") == values
            for statement in statements
            for condition in statement.get("condition", [])
            if statement.get("actions") == ["s3:*"]
            and statement.get("principals") == [{"type": "*", "identifiers": ["*"]}]
            and len(statement.get("resources", [])) == 2
        )

    if not denies("aws:SecureTransport", "Bool", ["false"]):
        faults.append("the bucket policy does not refuse what comes without TLS")
    if not denies("s3:TlsVersion", "NumericLessThan", ["${var.minimum_tls}"]):
        faults.append("the bucket policy does not refuse old TLS")

    allowed = set()
    for statement in folder.data.get(("aws_iam_policy_document", "gateway"), {}).get("statement", []):
        allowed |= set(statement.get("actions", []))
        if "aws_s3_bucket." not in json.dumps(statement.get("resources", "*")):
            faults.append("the gateway's role reaches beyond its buckets")
    for action in sorted(allowed - ACTIONS):
        faults.append(f"the gateway's role may {action}, which it does not need")
    for action in sorted(ACTIONS - allowed):
        faults.append(f"the gateway's role may not {action}, which it needs")


def main():
    folder = Folder(pathlib.Path(sys.argv[1]))
    faults = []
    references(folder, faults)
    buckets(folder, faults)
    policies(folder, faults)
    for fault in faults:
        print(fault)
    print(f"{len(folder.files)} files, {len(folder.resources)} resources, {len(faults)} faults")
    return 1 if faults or not folder.files else 0


if __name__ == "__main__":
    sys.exit(main())
