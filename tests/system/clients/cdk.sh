# Arguments: the folder where CDK and its app are.
set -e
folder=$1
export AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1 CDK_DISABLE_VERSION_CHECK=1 CDK_DISABLE_CLI_TELEMETRY=true
# Where it sees no EC2 it doesn't ask the metadata address, unless this says whether to.
export AWS_EC2_METADATA_DISABLED=false
cdk() {
    # What it says has times in it.
    node "$folder/node_modules/aws-cdk/bin/cdk" --app "node $folder/app.mjs" --no-notices --no-version-reporting --no-color "$@" >said 2>&1 ||
        { cat said; exit 1; }
}
cdk synth --quiet
ls cdk.out/*.template.json
cdk deploy --require-approval never
aws cloudformation describe-stack-resources --stack-name ByCdk --query 'StackResources[].[ResourceType,ResourceStatus]' --output text
cdk destroy --force
aws sqs list-queues
# moto has no outputs of stacks that were made by a change set.
cdk deploy --require-approval never --method direct --outputs-file outputs.json
cat outputs.json
cdk diff
cdk destroy --force
aws dynamodb list-tables --output text
echo destroyed
