# An AMI from Debian's official one, with Chaperone's package and what `cargo xtask image` puts beside it.
#
#   cargo xtask package
#   packer init . && packer build -var region=eu-west-1 -var package=../../target/package/chaperone_0.1.0_amd64.deb .

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

variable "region" {
  type = string
}

variable "package" {
  type        = string
  description = "The .deb of the architecture."
}

variable "architecture" {
  type    = string
  default = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64, as EC2 names them."
  }
}

locals {
  debian = var.architecture == "arm64" ? "arm64" : "amd64"
}

source "amazon-ebs" "debian" {
  region        = var.region
  ami_name      = "chaperone-${var.architecture}-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  instance_type = var.architecture == "arm64" ? "t4g.small" : "t3.small"
  ssh_username  = "admin"
  # The AMI's instances have IMDSv2 alone, and so has the one that makes it.
  imds_support = "v2.0"
  boot_mode    = "uefi"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  source_ami_filter {
    owners      = ["136693071363"] # Debian's account
    most_recent = true
    filters = {
      name                = "debian-13-${local.debian}-*"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }
}

build {
  sources = ["source.amazon-ebs.debian"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/chaperone.deb"
  }
  provisioner "file" {
    source      = "${path.root}/../../ami/files/"
    destination = "/tmp/files"
  }
  provisioner "file" {
    source      = "${path.root}/../../ami/packages.txt"
    destination = "/tmp/packages.txt"
  }
  provisioner "shell" {
    execute_command = "sudo sh -e '{{ .Path }}'"
    inline = [
      "export DEBIAN_FRONTEND=noninteractive",
      "cloud-init status --wait",
      "apt-get update",
      # Its boot loader and its network stay as Debian's AMI has them.
      "grep -v -e '^#' -e '^systemd-boot$' -e '^systemd-repart$' /tmp/packages.txt | xargs apt-get install -y --no-install-recommends",
      "apt-get install -y /tmp/chaperone.deb",
      "rm -rf /etc/chaperone/policies/* /tmp/files/etc/kernel /tmp/files/etc/repart.d /tmp/files/etc/systemd/network",
      "cp -r /tmp/files/. / && chown -R root:root /etc/chaperone /etc/nftables.conf /etc/sudoers.d/admin && chmod 0440 /etc/sudoers.d/admin",
      "id agent > /dev/null 2>&1 || useradd --create-home --shell /bin/bash --uid 2000 agent",
      "systemctl enable chaperone chaperone-provision nftables unattended-upgrades",
      # User data is the configuration here, and no script.
      "apt-get purge -y cloud-init",
      "rm -rf /var/lib/chaperone /etc/ssh/ssh_host_* /tmp/chaperone.deb /tmp/files /tmp/packages.txt",
      "truncate -s 0 /etc/machine-id",
    ]
  }
}
