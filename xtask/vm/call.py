"""What an agent does in the virtual machines, with Python's own library alone.

call.py once        calls AWS as an SDK does: credentials from the metadata address, a signed ListBuckets; prints its status
call.py on FILE     … with the same credentials, on a connection each, until FILE.stop is there; a line each: 200, or what failed
call.py dial FILE   dials AWS, until FILE.stop is there; a line each: who answered (`daemon` or `aws`), or what failed
"""
import datetime, errno, hashlib, hmac, http.client, json, os, socket, ssl, sys, time

HOST = "s3.eu-west-1.amazonaws.com"


def metadata():
    base = "/latest/meta-data/iam/security-credentials/"
    link = http.client.HTTPConnection("169.254.169.254", timeout=60)
    def ask(method, path, headers):
        link.request(method, path, headers=headers)
        return link.getresponse().read().decode()
    token = {"x-aws-ec2-metadata-token": ask("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "21600"})}
    return json.loads(ask("GET", base + ask("GET", base, token).strip(), token))


def call(keys):
    """AWS's own description: IAM user guide, "Create a signed AWS API request"."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": HOST, "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "x-amz-date": now, "x-amz-security-token": keys["Token"]}
    names = ";".join(headers)
    canonical = "\n".join(["GET", "/", "", *(f"{name}:{value}" for name, value in headers.items()), "", names, headers["x-amz-content-sha256"]])
    scope = f"{now[:8]}/eu-west-1/s3/aws4_request"
    key = b"AWS4" + keys["SecretAccessKey"].encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={signature}"
    link = http.client.HTTPSConnection(HOST, timeout=60)
    link.request("GET", "/", headers=headers)
    answer = link.getresponse()
    body = answer.read()
    link.close()
    return "200" if answer.status == 200 else f"{answer.status} {body.decode(errors='replace')}"


def dial():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.77.0.1", 443), timeout=20) as link, context.wrap_socket(link, server_hostname=HOST) as link:
        certificate = link.getpeercert(True)
    return "daemon" if b"Chaperone local CA" in certificate else "aws" if b"Fake AWS" in certificate else "somebody"


def told(what):
    try:
        return what()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__


if sys.argv[1] == "once":
    print(told(lambda: call(metadata())))
else:
    what = dial
    if sys.argv[1] == "on":
        keys = metadata()
        what = lambda: call(keys)
    with open(sys.argv[2], "a", buffering=1) as out:
        while not os.path.exists(sys.argv[2] + ".stop"):
            print(told(what), file=out)
            time.sleep(0.02)
