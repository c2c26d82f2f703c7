output "buckets" {
  description = "Bucket of each region."
  value       = { for region, bucket in aws_s3_bucket.slices : region => bucket.id }
}

output "role_arn" {
  description = "The gateway's role."
  value       = aws_iam_role.gateway.arn
}

output "instance_profile" {
  description = "Instance profile for the gateway's machines."
  value       = aws_iam_instance_profile.gateway.name
}

output "configuration" {
  description = "The regions as `quietus serve` takes them in its configuration."
  value = join("\n", [
    for region in var.regions : <<-TOML
      [[region]]
      name = "${region}"
      bucket = "${aws_s3_bucket.slices[region].id}"
    TOML
  ])
}
