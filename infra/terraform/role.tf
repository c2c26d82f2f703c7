# The gateway's role: what its requests need, and nothing else. HEAD of a bucket and a clear "not found" need ListBucket;
# an erasure needs the versions listed and each of them deleted.

data "aws_caller_identity" "here" {}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = var.trusted_services
    }
  }
}

data "aws_iam_policy_document" "gateway" {
  statement {
    sid       = "LookAtBuckets"
    actions   = ["s3:ListBucket", "s3:ListBucketVersions"]
    resources = [for bucket in aws_s3_bucket.slices : bucket.arn]
  }

  statement {
    sid       = "KeepAndRemoveSlices"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = [for bucket in aws_s3_bucket.slices : "${bucket.arn}/*"]
  }
}

resource "aws_iam_role" "gateway" {
  name               = "${var.name}-gateway"
  description        = "quietus gateway of the group ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "gateway" {
  name   = "slices"
  role   = aws_iam_role.gateway.id
  policy = data.aws_iam_policy_document.gateway.json
}

resource "aws_iam_instance_profile" "gateway" {
  name = "${var.name}-gateway"
  role = aws_iam_role.gateway.name
}
