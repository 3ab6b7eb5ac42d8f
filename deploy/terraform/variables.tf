variable "name" {
  description = "What the resources' names begin with."
  type        = string
  default     = "chaperone"
}

variable "image_id" {
  description = "The AMI, as `cargo xtask image --publish --yes` or Packer prints it."
  type        = string
}

variable "vpc_id" {
  description = "Where the hosts and ClickHouse are."
  type        = string
}

variable "user_data_file" {
  description = "The configuration (docs/image.md); $${role} in it becomes the agents' role's ARN. `chaperone provision --user-data FILE --check` checks it."
  type        = string
}

variable "agent_policy_arns" {
  description = "IAM policies of the agents' role."
  type        = list(string)
}

variable "instance_type" {
  description = "A Nitro type: the image boots by UEFI from NVMe."
  type        = string
  default     = "t3.medium"
}

variable "key_name" {
  description = "An EC2 key pair for the user `admin`; none, if not given."
  type        = string
  default     = null
}

variable "session_manager" {
  description = "Whether the instance's role may be managed by Systems Manager. Its agent isn't in the image."
  type        = bool
  default     = false
}

variable "volume_gib" {
  description = "The root's size, the journal included."
  type        = number
  default     = 20
}

variable "clickhouse_port" {
  description = "ClickHouse's port for HTTPS."
  type        = number
  default     = 8443
}
