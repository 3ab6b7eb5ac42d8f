# What the model tells the agent to run, one paragraph after the other. The agent runs each by its own shell tool.

aws sts get-caller-identity --region eu-west-1 --query Account >> heard

aws s3 mb s3://agent-notes --region eu-west-1 >> heard && echo 'remember the milk' > note.txt && aws s3 cp note.txt s3://agent-notes/todo/note.txt --region eu-west-1 --no-progress >> heard

/usr/bin/aws dynamodb create-table --region eu-west-1 --table-name orders --billing-mode PAY_PER_REQUEST --attribute-definitions AttributeName=id,AttributeType=S --key-schema AttributeName=id,KeyType=HASH --query TableDescription.TableStatus >> heard

python3 -c "
import boto3
table = boto3.resource('dynamodb', 'eu-west-1').Table('orders')
table.put_item(Item={'id': '43', 'what': 'milk'})
print(table.get_item(Key={'id': '43'})['Item'])
" >> heard

aws s3 cp s3://agent-notes/todo/none - --region eu-west-1 >> heard 2>&1 || echo "there is none" >> heard

aws s3 cp s3://agent-notes/todo/note.txt - --region eu-west-1 >> heard

echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT
