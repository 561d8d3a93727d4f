data "aws_partition" "this" {}

data "aws_region" "this" {}

data "aws_subnet" "this" {
  id = var.subnet_id
}

locals {
  # The very files that a test holds equal to the calls of the code; their ARNs are of the standard partition.
  policies = merge(
    { daemon = "iam-policy.json" },
    var.target_groups ? { target-groups = "iam-policy-target-groups.json" } : {},
    var.ssm_exercise ? { ssm = "iam-policy-ssm.json" } : {},
  )

  settings = merge(
    {
      policies       = "/etc/autoscaler/policies"
      state_dir      = "/var/lib/autoscaler"
      control_socket = "/run/autoscaler/control.sock"
      log_format     = "json"
      aws_region     = data.aws_region.this.id
    },
    length(var.metrics_cidrs) > 0 ? { http_host = "0.0.0.0" } : {},
    var.hints ? { aws_hint_queue_url = aws_sqs_queue.hints[0].url } : {},
    var.settings,
  )
}

# The role of the daemon

resource "aws_iam_role" "this" {
  name        = var.name
  description = "VM autoscaler: starts, stops and provisions VMs that carry the tag autoscaler:fleet"
  tags        = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = each.key
  role   = aws_iam_role.this.id
  policy = replace(file("${path.module}/../${each.value}"), "arn:aws:", "arn:${data.aws_partition.this.partition}:")
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = var.role_policy_arns

  role       = aws_iam_role.this.name
  policy_arn = each.value
}

resource "aws_iam_instance_profile" "this" {
  name = var.name
  role = aws_iam_role.this.name
  tags = var.tags
}

# What the fleets' VMs themselves may say

resource "aws_iam_role_policy" "prepared" {
  count = var.prepared_role_name == null ? 0 : 1

  name   = "${var.name}-prepared"
  role   = var.prepared_role_name
  policy = replace(file("${path.module}/../iam-policy-prepared.json"), "arn:aws:", "arn:${data.aws_partition.this.partition}:")
}

# Who reaches the management VM

resource "aws_security_group" "this" {
  name        = var.name
  description = "Management VM of the VM autoscaler"
  vpc_id      = data.aws_subnet.this.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each = var.ssh_cidrs

  security_group_id = aws_security_group.this.id
  description       = "SSH"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  tags              = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each = var.metrics_cidrs

  security_group_id = aws_security_group.this.id
  description       = "Metrics and status page"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 9412
  to_port           = 9412
  tags              = var.tags
}

# It asks the cloud, metrics and package indices, wherever they are.
resource "aws_vpc_security_group_egress_rule" "this" {
  security_group_id = aws_security_group.this.id
  description       = "Everywhere"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
  tags              = var.tags
}

# The management VM

resource "aws_instance" "this" {
  ami                    = var.ami_id
  instance_type          = var.instance_type
  subnet_id              = var.subnet_id
  vpc_security_group_ids = [aws_security_group.this.id]
  iam_instance_profile   = aws_iam_instance_profile.this.name
  key_name               = var.key_name
  tags                   = merge(var.tags, { Name = var.name })

  user_data = templatefile("${path.module}/user-data.sh.tftpl", {
    source_url    = var.source_url
    source_sha256 = var.source_sha256
    settings      = join("\n", [for name, value in local.settings : "${name} = ${jsonencode(value)}"])
  })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = var.kms_key_arn
    volume_size = var.root_volume_gb
    volume_type = "gp3"
    tags        = var.tags
  }

  # The journal is on its disk: neither a newer image nor another archive makes another VM of it.
  lifecycle {
    ignore_changes = [ami, user_data]
  }
}

# Hints: EC2's events into a queue that the daemon reads

resource "aws_sqs_queue" "hints" {
  count = var.hints ? 1 : 0

  name                      = "${var.name}-hints"
  message_retention_seconds = 300
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_cloudwatch_event_rule" "hints" {
  count = var.hints ? 1 : 0

  name        = "${var.name}-hints"
  description = "What happens to VMs, for the VM autoscaler"
  tags        = var.tags

  event_pattern = jsonencode({
    source      = ["aws.ec2", "aws.health"]
    detail-type = ["EC2 Instance State-change Notification", "AWS Health Event"]
  })
}

resource "aws_sqs_queue_policy" "hints" {
  count = var.hints ? 1 : 0

  queue_url = aws_sqs_queue.hints[0].url

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.hints[0].arn
      Principal = { Service = "events.amazonaws.com" }
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.hints[0].arn } }
    }]
  })
}

resource "aws_cloudwatch_event_target" "hints" {
  count = var.hints ? 1 : 0

  rule = aws_cloudwatch_event_rule.hints[0].name
  arn  = aws_sqs_queue.hints[0].arn
}
