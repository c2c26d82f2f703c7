variable "name" {
  description = "Name of the group; begins the names of its buckets and of its role. Tells nothing about tenants."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "3 to 32 lower-case letters, digits and hyphens."
  }
}

variable "regions" {
  description = "Regions of the group. Nothing of its tenants leaves them."
  type        = list(string)
  default     = ["eu-west-2", "eu-west-1"]

  validation {
    condition     = length(var.regions) > 0 && length(distinct(var.regions)) == length(var.regions)
    error_message = "At least one region, each once."
  }
}

variable "minimum_tls" {
  description = "Oldest TLS version with which the buckets may be reached."
  type        = string
  default     = "1.3"

  validation {
    condition     = contains(["1.2", "1.3"], var.minimum_tls)
    error_message = "1.2 or 1.3."
  }
}

variable "trusted_services" {
  description = "AWS services that may hand out the gateway's role."
  type        = list(string)
  default     = ["ec2.amazonaws.com"]
}

variable "other_object_readers" {
  description = "ARNs of roles besides the gateway's that may touch objects (disaster recovery). They see sealed bytes only."
  type        = list(string)
  default     = []
}

variable "noncurrent_days" {
  description = "Days after which S3 drops noncurrent versions by itself. The gateway removes every version of what it erases; this catches what a lost node could not. Null: never."
  type        = number
  default     = 7
  nullable    = true
}

variable "tags" {
  description = "Tags of everything here."
  type        = map(string)
  default     = {}
}
