# AWS CLI v1, from PyPI.
set -ex
aws --version
aws sts get-caller-identity --region eu-west-1
aws s3 mb s3://demo-reports --region eu-west-1
head -c 3000000 /dev/urandom > report.bin
aws s3 cp report.bin s3://demo-reports/2026/report.bin --region eu-west-1 --no-progress
aws s3 ls s3://demo-reports/2026/ --region eu-west-1
aws s3 cp s3://demo-reports/2026/report.bin back.bin --region eu-west-1 --no-progress
cmp report.bin back.bin
