output "instance_id" {
  description = "The management VM."
  value       = aws_instance.this.id
}

output "private_ip" {
  description = "Its address; Prometheus scrapes port 9412 of it where metrics_cidrs admits it."
  value       = aws_instance.this.private_ip
}

output "security_group_id" {
  description = "Its security group, which security groups of fleets must admit to what is scraped and probed."
  value       = aws_security_group.this.id
}

output "role_arn" {
  description = "The role of the daemon."
  value       = aws_iam_role.this.arn
}

output "hint_queue_url" {
  description = "The queue of hints; null without one."
  value       = var.hints ? aws_sqs_queue.hints[0].url : null
}
