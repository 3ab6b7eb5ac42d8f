// A stack of the kinds of things that people begin with. Without assets, so that nothing must be bootstrapped.
import { App, CfnOutput, LegacyStackSynthesizer, RemovalPolicy, Stack, aws_dynamodb, aws_iam, aws_sqs } from "aws-cdk-lib";

const app = new App();
const stack = new Stack(app, "ByCdk", { synthesizer: new LegacyStackSynthesizer() });
const queue = new aws_sqs.Queue(stack, "Queue", { queueName: "by-cdk" });
const table = new aws_dynamodb.Table(stack, "Table", {
  tableName: "by-cdk",
  partitionKey: { name: "id", type: aws_dynamodb.AttributeType.STRING },
  billingMode: aws_dynamodb.BillingMode.PAY_PER_REQUEST,
  removalPolicy: RemovalPolicy.DESTROY,
});
const role = new aws_iam.Role(stack, "Role", {
  roleName: "by-cdk",
  assumedBy: new aws_iam.ServicePrincipal("lambda.amazonaws.com"),
});
queue.grantSendMessages(role);
table.grantReadData(role);
new CfnOutput(stack, "QueueArn", { value: queue.queueArn });
new CfnOutput(stack, "TableArn", { value: table.tableArn });
