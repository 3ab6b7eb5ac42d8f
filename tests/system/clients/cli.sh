# What people do with the AWS CLI. Arguments: the program, a bucket.
set -e
export AWS_DEFAULT_REGION=eu-west-1 AWS_PAGER=
aws=$1 bucket=$2
"$aws" sts get-caller-identity --query Account
"$aws" s3 mb "s3://$bucket" >/dev/null
"$aws" s3api wait bucket-exists --bucket "$bucket"
mkdir -p tree/sub
head -c 20000000 /dev/urandom > tree/large
echo one > "tree/a b,c"
echo two > tree/sub/é
"$aws" s3 sync tree "s3://$bucket/tree" >/dev/null
"$aws" s3 sync "s3://$bucket/tree" back >/dev/null
diff -r tree back && echo "the tree came back"
"$aws" s3 ls --recursive "s3://$bucket" | awk '{print $3, $4, $5}'
"$aws" s3 cp "s3://$bucket/tree/a b,c" "s3://$bucket/copy" >/dev/null
"$aws" s3 cp "s3://$bucket/copy" -
curl -sS "$("$aws" s3 presign "s3://$bucket/copy")"
"$aws" s3 rm --recursive "s3://$bucket/tree" >/dev/null
"$aws" s3api list-objects-v2 --bucket "$bucket" --query 'Contents[].Key' --output text
"$aws" dynamodb create-table --table-name "$bucket" --key-schema AttributeName=id,KeyType=HASH \
  --attribute-definitions AttributeName=id,AttributeType=S --billing-mode PAY_PER_REQUEST >/dev/null
"$aws" dynamodb wait table-exists --table-name "$bucket"
for id in 1 2 3; do
  "$aws" dynamodb put-item --table-name "$bucket" --item "{\"id\":{\"S\":\"$id\"}}"
done
"$aws" dynamodb scan --table-name "$bucket" --page-size 1 --query 'Items[].id.S' --output text | tr '\t' '\n' | sort | tr '\n' ' '
echo
"$aws" ec2 describe-regions --region-names eu-west-1 --query 'Regions[].RegionName' --output text
"$aws" iam create-user --user-name "$bucket" --query User.UserName
"$aws" cloudwatch put-metric-data --namespace Test --metric-name M --value 1
"$aws" cloudwatch list-metrics --namespace Test --query 'Metrics[].MetricName'
"$aws" lambda list-functions --query Functions
if "$aws" s3api head-object --bucket "$bucket" --key none 2>error; then exit 1; fi
grep -o '([0-9]*)' error
