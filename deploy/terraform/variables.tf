variable "name" {
  description = "Name of what is made. Queues of the daemon must begin with autoscaler-, and so this with autoscaler."
  type        = string
  default     = "autoscaler"

  validation {
    condition     = can(regex("^autoscaler(-[a-z0-9-]+)?$", var.name))
    error_message = "The name must be autoscaler, or autoscaler- and lower case letters, digits and dashes."
  }
}

variable "subnet_id" {
  description = "Subnet of the management VM. It must reach EC2's API, the package index, the Debian archive and source_url."
  type        = string
}

variable "ami_id" {
  description = "Image of Debian 12 or later, or of Ubuntu with Python 3.11 or later, for the processor of instance_type."
  type        = string
}

variable "instance_type" {
  description = "Type of the management VM."
  type        = string
  default     = "t3.small"
}

variable "root_volume_gb" {
  description = "Size of its encrypted disk, which the journal is on too (2 GB at most by default)."
  type        = number
  default     = 16
}

variable "kms_key_arn" {
  description = "Key that encrypts its disk; null takes the account's default for EBS."
  type        = string
  default     = null
}

variable "key_name" {
  description = "Key pair for SSH; null for none."
  type        = string
  default     = null
}

variable "source_url" {
  description = "Where the VM gets the code once, over HTTPS: an archive as `git archive --prefix=autoscaler/ -o autoscaler.tar.gz VERSION` makes it."
  type        = string
}

variable "source_sha256" {
  description = "SHA-256 of that archive; nothing is installed from another one."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.source_sha256))
    error_message = "A SHA-256 is 64 hexadecimal digits in lower case."
  }
}

variable "settings" {
  description = "Settings of the daemon (deploy/REFERENCE.md) beside the Region, for example { tick_s = 20 }. No secrets: user data can be read."
  type        = any
  default     = {}
}

variable "ssh_cidrs" {
  description = "IPv4 ranges that may reach SSH; empty for none."
  type        = set(string)
  default     = []
}

variable "metrics_cidrs" {
  description = "IPv4 ranges that may reach metrics and status page on port 9412, which have no password; empty leaves them on the VM alone."
  type        = set(string)
  default     = []
}

variable "hints" {
  description = "Whether EC2's events come to the daemon through a queue, so that it looks sooner."
  type        = bool
  default     = false
}

variable "target_groups" {
  description = "Whether fleets have load balancers of AWS (balancer.target_group)."
  type        = bool
  default     = false
}

variable "ssm_exercise" {
  description = "Whether fleets try their VMs by Systems Manager (freshness.exercise.ssm)."
  type        = bool
  default     = false
}

variable "role_policy_arns" {
  description = "Policies that the role gets as well, by a name of yours: iam:PassRole for the role of made VMs, grants of KMS keys, Session Manager."
  type        = map(string)
  default     = {}
}

variable "prepared_role_name" {
  description = "Existing role of the fleets' VMs, which then may say that they are prepared (refill.prepared_tag); null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of all that is made."
  type        = map(string)
  default     = {}
}
