output "launch_template_id" {
  description = "For an instance, or an Auto Scaling group."
  value       = aws_launch_template.this.id
}

output "agents_role_arn" {
  description = "For `[[roles]]`."
  value       = aws_iam_role.agents.arn
}

output "clickhouse_security_group_id" {
  description = "ClickHouse's hosts belong to it."
  value       = aws_security_group.clickhouse.id
}
