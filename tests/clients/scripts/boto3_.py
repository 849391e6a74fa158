import sys

import boto3

s3 = boto3.client(
    "s3",
    endpoint_url=sys.argv[1],
    region_name="eu-central-1",
    aws_access_key_id="AKIDEXAMPLE",
    aws_secret_access_key="not-a-secret",
)
print([bucket["Name"] for bucket in s3.list_buckets()["Buckets"]])
