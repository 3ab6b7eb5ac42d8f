# Debian's AWS CLI, which is version 2.
set -ex
/usr/bin/aws --version
/usr/bin/aws dynamodb create-table --region eu-west-1 --table-name orders --billing-mode PAY_PER_REQUEST \
  --attribute-definitions AttributeName=id,AttributeType=S --key-schema AttributeName=id,KeyType=HASH
/usr/bin/aws dynamodb put-item --region eu-west-1 --table-name orders --item '{"id": {"S": "42"}, "what": {"S": "tea"}}'
/usr/bin/aws dynamodb get-item --region eu-west-1 --table-name orders --key '{"id": {"S": "42"}}'
/usr/bin/aws ec2 describe-vpcs --region eu-west-1 --query 'Vpcs[].VpcId'
