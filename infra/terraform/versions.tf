terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # 6.0 is the first in which every resource takes a region of its own: one provider serves all of a group's regions.
      version = ">= 6.0, < 7.0"
    }
  }
}

provider "aws" {
  region = var.regions[0]

  default_tags {
    tags = var.tags
  }
}
