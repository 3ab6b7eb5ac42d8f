"""Prints whose key the metadata address hands out to this process, or what it says instead."""
import json, urllib.request

BASE = "http://169.254.169.254/latest/"


def ask(path, method="GET", **headers):
    request = urllib.request.Request(BASE + path, method=method, headers={name.replace("_", "-"): it for name, it in headers.items()})
    return urllib.request.urlopen(request, timeout=20).read().decode()


try:
    token = ask("api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    roles = "meta-data/iam/security-credentials/"
    role = ask(roles, X_aws_ec2_metadata_token=token)
    print(role, json.loads(ask(roles + role, X_aws_ec2_metadata_token=token))["AccessKeyId"])
    print("user data:", ask("user-data", X_aws_ec2_metadata_token=token)[:20])
except Exception as error:
    print(error)
