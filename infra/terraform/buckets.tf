# One bucket per region, for sealed slices under random names.
#
# There is no object lock and no replication here, on purpose: the gateway must be able to remove every version of an
# object, and copies between regions are its own business (residency is decided per tenant).

resource "aws_s3_bucket" "slices" {
  for_each = toset(var.regions)

  region        = each.key
  bucket        = "${var.name}-${data.aws_caller_identity.here.account_id}-${each.key}"
  force_destroy = false

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_ownership_controls" "slices" {
  for_each = aws_s3_bucket.slices

  region = each.key
  bucket = each.value.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "slices" {
  for_each = aws_s3_bucket.slices

  region                  = each.key
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Against a mistaken or hostile overwrite. The gateway's removals take every version and every delete marker.
resource "aws_s3_bucket_versioning" "slices" {
  for_each = aws_s3_bucket.slices

  region = each.key
  bucket = each.value.id

  versioning_configuration {
    status = "Enabled"
  }
}

# A second layer only: what is stored is sealed already, and no erasure rests on this one.
resource "aws_s3_bucket_server_side_encryption_configuration" "slices" {
  for_each = aws_s3_bucket.slices

  region = each.key
  bucket = each.value.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "slices" {
  for_each = aws_s3_bucket.slices

  region = each.key
  bucket = each.value.id

  # The gateway makes no multipart uploads; whatever is begun here is not its own.
  rule {
    id     = "abort-multipart-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  dynamic "rule" {
    for_each = var.noncurrent_days[*]

    content {
      id     = "drop-noncurrent-versions"
      status = "Enabled"

      filter {}

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }

      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.slices]
}

resource "aws_s3_bucket_policy" "slices" {
  for_each = aws_s3_bucket.slices

  region = each.key
  bucket = each.value.id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.slices]
}

data "aws_iam_policy_document" "bucket" {
  for_each = aws_s3_bucket.slices

  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  statement {
    sid       = "OnlyRecentTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "NumericLessThan"
      variable = "s3:TlsVersion"
      values   = [var.minimum_tls]
    }
  }

  # Whatever other policies of the account allow: objects are the gateway's alone.
  statement {
    sid       = "OnlyTheGatewayTouchesObjects"
    effect    = "Deny"
    actions   = ["s3:GetObject*", "s3:PutObject*", "s3:DeleteObject*", "s3:RestoreObject", "s3:ReplicateObject"]
    resources = ["${each.value.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = concat([aws_iam_role.gateway.arn], var.other_object_readers)
    }
  }

  # Residency: nothing is copied out of the region behind the gateway's back.
  statement {
    sid       = "NoReplication"
    effect    = "Deny"
    actions   = ["s3:PutReplicationConfiguration"]
    resources = [each.value.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
  }
}
