"""Uploads a file by boto3 and downloads it again: BUCKET KEY FILE BACK."""

import sys

import boto3

bucket, key, source, target = sys.argv[1:]
s3 = boto3.client("s3", region_name="eu-west-1")
s3.upload_file(source, bucket, key)
s3.download_file(bucket, key, target)
