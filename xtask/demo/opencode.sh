# What the model tells opencode to run, one paragraph after the other. The agent runs each by its own shell tool.

aws sts get-caller-identity --region eu-west-1

aws s3 mb s3://agent-notes --region eu-west-1 && echo 'remember the milk' > note.txt && aws s3 cp note.txt s3://agent-notes/todo/note.txt --region eu-west-1 --no-progress

/usr/bin/aws dynamodb put-item --region eu-west-1 --table-name orders --item '{"id": {"S": "43"}, "what": {"S": "milk"}}' && /usr/bin/aws dynamodb get-item --region eu-west-1 --table-name orders --key '{"id": {"S": "43"}}'

python3 -c "
import boto3
for vpc in boto3.client('ec2', 'eu-west-1').describe_vpcs()['Vpcs']:
    print(vpc['VpcId'], vpc['CidrBlock'])
"

aws secretsmanager get-secret-value --secret-id database --region eu-west-1 || echo "the secret can't be read"

aws s3 cp s3://agent-notes/todo/note.txt - --region eu-west-1
