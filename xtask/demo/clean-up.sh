# AWS CLI v1, started by a person who has logged in. Two of these calls wait for somebody else, and one is too much.
export AWS_DEFAULT_REGION=eu-west-1
set -x
aws s3 rm s3://demo-reports/2026/report.bin || exit 1
aws dynamodb delete-table --table-name orders && exit 1
aws ec2 run-instances --image-id ami-12c6146b --count 1 --query 'Instances[].InstanceType' || exit 1
aws ec2 run-instances --image-id ami-12c6146b --count 1 --query 'Instances[].InstanceType' && exit 1
exit 0
