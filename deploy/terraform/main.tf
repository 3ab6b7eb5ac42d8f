terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_partition" "this" {}

data "aws_iam_policy_document" "ec2" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# The instance's own role, which agents can't reach: all that it may do is become the agents' role.
resource "aws_iam_role" "instance" {
  name_prefix        = "${var.name}-instance-"
  assume_role_policy = data.aws_iam_policy_document.ec2.json
}

data "aws_iam_policy_document" "instance" {
  statement {
    actions   = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    resources = [aws_iam_role.agents.arn]
  }
}

resource "aws_iam_role_policy" "instance" {
  name   = "become-agents"
  role   = aws_iam_role.instance.id
  policy = data.aws_iam_policy_document.instance.json
}

resource "aws_iam_role_policy_attachment" "session_manager" {
  count      = var.session_manager ? 1 : 0
  role       = aws_iam_role.instance.name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "instance" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.instance.name
}

# By whose authority agents' calls are made: IAM's bound around what Chaperone's policies permit.
data "aws_iam_policy_document" "agents_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.instance.arn]
    }
  }
}

resource "aws_iam_role" "agents" {
  name_prefix          = "${var.name}-agents-"
  assume_role_policy   = data.aws_iam_policy_document.agents_trust.json
  max_session_duration = 3600
}

resource "aws_iam_role_policy_attachment" "agents" {
  for_each   = toset(var.agent_policy_arns)
  role       = aws_iam_role.agents.name
  policy_arn = each.value
}

# Nobody reaches in; out go TLS, and the record to ClickHouse.
resource "aws_security_group" "instance" {
  name_prefix = "${var.name}-"
  description = "Hosts of agents, with Chaperone"
  vpc_id      = var.vpc_id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "tls" {
  security_group_id = aws_security_group.instance.id
  description       = "AWS, and whatever agents may reach"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_security_group" "clickhouse" {
  name_prefix = "${var.name}-clickhouse-"
  description = "ClickHouse: the record of agents' calls"
  vpc_id      = var.vpc_id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clickhouse" {
  security_group_id            = aws_security_group.clickhouse.id
  referenced_security_group_id = aws_security_group.instance.id
  description                  = "Chaperone's writers, over HTTPS"
  ip_protocol                  = "tcp"
  from_port                    = var.clickhouse_port
  to_port                      = var.clickhouse_port
}

resource "aws_vpc_security_group_egress_rule" "clickhouse" {
  security_group_id            = aws_security_group.instance.id
  referenced_security_group_id = aws_security_group.clickhouse.id
  description                  = "The record, over HTTPS"
  ip_protocol                  = "tcp"
  from_port                    = var.clickhouse_port
  to_port                      = var.clickhouse_port
}

resource "aws_launch_template" "this" {
  name_prefix            = "${var.name}-"
  image_id               = var.image_id
  instance_type          = var.instance_type
  key_name               = var.key_name
  update_default_version = true
  user_data              = base64encode(templatefile(var.user_data_file, { role = aws_iam_role.agents.arn }))
  vpc_security_group_ids = [aws_security_group.instance.id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.instance.arn
  }

  # One hop: nothing that forwards packets, a container's bridge say, brings an answer further.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = var.volume_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  lifecycle {
    precondition {
      condition     = length(file(var.user_data_file)) <= 12000
      error_message = "EC2 takes 16 KiB of user data: keep long policies elsewhere."
    }
  }
}
